"""What a training needs and what of it is missing, looked up without starting or loading anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from rsw_rewards.config import DataSpec, ExperimentConfig, PolicySpec
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Component, Rubric, check_rubric, component_tasks
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.encoders.names import missing_weights
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import RswError
from rsw_rewards.extras import need
from rsw_rewards.io.images import read_size
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Policy
from rsw_rewards.training.checks import check_apart, check_learnable
from rsw_rewards.training.heldout import counted, measured_rubric
from rsw_rewards.training.placement import planned
from rsw_rewards.training.run_folder import check_free
from rsw_rewards.training.schedule import shares
from rsw_rewards.training.sources import glance
from rsw_rewards.training.trackers import check_trackers

T = TypeVar("T")
OPENED = 20
"""Images of which the header is read, of each section."""
READ = 50
"""Samples of which the truth is read."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a training needs."""

    what: str
    """Such as ``train``, ``reward exact_match``."""
    found: str
    """What is there, in words."""
    missing: str = ""
    """What is wrong or not there, as a sentence; empty where nothing is."""


class DryRun:
    """What a training would need; ``lines`` says what of it is there.

    Args:
        config: of any method.
    """

    def __init__(self, config: BaseModel) -> None:
        self.config: Any = config
        self.lines: list[Line] = []
        self._look()

    @property
    def missing(self) -> list[Line]:
        """The lines that something is missing of."""
        return [line for line in self.lines if line.missing]

    def _look(self) -> None:
        config = self.config
        self._tried(
            "packages", lambda: need("a training", "trl", "torch", "transformers"), "all that a training imports"
        )
        self._tried("out", lambda: check_free(config.out), str(config.out))
        train = self._samples("train", getattr(config, "train", None))
        held = self._samples("heldout", getattr(config, "heldout", None))
        policy = self._policy(getattr(config, "policy", None))
        if not isinstance(config, ExperimentConfig):
            return
        self._tried("log", lambda: check_trackers(config.log))
        rewards = self._components("reward", config.rubric)
        measured = self._tried("measure", lambda: measured_rubric(config.measure, config.rubric))
        if measured is not None and config.measure.components is not None:
            measures = self._components("measure", measured)
            if measures is not None and held:
                self._tried("measure", lambda: check_rubric(measured, measures, held[0]))
        if train and rewards is not None:
            self._tried("rubric", lambda: check_rubric(config.rubric, rewards, train[0]))
            self._truths("train", config.rubric, rewards, train[0])
        if train and policy is not None:
            self._tried("train", lambda: self._check_train(config, policy, *train))
        if train and held:
            self._tried("heldout", lambda: check_apart(train[0], held[0]))
        if rewards is not None and measured is not None:
            self._placement(config)

    def _tried(self, what: str, look: Callable[[], T], found: str = "") -> T | None:
        """What ``look`` gives; None, and a line that says why, where it raises. ``found`` is a line where it does not."""
        try:
            given = look()
        except RswError as error:
            self.lines.append(Line(what, "", str(error)))
            return None
        if found:
            self.lines.append(Line(what, found))
        return given

    def _samples(self, what: str, spec: DataSpec | None) -> tuple[list[Sample], bool] | None:
        if spec is None:
            return None
        read = self._tried(what, lambda: glance(spec, self.config.seed, what))
        if read is None:
            return None
        samples, are_all = read
        few = "" if are_all else "the first "
        scenes = len({sample.scene for sample in samples})
        problem = _missing_images(samples)
        self.lines.append(Line(what, f"{spec.source}: {few}{counted(samples)}; scenes: {scenes}", problem))
        return read

    def _policy(self, spec: PolicySpec | None) -> Policy | None:
        if spec is None:
            return None
        policy = self._tried("policy", lambda: build_policy(spec))
        if policy is not None:
            tasks = ", ".join(sorted(map(str, policy.tasks)))
            path = str(policy.describe().get("path", ""))
            there = Path(path).is_dir() or path == "embedded" or ":" in path
            place = path and (f" from {path}" if there else f" from {path} on the hub")
            problem = policy.missing() or ""
            if not policy.trainable:
                problem = f"{policy.name!r} cannot be trained"
            self.lines.append(Line("policy", "" if problem else f"{policy.name}{place}: {tasks}", problem))
        return policy

    def _components(self, what: str, rubric: Rubric) -> list[Verifier] | None:
        """The verifiers of a rubric; None where one of them is missing."""
        verifiers = []
        for component in rubric.components:
            verifier = self._tried(f"{what} {component.label}", component.build)
            if verifier is None:
                continue
            verifiers.append(verifier)
            tasks = ", ".join(sorted(map(str, component_tasks(component, verifier))))
            weight = f"weight {component.weight:g}, " if what == "reward" else ""
            lacks = (missing_weights(name) for name in verifier.encoders())
            problem = "; ".join(f"{lack} for its encoder" for lack in lacks if lack)
            self.lines.append(Line(f"{what} {component.label}", f"{weight}{tasks}", problem))
        return verifiers if len(verifiers) == len(rubric.components) else None

    def _truths(self, what: str, rubric: Rubric, verifiers: Sequence[Verifier], samples: Sequence[Sample]) -> None:
        """Whether the truth of the first samples can be read, by the verifiers that load nothing: it is read for an invalid output, too."""
        pairs = zip(rubric.components, verifiers, strict=True)
        light = [part for part, verifier in pairs if _is_light(verifier)]
        if not light:
            return
        alone = Rubric(components=tuple(Component(use=part.use, name=part.label, config=part.config) for part in light))
        table = self._tried(what, lambda: _of_invalid_outputs(alone, samples[:READ]))
        rows = [] if table is None else table.frame[table.frame["status"] == str(Status.ERROR)].to_dict("records")
        for row in {row["verifier"]: row for row in reversed(rows)}.values():
            why = f"{row['verifier']} cannot read the truth of the sample {row['sample']!r}: {row['reason']}"
            self.lines.append(Line(what, "", why))

    def _check_train(self, config: ExperimentConfig, policy: Policy, samples: Sequence[Sample], are_all: bool) -> None:
        section = config.generation
        there = {str(sample.task) for sample in samples}
        share = shares(samples, section.prompts, section.mix) if are_all else dict.fromkeys(section.mix or there, 1)
        check_learnable(config, policy, [sample for sample in samples if str(sample.task) in share])

    def _placement(self, config: ExperimentConfig) -> None:
        plan = self._tried("actors", lambda: planned(config))
        if plan is None:
            return
        for demand, where in zip(plan.demands, plan.places, strict=True):
            needs = f"actors: {demand.actors}, each {demand.num_cpus:g} CPUs and {demand.num_gpus:g} GPUs"
            places = ", ".join(f"{count} on {node}" for node, count in where.items()) or "no room"
            self.lines.append(Line(demand.what, f"{needs}; {places}"))
        self.lines.append(Line("room", f"{plan.cluster}, beside the learner in this process", plan.problem or ""))


def _missing_images(samples: Iterable[Sample]) -> str:
    """What is wrong with the image files of samples, as a clause; empty where nothing is."""
    images = {image.path: image for sample in samples for image in sample.every_image if image.path is not None}
    if absent := [path for path in images if not Path(path).is_file()]:
        return f"{len(absent)} of {len(images)} images do not exist, {absent[0]} among them; paths count from the folder of the samples file"
    for image in list(images.values())[:OPENED]:
        try:
            read_size(image)
        except RswError as error:
            return str(error)
    return ""


def _of_invalid_outputs(rubric: Rubric, samples: Sequence[Sample]) -> ScoreTable:
    with Scorer(rubric) as scorer:
        scorer.prepare(samples)
        return scorer.score(Batch.of(samples, [Output(sample.id, invalid="a dry run") for sample in samples]))


def _is_light(verifier: Verifier) -> bool:
    """Whether a verifier is one of the package's that loads no network and asks no server."""
    heavy = {"encoder", "detector", "network", "endpoint"}
    return type(verifier).__module__.startswith("rsw_rewards.") and not heavy & set(verifier.needs)
