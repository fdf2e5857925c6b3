"""Scorer: runs a rubric over a batch, in this process or on Ray actors, and gives one score table either way.

A :class:`ComponentScorer` does so for one component: it decides whom its verifier is asked about.

A verifier can raise, give nonsense, hang or take its process with it. Each of these becomes a status of the outputs that caused
it and of no others.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from rsw_rewards.core.plugins import user_code
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Component, Rubric, check_rubric, component_tasks
from rsw_rewards.core.scores import Score, ScoreTable
from rsw_rewards.core.verifier import SCOPES, Batch, Context, Scope, Verifier
from rsw_rewards.engine.calls import Here, Runner, actors_for
from rsw_rewards.errors import ConfigError
from rsw_rewards.features.bank import FeatureBank

CHUNK = 512
"""Outputs that are scored, and written, at once: what a kill can cost, and what memory holds."""
LARGEST_CHUNK, QUICK = 32 * CHUNK, 0.5
"""Chunks that take less than QUICK seconds grow to this size, since each has a price of its own."""


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
        """Show all samples of a run to the verifiers that fit something on references; before the first batch.

        Raises:
            ConfigError: a verifier raised something else than an :class:`RswError`.
        """
        for one in self.components:
            with user_code(f"'prepare' of the verifier {one.component.label!r} raised"):
                one.verifier.prepare([sample for sample in samples if sample.task in one.tasks])

    def score(
        self,
        batch: Batch,
        *,
        step: int | None = None,
        scopes: Collection[Scope] = SCOPES,
        only: Collection[str] | None = None,
    ) -> ScoreTable:
        """Score every output by every component that knows its task. Components on actors work at the same time.

        Args:
            batch: what to score.
            step: stands in the table.
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
            waited_for = {one: pool.submit(one.scores, batch) for one in apart}
            found = {one: one.scores(batch) for one in asked if one not in waited_for}
            found |= {one: future.result() for one, future in waited_for.items()}
        table = ScoreTable.concat([found[one].table(one, batch, step) for one in asked])
        self.seconds += time.perf_counter() - start
        return table

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


def needs_whole(scorer: Scorer) -> bool:
    """Whether a verifier that gives values must see all outputs at once; set-level numbers that only measure need not."""
    return any(verifier.scope == "population" and verifier.rewarding for verifier in scorer.verifiers)


def batches(
    scorer: Scorer, samples: Sequence[Sample], outputs: Sequence[Output], size: int = CHUNK, grow: bool = False
) -> Iterator[Batch]:
    """Outputs beside their samples in parts of about ``size``; one part where the scorer must see all at once.

    Args:
        scorer: what will score them.
        samples: those that the outputs answer, and others.
        outputs: those of a sample stand together, and stay together.
        size: of the first part.
        grow: double the size after every part that was dealt with in less than :data:`QUICK` seconds.
    """
    by_id = {sample.id: sample for sample in samples}
    whole = needs_whole(scorer)
    begin = 0
    while begin < len(outputs):
        end = len(outputs) if whole else min(begin + size, len(outputs))
        while end < len(outputs) and outputs[end].sample_id == outputs[end - 1].sample_id:
            end += 1
        part = outputs[begin:end]
        start = time.perf_counter()
        yield Batch([by_id[output.sample_id] for output in part], part, [output.sample_id for output in part])
        if grow and time.perf_counter() - start < QUICK:
            size = min(2 * size, LARGEST_CHUNK)
        begin = end


class Scored(NamedTuple):
    """What a component gave for a batch; its table is made beside those of others, in the order of the rubric."""

    rows: list[int]
    """Those of the batch that it is asked about, in their order."""
    scores: list[Score]
    """One for each of them."""
    seconds: float
    """How long it took."""

    def table(self, by: ComponentScorer, batch: Batch, step: int | None) -> ScoreTable:
        """The scores as rows of a table, in the order of the batch; ``step`` stands in it."""
        if not self.rows:
            return ScoreTable()
        samples = [batch.samples[row] for row in self.rows]
        outputs = [batch.outputs[row] for row in self.rows]
        columns: dict[str, Any] = {
            "sample": [sample.id for sample in samples],
            "scene": [sample.scene for sample in samples],
            "task": [str(sample.task) for sample in samples],
            "kind": [sample.kind for sample in samples],
            "candidate": [output.candidate for output in outputs],
            "group": [batch.groups[row] for row in self.rows],
            "verifier": by.component.label,
            "value": np.array([np.nan if score.value is None else score.value for score in self.scores]),
            "status": [score.status for score in self.scores],
            "reason": [score.reason for score in self.scores],
            "raw": [score.raw for score in self.scores],
            "stats": [score.stats for score in self.scores],
            "content": [score.content for score in self.scores],
            "seconds": self.seconds / len(self.rows),
            "step": step,
            "policy_version": [output.policy_version for output in outputs],
            "config_hash": by.hash,
        }
        return ScoreTable.from_columns(columns)


class ComponentScorer:
    """Scores what one component is asked about. Calls may not overlap.

    Args:
        component: what to run.
        context: what its verifier is set up with.
        workers: Ray actors that may share the work; 0 scores in this process where no time limit asks for an actor.
        shares: what an actor asks of Ray's scheduler, ``num_gpus`` and ``num_cpus``.
        strict: whether a verifier that cannot be set up stops everything; otherwise its scores are errors with the reason.

    Raises:
        ConfigError: the component's verifier cannot be built, or does not know the component's tasks.
    """

    def __init__(
        self, component: Component, context: Context, workers: int, shares: dict[str, float], strict: bool
    ) -> None:
        self.component = component
        self.verifier = component.build()
        self.tasks = component_tasks(component, self.verifier)
        """What it is asked about."""
        self.runner: Runner | None = None
        """Made, and the verifier set up, at first use."""
        self._failure: Score | None = None
        self.hash = self.verifier.hash
        """:attr:`Verifier.hash` as it was before the first batch; it stands in the table."""
        self._context, self._workers, self._shares, self._strict = context, workers, shares, strict

    def set_up(self) -> Score | None:
        """Make the verifier ready; where it cannot be, the error that all rows take, those of invalid outputs too.

        A number over invalid rows alone would otherwise be reported of a verifier that never scored anything.
        """
        if self.runner is None and self._failure is None:
            try:
                count = actors_for(self.component, self.verifier, self._workers)
                if count:
                    from rsw_rewards.engine.scoring_actors import ScoringActors

                    self.runner = ScoringActors(self.component, self.verifier, self._context, count, **self._shares)
                else:
                    self.runner = Here(self.component, self.verifier, self._context)
            except ConfigError as error:
                self._fail(error)
        return self._failure

    def _fail(self, error: ConfigError) -> Score:
        if self._strict:
            raise error
        if self.runner is not None:
            self.runner.close()
        self._failure = Score.error(str(error))
        return self._failure

    def warm(self) -> None:
        """Set it up, and do what its first batch would otherwise wait for. Raises :class:`ConfigError`."""
        self.set_up()
        if self.runner is not None:
            self.runner.warm()

    def scores(self, batch: Batch) -> Scored:
        """The component's score of every row that it is asked about.

        Args:
            batch: what to score; rows of tasks that the component does not score are left out.

        Raises:
            ConfigError: an output holds no tokens, and the component counts them.
        """
        start = time.perf_counter()
        rows = [row for row, sample in enumerate(batch.samples) if sample.task in self.tasks]
        if not rows:
            return Scored([], [], 0.0)
        failure = self.set_up()  # Reward asks a component without going through Scorer.score, which has set it up
        # A mistake of the caller is said first: it is one whether the verifier could be set up or not.
        if "output.tokens" in self.verifier.needs:
            self._check_tokens([batch.outputs[row] for row in rows])
        if failure is not None:
            return Scored(rows, [failure] * len(rows), 0.0)
        assert self.runner is not None
        scorable = [row for row in rows if batch.outputs[row].lost is None]
        found: Iterator[Score] = iter(())
        if scorable:
            try:
                found = iter(self.runner(batch if len(scorable) == len(batch) else batch.take(scorable)))
            except ConfigError as error:  # it cannot be set up in an actor; what it scores is guarded
                found = repeat(self._fail(error))
        scores: list[Score] = []
        for row in rows:
            lost = batch.outputs[row].lost
            scores.append(next(found) if lost is None else Score.error(f"the rollout was lost: {lost}"))
        return Scored(rows, scores, time.perf_counter() - start)

    def _check_tokens(self, outputs: Sequence[Output]) -> None:
        """Tokens are the caller's to give: without them, invalid and missing outputs would have a value and the others none."""
        for output in outputs:
            if output.tokens is None and output.invalid is None and output.lost is None:
                raise ConfigError(
                    f"{self.component.label!r} counts tokens, and the output for {output.sample_id!r} holds none, as those of "
                    "files, endpoints and other trainers; set its 'unit' to words or characters"
                )

    def observe(self, batch: Batch) -> None:
        """Let the verifier see the outputs of its tasks that can be scored."""
        fine = [
            row
            for row, (sample, output) in enumerate(zip(batch.samples, batch.outputs, strict=True))
            if sample.task in self.tasks and output.invalid is None and output.lost is None
        ]
        self.verifier.observe(batch.take(fine))

    def close(self) -> None:
        """Stop actors and release what the verifier holds."""
        if self.runner is not None:
            self.runner.close()
        self.runner = None
