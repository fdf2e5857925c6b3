"""Scoring on Ray actors: processes that share a component's work, and that can be killed when one of them hangs."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rsw_rewards.cluster import ensure_ray
from rsw_rewards.contracts import Batch, Context, Verifier
from rsw_rewards.rubric import Component
from rsw_rewards.scorer import Failure, guarded, parts
from rsw_rewards.scores import Score, Status

DEATHS = 2
"""How often one batch may take its process with it before it is divided, or given up when it cannot be."""
START_TIMEOUT_S = 300.0
"""How long an actor may take to start and load its weights, which a component's own time limit does not count."""


class _Scorer:
    """What runs in an actor."""

    def __init__(self) -> None:
        self.verifier: Verifier | None = None

    def setup(self, verifier: Verifier, context: Context) -> None:
        verifier.setup(context)
        self.verifier = verifier

    def score(self, batch: Batch) -> list[Score] | Failure:
        assert self.verifier is not None
        return guarded(self.verifier, batch)


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
    """

    def __init__(self, component: Component, verifier: Verifier, context: Context, count: int, num_gpus: float) -> None:
        ensure_ray()
        import ray

        self._component, self._verifier = component, verifier
        remote: Any = ray.remote(max_restarts=0, max_task_retries=0, num_gpus=num_gpus, num_cpus=0.1)
        self._actor = remote(_Scorer)
        self._payload = (ray.put(verifier), ray.put(context))
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._count = count
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote()
        self._starting[actor.setup.remote(*self._payload)] = (actor, time.monotonic())

    def __call__(self, batch: Batch) -> list[Score]:
        """Scores of the batch, in its order."""
        import ray

        scores: list[Score | None] = [None] * len(batch)
        queue = deque(self._split(batch))
        running: dict[Any, tuple[Any, _Job, float]] = {}

        def settle(job: _Job, result: list[Score] | Failure) -> None:
            if not isinstance(result, Failure):
                for row, score in zip(job.rows, result, strict=True):
                    scores[row] = score
                return
            halves = parts(job.batch, self._verifier)
            if halves:
                queue.extend(_Job(job.batch.take(half), [job.rows[row] for row in half]) for half in halves)
                return
            for row in job.rows:
                scores[row] = Score(None, result.status, reason=result.reason)

        while queue or running:
            while queue and self._idle:
                actor, job = self._idle.pop(), queue.popleft()
                running[actor.score.remote(job.batch)] = (actor, job, time.monotonic())
            ready, _ = ray.wait([*running, *self._starting], num_returns=1, timeout=self._patience(running))
            for ref in ready:
                if ref in self._starting:
                    self._started(ref)
                else:
                    actor, job, _ = running.pop(ref)
                    try:
                        settle(job, ray.get(ref))
                        self._idle.append(actor)
                    except ray.exceptions.RayError as error:
                        self._start()
                        self._died(job, error, queue, settle)
            self._check_starts()
            for ref in self._overdue(running):
                actor, job, _ = running.pop(ref)
                ray.kill(actor, no_restart=True)
                self._start()
                settle(job, Failure(f"no answer within {self._component.timeout_s} s", Status.TIMEOUT))
        return [score for score in scores if score is not None]

    def _split(self, batch: Batch) -> list[_Job]:
        """Whole groups in equal shares, one share per actor."""
        if self._verifier.scope == "population" or self._count == 1:
            return [_Job(batch, list(range(len(batch))))]
        groups: dict[str, list[int]] = {}
        for row, group in enumerate(batch.groups):
            groups.setdefault(group, []).append(row)
        shares: list[list[int]] = [[] for _ in range(min(self._count, len(groups)))]
        for number, rows in enumerate(groups.values()):
            shares[number * len(shares) // len(groups)].extend(rows)
        return [_Job(batch.take(rows), rows) for rows in shares]

    def _started(self, ref: Any) -> None:
        import ray

        actor, _ = self._starting.pop(ref)
        ray.get(ref)  # a verifier that cannot be set up stops the run with its own error
        self._idle.append(actor)

    def _check_starts(self) -> None:
        for actor, since in self._starting.values():
            if time.monotonic() - since > START_TIMEOUT_S:
                raise TimeoutError(
                    f"no actor for {self._component.label!r} within {START_TIMEOUT_S:.0f} s; does the cluster have what it asks for? {actor}"
                )

    @staticmethod
    def _died(job: _Job, error: Exception, queue: deque[_Job], settle: Any) -> None:
        job.deaths += 1
        if job.deaths < DEATHS:
            queue.append(job)
        else:
            settle(job, Failure(f"its process died {job.deaths} times ({type(error).__name__})"))

    def _patience(self, running: dict[Any, tuple[Any, _Job, float]]) -> float:
        limit = self._component.timeout_s
        if limit is None or not running:
            return 5.0
        soonest = min(since for _, _, since in running.values()) + limit - time.monotonic()
        return max(0.01, min(5.0, soonest))

    def _overdue(self, running: dict[Any, tuple[Any, _Job, float]]) -> list[Any]:
        limit = self._component.timeout_s
        if limit is None:
            return []
        now = time.monotonic()
        return [ref for ref, (_, _, since) in running.items() if now - since > limit]

    def close(self) -> None:
        """Stop the actors."""
        import ray

        for actor in [*self._idle, *(actor for actor, _ in self._starting.values())]:
            ray.kill(actor, no_restart=True)
        self._idle.clear()
        self._starting.clear()
