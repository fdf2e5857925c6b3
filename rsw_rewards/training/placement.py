"""Placement: what the actors of a training ask of a cluster, and whether it can give it, before anything is started.

Ray lets an actor that asks for more than there is wait for ever. The same first-come placement is therefore tried here on
paper: an actor lies on one node, a share of a GPU below 1 on one card.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.engine.calls import actors_for
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need
from rsw_rewards.training.heldout import measured_rubric

SLACK = 1e-6
"""Shares are decimal fractions, ten tenths of which need not add up to one."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Actors of one kind."""

    what: str
    actors: int
    num_cpus: float
    num_gpus: float
    settings: str
    """Keys of the configuration that change it."""


@dataclass(slots=True)
class Node:
    """What a machine has, and what of it is still free."""

    name: str
    num_cpus: float
    num_gpus: int
    cards: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.cards = [1.0] * self.num_gpus

    def take(self, cpus: float, gpus: float) -> bool:
        """Place one actor here; False where it does not fit."""
        cards = self._cards(gpus)
        if cards is None or cpus > self.num_cpus + SLACK:
            return False
        for card in cards:
            self.cards[card] -= min(gpus, 1.0)
        self.num_cpus -= cpus
        return True

    def _cards(self, gpus: float) -> list[int] | None:
        """Cards for one actor: the fullest one with room for a fraction, untouched ones for whole cards."""
        if gpus == 0:
            return []
        if gpus < 1:
            room = [card for card, free in enumerate(self.cards) if free >= gpus - SLACK]
            return [min(room, key=lambda card: self.cards[card])] if room else None
        whole = [card for card, free in enumerate(self.cards) if free >= 1 - SLACK]
        return whole[: int(gpus)] if len(whole) >= gpus else None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the actors of a run would lie."""

    demands: list[Demand]
    cluster: str
    """What there is, in words."""
    places: list[dict[str, int]]
    """Of each demand: actors by name of the node."""
    problem: str | None
    """Why it does not fit."""


def demands(config: ExperimentConfig, rubric: Rubric) -> list[Demand]:
    """The actors of a run, in the order in which they are started. The learner is no actor: it uses this process's device.

    Raises:
        ConfigError: a share of a GPU above 1 that is not whole or has no actor to go to, or a component that cannot run in an
            actor.
    """
    made, scored = config.rollouts, config.scoring
    found = [Demand("rollouts", made.actors, made.num_cpus, made.num_gpus, "'rollouts.actors' or 'rollouts.num_gpus'")]
    for component in rubric.components:
        count = actors_for(component, component.build(), scored.actors)
        what = f"scoring {component.label}"
        found.append(Demand(what, count, scored.num_cpus, scored.num_gpus, "'scoring.actors' or 'scoring.num_gpus'"))
    if scored.num_gpus and not any(demand.actors for demand in found[1:]):
        raise ConfigError(
            "'scoring.num_gpus' is the share of a GPU per scoring actor, but no component is scored by one; set 'scoring.actors' too"
        )
    if config.heldout is not None:
        for component in measured_rubric(config.measure, rubric).components:
            count = actors_for(component, component.build(), 0)
            found.append(
                Demand(f"measuring {component.label}", count, 0.1, 0.0, "the number of components with 'timeout_s'")
            )
    for demand in found:
        if demand.num_gpus > 1 and not float(demand.num_gpus).is_integer():
            raise ConfigError(
                f"{demand.what}: {demand.num_gpus:g} GPUs per actor; above 1 the number must be whole, since a share is of one card"
            )
    return [demand for demand in found if demand.actors]


def place(actors: Sequence[Demand], nodes: Sequence[Node]) -> Placement:
    """Put actors one after another onto the first node with room. Nodes are used up by it."""
    cpus, gpus = sum(node.num_cpus for node in nodes), sum(node.num_gpus for node in nodes)
    machines = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    cluster = f"{cpus:g} CPUs and {gpus:g} GPUs{machines}"
    places: list[dict[str, int]] = []
    problem = None
    for demand in actors:
        where: dict[str, int] = {}
        for _ in range(demand.actors):
            node = next((node for node in nodes if node.take(demand.num_cpus, demand.num_gpus)), None)
            if node is None:
                break
            where[node.name] = where.get(node.name, 0) + 1
        places.append(where)
        fit = sum(where.values())
        if fit < demand.actors and problem is None:
            before = " after those named before it" if len(places) > 1 else ""
            problem = (
                f"the placement does not fit: {demand.what} asks for {demand.actors} actors of {demand.num_cpus:g} CPUs and "
                f"{demand.num_gpus:g} GPUs each, of which {fit} find room{before} in the {cluster} there are; lower {demand.settings}"
            )
    return Placement(list(actors), cluster, places, problem)


def cluster_nodes() -> list[Node]:
    """The nodes of the cluster that is joined, or this machine as a cluster started here would see it."""
    ray = sys.modules.get("ray")  # what has joined a cluster has imported it
    if ray is not None and ray.is_initialized():
        alive = [node for node in ray.nodes() if node["Alive"]]
        return [
            Node(
                f"node {number}" if len(alive) > 1 else "the node",
                float(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for number, node in enumerate(alive, 1)
        ]
    return [Node("this machine", float(max(2, os.cpu_count() or 1)), _cards())]


def _cards() -> int:
    """GPUs that this process may use; torch, which takes seconds to import, is asked only where there may be any."""
    if "torch" not in sys.modules and not any(Path(driver).exists() for driver in _DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What is there where a driver of GPUs is loaded: NVIDIA's, AMD's, or that of the Windows subsystem for Linux."""


def placement(config: ExperimentConfig, rubric: Rubric, nodes: Iterable[Node] | None = None) -> Placement:
    """Where the actors of a run would lie on ``nodes``, by default those of :func:`cluster_nodes`."""
    return place(demands(config, rubric), list(cluster_nodes() if nodes is None else nodes))


def check_placement(config: ExperimentConfig, rubric: Rubric) -> None:
    """Raise :class:`ConfigError` for a run whose actors would wait for ever."""
    if problem := placement(config, rubric).problem:
        raise ConfigError(problem)


def planned(config: ExperimentConfig) -> Placement:
    """The placement of a run that is not started."""
    need("a training", "trl")
    return placement(config, config.rubric)
