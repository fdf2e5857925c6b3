"""Scorer: runs a rubric over a batch, in this process or on Ray actors, and gives one score table either way.

A verifier can raise, give nonsense, hang or take its process with it. Each of these becomes a status of the outputs that caused
it and of no others.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Component, Rubric, check_rubric, component_tasks
from rsw_rewards.core.scores import Score, ScoreTable
from rsw_rewards.core.verifier import SCOPES, Batch, Context, Scope, Verifier
from rsw_rewards.engine.calls import Rows, bisect, scored, weights_of
from rsw_rewards.errors import ConfigError, RswError
from rsw_rewards.features.bank import FeatureBank

if TYPE_CHECKING:
    from rsw_rewards.engine.scoring_actors import ScoringActors


def actors_for(component: Component, verifier: Verifier, workers: int) -> int:
    """How many Ray actors score a component where ``workers`` may share the work; 0 scores it in the caller's process.

    Raises:
        ConfigError: a verifier that keeps state has a time limit.
    """
    # State lives in the caller's process, so a verifier with state is scored where it observes, also before it has any.
    stateful = type(verifier).observe is not Verifier.observe or bool(verifier.state_dict())
    if stateful and component.timeout_s is not None:
        raise ConfigError(
            f"{component.label!r} keeps state from step to step, so it cannot run in a process that may be killed; "
            f"leave its 'timeout_s' out"
        )
    if component.timeout_s is None and (workers == 0 or stateful):
        return 0
    return max(1, workers) if verifier.scope != "population" else 1


@contextmanager
def _setting_up(component: Component) -> Iterator[None]:
    try:
        yield
    except RswError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{component.label!r} cannot be set up: {type(error).__name__}: {error}") from error


class ScoringHere:
    """A component's verifier in this process, with the face of :class:`ScoringActors`.

    Raises:
        ConfigError: the verifier cannot be set up.
    """

    apart: ClassVar[bool] = False

    def __init__(self, component: Component, verifier: Verifier, context: Context) -> None:
        self._component, self._verifier, self._context = component, verifier, context
        with _setting_up(component):
            verifier.setup(context)

    def __call__(self, batch: Batch) -> list[Score]:
        """Scores of the batch, in its order."""
        return bisect(lambda part: scored(self._verifier, part), batch, self._verifier)

    def warm(self) -> None:
        """See :meth:`Scorer.warm`."""
        with _setting_up(self._component):
            self._verifier.warm()

    @property
    def weights(self) -> dict[str, str]:
        """Networks that the verifier works with: id -> SHA-256 of their weights."""
        return weights_of(self._verifier, self._context.bank)

    def close(self) -> None:
        """Release what the verifier holds."""
        self._verifier.close()


class Scorer:
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
        self.strict = strict
        self.bank = bank if bank is not None else FeatureBank(device)
        self.verifiers = [component.build() for component in rubric.components]
        self.tasks: Sequence[frozenset[Task]] = [
            component_tasks(*pair) for pair in zip(rubric.components, self.verifiers, strict=True)
        ]
        """What each component is asked about, in the order of the rubric."""
        self._hashes = [verifier.hash for verifier in self.verifiers]
        self._context = Context(self.bank, device, seed=seed)
        self._workers, self._shares = workers, {"num_gpus": num_gpus, "num_cpus": num_cpus}
        self._runners: dict[int, ScoringHere | ScoringActors] = {}
        self._failures: dict[int, Score] = {}
        self.seconds = 0.0
        """Time spent in :meth:`score` so far."""

    def weights(self) -> dict[str, str]:
        """Networks that were used so far, here or on actors: id -> SHA-256 of their weights."""
        found = self.bank.weights()
        for runner in self._runners.values():
            found |= runner.weights
        return found

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise :class:`ConfigError` where the rubric cannot score the samples; see :func:`check_rubric`."""
        check_rubric(self.rubric, self.verifiers, samples)

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Show all samples of a run to the verifiers that fit something on references; before the first batch."""
        for verifier, tasks in zip(self.verifiers, self.tasks, strict=True):
            if type(verifier).prepare is not Verifier.prepare:
                verifier.prepare([sample for sample in samples if sample.task in tasks])

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def warm(self, number: int) -> None:
        """Set a component up and do what its first batch would otherwise wait for, on actors too.

        Args:
            number: place of the component in the rubric.

        Raises:
            ConfigError: it cannot be set up.
        """
        if self._set_up(number) is None:
            self._runner(number).warm()

    def score(
        self,
        batch: Batch,
        *,
        step: int | None = None,
        policy_version: int | None = None,
        scopes: Collection[Scope] = SCOPES,
    ) -> ScoreTable:
        """Score every output by every component that knows its task. Components on actors work at the same time.

        Args:
            batch: what to score.
            step, policy_version: stand in the table.
            scopes: components of other scopes are left out: those that need the whole step wait for it while others go on.

        Returns:
            One row per output and component, components in the order of the rubric, outputs in the order of the batch.
        """
        start = time.perf_counter()
        asked = {sample.task for sample in batch.samples}
        numbers = [
            number
            for number, verifier in enumerate(self.verifiers)
            if verifier.scope in scopes and asked & self.tasks[number]
        ]

        def run(number: int) -> ScoreTable:
            return self._component(number, batch, step, policy_version)

        for number in numbers:  # one after another, since they share what they are made from
            self._set_up(number)
        apart = [number for number in numbers if number in self._runners and self._runners[number].apart]
        with ThreadPoolExecutor(max(1, len(apart)), thread_name_prefix="component") as pool:
            waited_for = {number: pool.submit(run, number) for number in apart}
            tables = {number: run(number) for number in numbers if number not in waited_for}
            tables |= {number: future.result() for number, future in waited_for.items()}
        self.seconds += time.perf_counter() - start
        return ScoreTable.concat([tables[number] for number in numbers])

    def _component(self, number: int, batch: Batch, step: int | None, policy_version: int | None) -> ScoreTable:
        start = time.perf_counter()
        rows, scores = self.scores(number, batch)
        if not rows:
            return ScoreTable()
        seconds = (time.perf_counter() - start) / len(rows)
        return self._table(number, batch, rows, scores, seconds, step, policy_version)

    def scores(self, number: int, batch: Batch) -> tuple[Rows, list[Score]]:
        """The rows of a batch that a component is asked about, in their order, and its score of each.

        This is all of scoring but the table. Calls for one component may not overlap.

        Args:
            number: place of the component in the rubric.
            batch: what to score; rows of tasks that the component does not score are left out.

        Raises:
            ConfigError: an output holds no tokens, and the component counts them.
        """
        rows = [row for row, sample in enumerate(batch.samples) if sample.task in self.tasks[number]]
        if not rows:
            return [], []
        failure = self._set_up(number)
        if "output.tokens" in self.verifiers[number].needs:
            self._check_tokens(number, [batch.outputs[row] for row in rows])
        scores: dict[int, Score] = {}
        scorable: Rows = []
        for row in rows:
            output = batch.outputs[row]
            if failure is not None:
                scores[row] = failure
            elif output.lost is not None:
                scores[row] = Score.error(f"the rollout was lost: {output.lost}")
            else:
                scorable.append(row)
        if scorable:
            part = batch if len(scorable) == len(batch) else batch.take(scorable)
            scores.update(zip(scorable, self._run(number, part), strict=True))
        return rows, [scores[row] for row in rows]

    def _check_tokens(self, number: int, outputs: Sequence[Output]) -> None:
        """Tokens are the caller's to give: without them, invalid and missing outputs would have a value and the others none."""
        for output in outputs:
            if output.tokens is None and output.invalid is None and output.lost is None:
                raise ConfigError(
                    f"{self.rubric.components[number].label!r} counts tokens, and the output for {output.sample_id!r} holds none, as those of "
                    "files, endpoints and other trainers; set its 'unit' to words or characters"
                )

    def _table(
        self,
        number: int,
        batch: Batch,
        rows: Rows,
        scores: Sequence[Score],
        seconds: float,
        step: int | None,
        version: int | None,
    ) -> ScoreTable:
        samples = [batch.samples[row] for row in rows]
        outputs = [batch.outputs[row] for row in rows]
        return ScoreTable.from_columns(
            {
                "sample": [sample.id for sample in samples],
                "scene": [sample.scene for sample in samples],
                "task": [str(sample.task) for sample in samples],
                "kind": [sample.kind for sample in samples],
                "candidate": [output.candidate for output in outputs],
                "group": [batch.groups[row] for row in rows],
                "verifier": self.rubric.components[number].label,
                "value": np.array([np.nan if score.value is None else score.value for score in scores]),
                "status": [score.status for score in scores],
                "reason": [score.reason for score in scores],
                "raw": [score.raw for score in scores],
                "stats": [score.stats for score in scores],
                "content": [score.content for score in scores],
                "seconds": seconds,
                "step": step,
                "policy_version": [output.policy_version if version is None else version for output in outputs],
                "config_hash": self._hashes[number],
            }
        )

    def _set_up(self, number: int) -> Score | None:
        """Make a component ready; where it cannot be, the error that all its rows take, those of invalid outputs too.

        A number over invalid rows alone would otherwise be reported of a verifier that never scored anything.
        """
        if number in self._failures:
            return self._failures[number]
        if number not in self._runners:
            try:
                self._runner(number)
            except ConfigError as error:
                return self._failed(number, error)
        return None

    def _failed(self, number: int, error: ConfigError) -> Score:
        if self.strict:
            raise error
        if (failed := self._runners.get(number)) is not None:
            failed.close()
        self._failures[number] = Score.error(str(error))
        return self._failures[number]

    def _run(self, number: int, batch: Batch) -> list[Score]:
        try:
            return self._runner(number)(batch)
        except (
            ConfigError
        ) as error:  # it cannot be set up in an actor, or at its first batch; what it scores is guarded
            return [self._failed(number, error)] * len(batch)

    def _runner(self, number: int) -> ScoringHere | ScoringActors:
        """How a component is run; made, and its verifier set up, at first use."""
        if number not in self._runners:
            component, verifier = self.rubric.components[number], self.verifiers[number]
            count = actors_for(component, verifier, self._workers)
            if count:
                from rsw_rewards.engine.scoring_actors import ScoringActors

                self._runners[number] = ScoringActors(component, verifier, self._context, count, **self._shares)
            else:
                self._runners[number] = ScoringHere(component, verifier, self._context)
        return self._runners[number]

    def observe(self, batch: Batch) -> None:
        """Let verifiers with state see the batch; once per training step, after scoring."""
        for number, verifier in enumerate(self.verifiers):
            verifier.observe(self._own(number, batch))

    def _own(self, number: int, batch: Batch) -> Batch:
        fine = [
            row
            for row, (sample, output) in enumerate(zip(batch.samples, batch.outputs, strict=True))
            if sample.task in self.tasks[number] and output.invalid is None and output.lost is None
        ]
        return batch.take(fine)

    def state_dict(self) -> dict[str, Any]:
        """State of the verifiers that have one, by component."""
        states = {label: verifier.state_dict() for label, verifier in self.by_name.items()}
        return {label: state for label, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for label, verifier in self.by_name.items():
            if label in state:
                verifier.load_state_dict(state[label])

    @property
    def by_name(self) -> dict[str, Verifier]:
        """The verifiers by the names of their components."""
        return {
            component.label: verifier
            for component, verifier in zip(self.rubric.components, self.verifiers, strict=True)
        }

    def close(self) -> None:
        """Stop actors and release what verifiers hold."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()


def score_in_process(rubric: Rubric, batch: Batch, directory: Path | None = None) -> ScoreTable:
    """Score one batch in this process and be done; ``directory`` keeps encoder features across calls."""
    with Scorer(rubric, bank=FeatureBank(directory=directory)) as scorer:
        return scorer.score(batch)
