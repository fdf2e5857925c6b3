"""Scoring on Ray actors: processes that share a component's work, and that can be killed when one of them hangs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from rsw_rewards.core.rubric import Component
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.engine.calls import Runner, halves, scored, weights_of
from rsw_rewards.engine.cluster import ensure_ray, require_gpus
from rsw_rewards.engine.workers import Done, Workers

DEATHS = 2
"""How often one batch may take its process with it before it is divided, or given up when it cannot be."""
PATIENCE = 32
"""How many actors in a row may be lost to a batch, without a single answer between, until the rest of it is given up.

More than the halvings that lead to a few outputs at fault; without it a verifier that hangs on everything would hold a run for
twice the number of outputs times its time limit, before anything could count the failures.
"""


class ScoringProcess:
    """A verifier in an actor; a :class:`rsw_rewards.engine.workers.Worker`."""

    def setup(self, verifier: Verifier, context: Context) -> Mapping[str, str]:
        """Make the verifier ready. Gives the networks it works with: id -> SHA-256 of their weights."""
        verifier.setup(context)
        verifier.warm()  # here, where no time limit counts yet
        self._verifier, self._bank = verifier, context.bank
        return weights_of(verifier, context.bank)

    def work(self, batch: Batch) -> list[Score]:
        """Scores of a batch."""
        result = scored(self._verifier, batch)
        self._bank.settle()  # the batch's images are done with, and the process lives as long as the run
        return result

    def update(self) -> None:
        """Nothing that scores depend on changes: a verifier with state is not run in an actor."""


@dataclass(slots=True)
class _Job:
    """A part of a batch on its way through the actors."""

    batch: Batch
    rows: list[int]
    deaths: int = 0


class _Scoring:
    """One batch on its way through the actors: what is still to be done, and the scores so far."""

    def __init__(self, batch: Batch, jobs: list[_Job], verifier: Verifier, limit_s: float | None) -> None:
        self.queue = deque(jobs)
        self._verifier, self._limit = verifier, limit_s
        self._scores: list[Score | None] = [None] * len(batch)
        self._lost_in_a_row = 0
        self.pace = 0.0
        """Seconds per output in the latest call that gave scores."""

    @property
    def scores(self) -> list[Score]:
        """The scores, in the order of the batch; all of them once nothing is to be done."""
        return [score for score in self._scores if score is not None]

    def take(self, done: Done[_Job]) -> None:
        """Take in what came of a job."""
        job = done.work
        match done.end:
            case "answered":
                self._lost_in_a_row = 0
                self.pace = done.seconds / len(job.rows)
                self._settle(job, done.values[0])
            case "raised":  # what the verifier gave cannot be sent back
                reason = str(done.error).strip().partition("\n")[0]
                self._fail(job, Score.error(f"{type(done.error).__name__}: {reason}"))
            case "late":
                self._lost_in_a_row += 1
                self._fail(job, Score.timeout(f"no answer within {self._limit} s"))
            case "died":
                self._lost_in_a_row += 1
                job.deaths += 1
                if job.deaths < DEATHS:
                    self.queue.appendleft(job)
                else:
                    self._fail(job, Score.error(f"its process died {job.deaths} times ({type(done.error).__name__})"))
        if self._lost_in_a_row >= PATIENCE:
            self._give_up()

    def _settle(self, job: _Job, result: list[Score]) -> None:
        for row, score in zip(job.rows, result, strict=True):
            self._scores[row] = score

    def _fail(self, job: _Job, failure: Score) -> None:
        """Divide a job whose call failed; where that cannot be done, its outputs take the failure."""
        divided = halves(job.batch, self._verifier)
        # In front: halving goes on until the output at fault is found, before the next part is risked.
        self.queue.extendleft(_Job(job.batch.take(half), [job.rows[row] for row in half]) for half in reversed(divided))
        if not divided:
            self._settle(job, [failure] * len(job.rows))

    def _give_up(self) -> None:
        reason = f"not tried: {self._lost_in_a_row} calls before it hung or died, one after another"
        score = Score.error(reason) if self._limit is None else Score.timeout(reason)
        for job in self.queue:
            self._settle(job, [score] * len(job.rows))
        self.queue.clear()


class ScoringActors(Runner):
    """A component's verifier in Ray actors, with one batch in flight per actor.

    The batch of an actor that overruns ``timeout_s`` or dies is halved and done again, until only the output at fault is left and
    takes the status ``timeout`` or ``error``.

    Raises:
        ConfigError: the verifier cannot be sent to an actor, or the cluster lacks the GPUs. A call raises it where the verifier
            cannot be set up there, and :class:`RunStopped` where no actor can be started.
    """

    apart = True

    def __init__(
        self,
        component: Component,
        verifier: Verifier,
        context: Context,
        count: int,
        num_gpus: float = 0.0,
        num_cpus: float = 0.1,
    ) -> None:
        ensure_ray()
        require_gpus(num_gpus)
        self._verifier, self._limit, self._count = verifier, component.timeout_s, count
        self._pace = 0.0
        """Seconds per output lately: a verifier that is slow, not hung, is given smaller batches."""
        self._workers: Workers[_Job] = Workers(
            ScoringProcess,
            (verifier, context),
            count,
            called=repr(component.label),
            limit_s=component.timeout_s,
            num_gpus=num_gpus,
            num_cpus=num_cpus,
        )

    @property
    def weights(self) -> Mapping[str, str]:
        return {name: digest for report in self._workers.reports for name, digest in report.items()}

    def __call__(self, batch: Batch) -> list[Score]:
        scoring = _Scoring(batch, self._split(batch), self._verifier, self._limit)
        try:
            while scoring.queue or self._workers.busy:
                while scoring.queue and self._workers.idle:
                    job = scoring.queue.popleft()
                    self._workers.give(job, job.batch)
                for done in self._workers.wait():
                    scoring.take(done)
        finally:
            self._workers.abandon()
        self._pace = scoring.pace or self._pace
        return scoring.scores

    def warm(self) -> None:
        """Wait until all actors are ready to work."""
        self._workers.warm()

    def close(self) -> None:
        """Stop the actors."""
        self._workers.close()

    def _split(self, batch: Batch) -> list[_Job]:
        """Whole groups in equal shares, one share per actor; more of them where one would use up half of the time limit."""
        wanted = self._count
        if self._limit is not None:
            wanted = max(wanted, math.ceil(len(batch) * self._pace / (self._limit / 2)))
        if self._verifier.scope == "population" or wanted == 1:
            return [_Job(batch, list(range(len(batch))))]
        groups: dict[str, list[int]] = {}
        for row, group in enumerate(batch.groups):
            groups.setdefault(group, []).append(row)
        shares: list[list[int]] = [[] for _ in range(min(wanted, len(groups)))]
        for number, rows in enumerate(groups.values()):
            shares[number * len(shares) // len(groups)].extend(rows)
        return [_Job(batch.take(rows), rows) for rows in shares]
