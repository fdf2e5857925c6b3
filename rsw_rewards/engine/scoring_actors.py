"""Scoring on Ray actors: processes that share a component's work, and that can be killed when one of them hangs."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any, ClassVar

from rsw_rewards.core.rubric import Component
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.engine.calls import Failure, parts, scored, weights_of
from rsw_rewards.engine.cluster import ensure_ray, require_gpus
from rsw_rewards.errors import ConfigError, RswError, RunStopped

DEATHS = 2
"""How often one batch may take its process with it before it is divided, or given up when it cannot be."""
START_TIMEOUT_S = 300.0
"""How long an actor may take to start and load its weights, which a component's own time limit does not count."""
STARTS = 3
"""How many actors in a row may die before they are ready to work, until the run stops."""
PATIENCE = 32
"""How many actors in a row may be lost to a batch, without a single answer between, until the rest of it is given up.

More than the halvings that lead to a few outputs at fault; without it a verifier that hangs on everything would hold a run for
twice the number of outputs times its time limit, before anything could count the failures.
"""


class _Scorer:
    """What runs in an actor."""

    def __init__(self) -> None:
        self.verifier: Verifier | None = None
        self.context: Context | None = None

    def setup(self, verifier: Verifier, context: Context) -> dict[str, str]:
        verifier.setup(context)
        verifier.warm()  # here, where no time limit counts yet
        self.verifier, self.context = verifier, context
        return weights_of(verifier, context.bank)

    def score(self, batch: Batch) -> list[Score] | Failure:
        assert self.verifier is not None and self.context is not None
        result = scored(self.verifier, batch)
        self.context.bank.settle()  # the batch's pictures are done with, and the process lives as long as the run
        return result


class _Job:
    """A part of a batch on its way through the actors."""

    def __init__(self, batch: Batch, rows: list[int]) -> None:
        self.batch = batch
        self.rows = rows
        self.deaths = 0


class ScoringActors:
    """A component's verifier in Ray actors, with one batch in flight per actor.

    An actor is set up before it is given work, so the clock of ``timeout_s`` runs only while a verifier scores. An actor that
    overruns is killed and replaced; one that dies is replaced. Either way its batch is halved and done again, until only the
    output at fault is left and takes the status ``timeout`` or ``error``.

    Raises:
        ConfigError: the verifier cannot be sent to an actor, or the cluster lacks the GPUs. A call raises it where the verifier
            cannot be set up there, and :class:`RunStopped` where no actor can be started.
    """

    apart: ClassVar[bool] = True

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
        import ray

        require_gpus(num_gpus)
        self._component, self._verifier = component, verifier
        remote: Any = ray.remote(max_restarts=0, max_task_retries=0, num_gpus=num_gpus, num_cpus=num_cpus)
        self._actor = remote(_Scorer)
        try:
            self._payload = (ray.put(verifier), ray.put(context))
        except TypeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"the verifier {component.label!r} cannot be sent to another process: {reason}; make in setup() what cannot be pickled"
            ) from error
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._dead_starts = 0
        self._lost_in_a_row = 0
        self._pace = 0.0
        """Seconds per output in the latest call that gave scores: a verifier that is slow, not hung, is given smaller batches."""
        self.weights: dict[str, str] = {}
        """Networks that the actors loaded: id -> SHA-256 of their weights."""
        self._count = count
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote()
        self._starting[actor.setup.remote(*self._payload)] = (actor, time.monotonic())

    def __call__(self, batch: Batch) -> list[Score]:
        """Scores of the batch, in its order."""
        scores: list[Score | None] = [None] * len(batch)
        queue = deque(self._split(batch))
        running: dict[Any, tuple[Any, _Job, float]] = {}
        self._lost_in_a_row = 0
        try:
            while queue or running:
                self._give_work(queue, running)
                self._collect(queue, running, scores)
                self._check_starts()
                self._kill_overdue(queue, running, scores)
                if self._lost_in_a_row >= PATIENCE:
                    self._give_up(queue, scores)
        except BaseException:  # nobody waits for these any more
            for actor, _, _ in running.values():
                self._replace(actor)
            raise
        return [score for score in scores if score is not None]

    def warm(self) -> None:
        """Wait until all actors are ready to work."""
        while self._starting:
            self._collect(deque(), {}, [])
            self._check_starts()

    @staticmethod
    def _settle(job: _Job, result: list[Score], scores: list[Score | None]) -> None:
        for row, score in zip(job.rows, result, strict=True):
            scores[row] = score

    def _fail(self, job: _Job, failure: Failure, queue: deque[_Job], scores: list[Score | None]) -> None:
        """Divide a job whose call failed; where that cannot be done, its outputs take the failure."""
        halves = parts(job.batch, self._verifier)
        # In front: halving goes on until the output at fault is found, before the next part is risked.
        queue.extendleft(_Job(job.batch.take(half), [job.rows[row] for row in half]) for half in reversed(halves))
        if not halves:
            self._settle(job, [Score(None, failure.status, reason=failure.reason)] * len(job.rows), scores)

    def _give_work(self, queue: deque[_Job], running: dict[Any, tuple[Any, _Job, float]]) -> None:
        while queue and self._idle:
            actor, job = self._idle.pop(), queue.popleft()
            ref = actor.score.remote(job.batch)
            running[ref] = (actor, job, time.monotonic())

    def _collect(
        self, queue: deque[_Job], running: dict[Any, tuple[Any, _Job, float]], scores: list[Score | None]
    ) -> None:
        import ray

        ready, _ = ray.wait([*running, *self._starting], num_returns=1, timeout=self._patience(running))
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
                continue
            actor, job, since = running.pop(ref)
            try:
                result = ray.get(ref)
            except ray.exceptions.RayTaskError as error:  # what it gave cannot be sent back
                result = Failure(f"{type(error.cause).__name__}: {str(error.cause).strip().splitlines()[0]}")
            except ray.exceptions.RayError as error:
                self._start()
                self._lost_in_a_row += 1
                job.deaths += 1
                if job.deaths < DEATHS:
                    queue.appendleft(job)
                else:
                    reason = f"its process died {job.deaths} times ({type(error).__name__})"
                    self._fail(job, Failure(reason), queue, scores)
                continue
            self._idle.append(actor)
            if isinstance(result, Failure):
                self._fail(job, result, queue, scores)
            else:
                self._lost_in_a_row = 0
                self._settle(job, result, scores)
                self._pace = (time.monotonic() - since) / len(job.rows)

    def _kill_overdue(
        self, queue: deque[_Job], running: dict[Any, tuple[Any, _Job, float]], scores: list[Score | None]
    ) -> None:
        for ref in self._overdue(running):
            actor, job, _ = running.pop(ref)
            self._replace(actor)
            self._lost_in_a_row += 1
            failure = Failure(f"no answer within {self._component.timeout_s} s", Status.TIMEOUT)
            self._fail(job, failure, queue, scores)

    def _give_up(self, queue: deque[_Job], scores: list[Score | None]) -> None:
        status = Status.ERROR if self._component.timeout_s is None else Status.TIMEOUT
        reason = f"not tried: {self._lost_in_a_row} calls before it hung or died, one after another"
        for job in queue:
            self._settle(job, [Score(None, status, reason=reason)] * len(job.rows), scores)
        queue.clear()

    def _replace(self, actor: Any) -> None:
        import ray

        ray.kill(actor, no_restart=True)
        self._start()

    def _split(self, batch: Batch) -> list[_Job]:
        """Whole groups in equal shares, one share per actor; more of them where one would use up half of the time limit."""
        wanted = self._count
        if self._component.timeout_s is not None:
            wanted = max(wanted, math.ceil(len(batch) * self._pace / (self._component.timeout_s / 2)))
        if self._verifier.scope == "population" or wanted == 1:
            return [_Job(batch, list(range(len(batch))))]
        groups: dict[str, list[int]] = {}
        for row, group in enumerate(batch.groups):
            groups.setdefault(group, []).append(row)
        shares: list[list[int]] = [[] for _ in range(min(wanted, len(groups)))]
        for number, rows in enumerate(groups.values()):
            shares[number * len(shares) // len(groups)].extend(rows)
        return [_Job(batch.take(rows), rows) for rows in shares]

    def _started(self, ref: Any) -> None:
        import ray

        actor, _ = self._starting.pop(ref)
        try:
            self.weights |= ray.get(ref)
        except (
            ray.exceptions.RayTaskError
        ) as error:  # a verifier that cannot be set up stops the run with its own error
            self._start()  # so that a later call says the same
            if isinstance(error.cause, RswError):
                raise error.cause from None
            raise ConfigError(
                f"{self._component.label!r} cannot be set up: {type(error.cause).__name__}: {error.cause}"
            ) from None
        except ray.exceptions.RayError as error:
            self._start()
            self._dead_starts += 1
            if self._dead_starts >= STARTS:
                raise RunStopped(
                    f"{self._dead_starts} processes in a row died while {self._component.label!r} was being set up "
                    f"({type(error).__name__}); is there memory enough for it?"
                ) from error
            return
        self._dead_starts = 0
        self._idle.append(actor)

    def _check_starts(self) -> None:
        for _, since in self._starting.values():
            if time.monotonic() - since > START_TIMEOUT_S:
                raise RunStopped(
                    f"no process for {self._component.label!r} was ready within {START_TIMEOUT_S:.0f} s; "
                    f"does the cluster have the processors and GPUs it asks for?"
                )

    def _patience(self, running: dict[Any, tuple[Any, _Job, float]]) -> float:
        limit = self._component.timeout_s
        if limit is None or not running:
            return 5.0
        soonest = min(since for _, _, since in running.values()) + limit - time.monotonic()
        return max(0.01, min(5.0, soonest))

    def _overdue(self, running: dict[Any, tuple[Any, _Job, float]]) -> list[Any]:
        """Calls past their time; one that has answered meanwhile is not among them."""
        limit = self._component.timeout_s
        if limit is None:
            return []
        import ray

        now = time.monotonic()
        late = [ref for ref, (_, _, since) in running.items() if now - since > limit]
        answered = set(ray.wait(late, num_returns=len(late), timeout=0)[0]) if late else set()
        return [ref for ref in late if ref not in answered]

    def close(self) -> None:
        """Stop the actors."""
        import ray

        for actor in [*self._idle, *(actor for actor, _ in self._starting.values())]:
            ray.kill(actor, no_restart=True)
        self._idle.clear()
        self._starting.clear()
