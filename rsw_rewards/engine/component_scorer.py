"""ComponentScorer: one component of a rubric at work, which decides whom its verifier is asked about and makes a table of the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from rsw_rewards.core.records import Output
from rsw_rewards.core.rubric import Component, component_tasks
from rsw_rewards.core.scores import Score, ScoreTable
from rsw_rewards.core.verifier import Batch, Context
from rsw_rewards.engine.calls import Rows
from rsw_rewards.engine.runner import Here, Runner, actors_for
from rsw_rewards.errors import ConfigError


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

    def scores(self, batch: Batch) -> tuple[Rows, list[Score]]:
        """The rows of a batch that the component is asked about, in their order, and its score of each.

        This is all of scoring but the table.

        Args:
            batch: what to score; rows of tasks that the component does not score are left out.

        Raises:
            ConfigError: an output holds no tokens, and the component counts them.
        """
        rows = [row for row, sample in enumerate(batch.samples) if sample.task in self.tasks]
        if not rows:
            return [], []
        failure = self.set_up()
        if "output.tokens" in self.verifier.needs:
            self._check_tokens([batch.outputs[row] for row in rows])
        if failure is not None:
            return rows, [failure] * len(rows)
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
        return rows, scores

    def _check_tokens(self, outputs: Sequence[Output]) -> None:
        """Tokens are the caller's to give: without them, invalid and missing outputs would have a value and the others none."""
        for output in outputs:
            if output.tokens is None and output.invalid is None and output.lost is None:
                raise ConfigError(
                    f"{self.component.label!r} counts tokens, and the output for {output.sample_id!r} holds none, as those of "
                    "files, endpoints and other trainers; set its 'unit' to words or characters"
                )

    def table(self, batch: Batch, step: int | None, policy_version: int | None) -> ScoreTable:
        """The scores as rows of a table, in the order of the batch; ``step`` and ``policy_version`` stand in it."""
        start = time.perf_counter()
        rows, scores = self.scores(batch)
        if not rows:
            return ScoreTable()
        seconds = (time.perf_counter() - start) / len(rows)
        samples = [batch.samples[row] for row in rows]
        outputs = [batch.outputs[row] for row in rows]
        versions = [output.policy_version if policy_version is None else policy_version for output in outputs]
        columns: dict[str, Any] = {
            "sample": [sample.id for sample in samples],
            "scene": [sample.scene for sample in samples],
            "task": [str(sample.task) for sample in samples],
            "kind": [sample.kind for sample in samples],
            "candidate": [output.candidate for output in outputs],
            "group": [batch.groups[row] for row in rows],
            "verifier": self.component.label,
            "value": np.array([np.nan if score.value is None else score.value for score in scores]),
            "status": [score.status for score in scores],
            "reason": [score.reason for score in scores],
            "raw": [score.raw for score in scores],
            "stats": [score.stats for score in scores],
            "content": [score.content for score in scores],
            "seconds": seconds,
            "step": step,
            "policy_version": versions,
            "config_hash": self.hash,
        }
        return ScoreTable.from_columns(columns)

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
