"""Scorer: runs a rubric over a batch, in this process or on Ray actors, and gives one score table either way.

A verifier can raise, give nonsense, hang or take its process with it. Each of these becomes a status of the outputs that caused
it and of no others.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from rsw_rewards.core.records import Sample
from rsw_rewards.core.rubric import Rubric, check_rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import SCOPES, Batch, Context, Scope, Verifier
from rsw_rewards.engine.component_scorer import ComponentScorer
from rsw_rewards.features.bank import FeatureBank


class Scorer(AbstractContextManager["Scorer"]):
    """Scores batches by a rubric.

    Args:
        rubric: the components to run. Weights do not matter here.
        device: where verifiers and their encoders run.
        bank: decoded images and features; one of its own where left out. Keep it to look features up for metrics.
        workers: Ray actors that share the work; 0 scores in this process. Components with ``timeout_s`` run in an actor always,
            since only a process can be stopped.
        num_gpus: share of a GPU per actor.
        num_cpus: what an actor asks of Ray's scheduler.
        seed: for verifiers that draw numbers.
        strict: whether a verifier that cannot be set up (weights that are not there) stops everything, as a training must; an
            evaluation goes on, and its scores are errors with the reason.
    """

    def __init__(
        self,
        rubric: Rubric,
        *,
        device: str = "cpu",
        bank: FeatureBank | None = None,
        workers: int = 0,
        num_gpus: float = 0.0,
        num_cpus: float = 0.1,
        seed: int = 0,
        strict: bool = True,
    ) -> None:
        self.rubric = rubric
        self.bank = bank if bank is not None else FeatureBank(device)
        context, shares = Context(self.bank, device, seed=seed), {"num_gpus": num_gpus, "num_cpus": num_cpus}
        self.components = [
            ComponentScorer(component, context, workers, shares, strict) for component in rubric.components
        ]
        """What scores each component, in the order of the rubric."""
        self.verifiers = [scorer.verifier for scorer in self.components]
        self.by_name: dict[str, Verifier] = {scorer.component.label: scorer.verifier for scorer in self.components}
        """The verifiers by the names of their components."""
        self.seconds = 0.0
        """Time spent in :meth:`score` so far."""

    def __exit__(self, *unused: object) -> None:
        self.close()

    def weights(self) -> dict[str, str]:
        """Networks that were used so far, here or on actors: id -> SHA-256 of their weights."""
        found = self.bank.weights()
        for component in self.components:
            if component.runner is not None:
                found |= component.runner.weights
        return found

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise :class:`ConfigError` where the rubric cannot score the samples; see :func:`check_rubric`."""
        check_rubric(self.rubric, self.verifiers, samples)

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Show all samples of a run to the verifiers that fit something on references; before the first batch."""
        for component in self.components:
            if type(component.verifier).prepare is not Verifier.prepare:
                component.verifier.prepare([sample for sample in samples if sample.task in component.tasks])

    def score(
        self,
        batch: Batch,
        *,
        step: int | None = None,
        policy_version: int | None = None,
        scopes: Collection[Scope] = SCOPES,
        only: Collection[str] | None = None,
    ) -> ScoreTable:
        """Score every output by every component that knows its task. Components on actors work at the same time.

        Args:
            batch: what to score.
            step, policy_version: stand in the table.
            scopes: components of other scopes are left out: those that need the whole step wait for it while others go on.
            only: the components that are asked; all where left out.

        Returns:
            One row per output and component, components in the order of the rubric, outputs in the order of the batch.
        """
        start = time.perf_counter()
        tasks = {sample.task for sample in batch.samples}
        asked = [one for one in self.components if one.verifier.scope in scopes and tasks & one.tasks]
        asked = [one for one in asked if only is None or one.component.label in only]
        for component in asked:  # one after another, since they share what they are made from
            component.set_up()
        apart = [one for one in asked if one.runner is not None and one.runner.apart]
        with ThreadPoolExecutor(max(1, len(apart)), thread_name_prefix="component") as pool:
            waited_for = {id(one): pool.submit(one.table, batch, step, policy_version) for one in apart}
            tables = {id(one): one.table(batch, step, policy_version) for one in asked if id(one) not in waited_for}
            tables |= {key: future.result() for key, future in waited_for.items()}
        self.seconds += time.perf_counter() - start
        return ScoreTable.concat([tables[id(one)] for one in asked])

    def observe(self, batch: Batch) -> None:
        """Let verifiers with state see the batch; once per training step, after scoring."""
        for component in self.components:
            component.observe(batch)

    def state_dict(self) -> dict[str, Any]:
        """State of the verifiers that have one, by component."""
        states = {label: verifier.state_dict() for label, verifier in self.by_name.items()}
        return {label: state for label, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for label, verifier in self.by_name.items():
            if label in state:
                verifier.load_state_dict(state[label])

    def close(self) -> None:
        """Stop actors and release what verifiers hold."""
        for component in self.components:
            component.close()
