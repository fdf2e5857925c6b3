"""Workers: Ray actors that do one kind of work, of which those that die or do not answer in time are replaced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from rsw_rewards.engine.cluster import ensure_ray
from rsw_rewards.errors import ConfigError, RswError, RunStopped

if TYPE_CHECKING:
    from ray import ObjectRef

START_TIMEOUT_S = 300.0
"""How long an actor may take to start and load its weights, which the time limit of its work does not count."""
STARTS = 3
"""How many actors in a row may be lost before they are ready to work, until the run stops."""
TICK_S = 5.0
"""How long nothing may happen until the actors that are not ready yet are looked after."""

Work = TypeVar("Work")


class Worker(Protocol):
    """What runs in an actor. Calls of one actor run one after another, in the order in which they were made."""

    def setup(self, *payload: Any) -> Any:
        """Make ready what :meth:`work` needs. Apart from ``__init__``, whose errors Ray reports without their cause."""

    def work(self, *arguments: Any) -> Any:
        """Do a piece of work."""

    def update(self, *arguments: Any) -> None:
        """Take in what all later work depends on, such as new weights."""


@dataclass(slots=True)
class Done(Generic[Work]):
    """The end of a piece of work."""

    work: Work
    end: Literal["answered", "raised", "died", "late"]
    """``raised``: the actor is alive. ``died`` and ``late``: it is replaced."""
    values: Sequence[Any] = ()
    """What was answered."""
    refs: Sequence[ObjectRef] = ()
    """Where the values lie in Ray's store."""
    error: Any = None
    """What was raised there, or Ray's account of the death."""
    seconds: float = 0.0
    """How long an answer took."""


@dataclass(slots=True)
class _Start:
    actor: Any
    since: float
    first: bool
    """Whether it is one of those that a run begins with, and none that replaces another."""


@dataclass(slots=True)
class _Call(Generic[Work]):
    actor: Any
    work: Work
    refs: list[ObjectRef]
    since: float


class Workers(Generic[Work]):
    """Actors of one kind, with one piece of work at a time in each.

    An actor is given work only when it is set up, so the time limit counts nothing but work. One that dies or overruns is replaced, and
    whoever gave the work is told. A run stops where it cannot have the actors it begins with. A replacement may be slow to come
    while others work.

    Args:
        role: what an actor runs, made there without arguments.
        payload: what ``setup`` is given, in every actor.
        count: number of actors.
        called: what the work is of, as the messages name it.
        limit_s: seconds after which an actor that has not answered counts as hung; None waits for ever.
        answers: number of values that ``work`` gives; each lies in Ray's store by itself.
        num_gpus, num_cpus: what an actor asks of Ray's scheduler.

    Raises:
        ConfigError: the payload cannot be sent to another process.
    """

    def __init__(
        self,
        role: type[Worker],
        payload: Sequence[Any],
        count: int,
        *,
        called: str,
        limit_s: float | None = None,
        answers: int = 1,
        num_gpus: float = 0.0,
        num_cpus: float = 0.1,
    ) -> None:
        ensure_ray()
        import ray

        self.called = called
        self.limit_s = limit_s
        self.replaced = 0
        """Actors that died or hung and were replaced."""
        self.reports: list[Any] = []
        """What ``setup`` answered in each actor that became ready."""
        self._demand = f"{num_gpus:g} GPUs and {num_cpus:g} CPUs"
        remote: Any = ray.remote(
            max_restarts=0,
            max_task_retries=0,
            num_gpus=num_gpus,
            num_cpus=num_cpus,
            # By default Ray fills half of this node's CPUs first, by what actors ask for and not by what they use. Shares of
            # GPUs are left to it: spread, they could leave no whole one for an actor that needs it.
            scheduling_strategy="DEFAULT" if num_gpus else "SPREAD",
        )
        self._make = remote(role)
        self._answers = answers
        self._update: tuple[Any, ...] | None = None
        self._closed = False
        self._lost_starts = 0
        self._idle: list[Any] = []
        self._starting: dict[ObjectRef, _Start] = {}
        self._running: dict[ObjectRef, _Call[Work]] = {}
        try:
            self._payload = [ray.put(part) for part in payload]
        except TypeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"{called} cannot be sent to another process: {reason}; make in setup() what cannot be pickled"
            ) from error
        for _ in range(count):
            self._start(first=True)

    @property
    def idle(self) -> int:
        """How many actors wait for work."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """How many actors are at work."""
        return len(self._running)

    def give(self, work: Work, *arguments: Any) -> None:
        """Let an idle actor work on ``arguments``; ``work`` comes back with the answer."""
        actor = self._idle.pop()
        refs = actor.work.options(num_returns=self._answers).remote(*arguments)
        refs = refs if isinstance(refs, list) else [refs]
        # The last value is waited for until this node's store has it: what becomes of the node that made it then costs nothing.
        self._running[refs[-1]] = _Call(actor, work, refs, time.monotonic())

    def wait(self) -> list[Done[Work]]:
        """Wait until something happens, for some seconds at most, and give the work that came to its end.

        Raises:
            RswError: what ``setup`` raised.
            ConfigError: an actor cannot be set up for another reason.
            RunStopped: actors die while they start, or are not ready in time; or the workers were closed meanwhile.
        """
        import ray

        ready, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=self._patience())
        if self._closed:
            raise RunStopped(f"the workers of {self.called} were closed")
        done = [self._ended(ref) for ref in ready if ref in self._running]
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
        self._check_starts()
        return done + self._cut_off()

    def warm(self) -> None:
        """Wait until the first actors are ready; nothing may be at work. Raises what :meth:`wait` raises."""
        while any(start.first for start in self._starting.values()):
            self.wait()

    def update(self, *arguments: Any) -> None:
        """Have all actors, and those that replace them, take in ``arguments`` before any work that is given from now on."""
        self._update = arguments
        for actor in self._actors():
            actor.update.remote(*arguments)

    def abandon(self) -> None:
        """Stop what is at work, because nobody waits for it any more."""
        import ray

        calls, self._running = list(self._running.values()), {}
        if self._closed:
            return
        for call in calls:
            ray.kill(call.actor, no_restart=True)
            self._start()

    def close(self) -> None:
        """Stop the actors. What they answered stays readable: this process owns it."""
        import ray

        self._closed = True
        for actor in self._actors():
            ray.kill(actor, no_restart=True)
        self._idle, self._starting, self._running = [], {}, {}

    def _actors(self) -> list[Any]:
        running, starting = self._running.values(), self._starting.values()
        return [*self._idle, *(call.actor for call in running), *(start.actor for start in starting)]

    def _start(self, first: bool = False) -> None:
        actor = self._make.remote()
        self._starting[actor.setup.remote(*self._payload)] = _Start(actor, time.monotonic(), first)
        if self._update is not None:
            actor.update.remote(*self._update)

    def _replace(self, actor: Any) -> None:
        import ray

        ray.kill(actor, no_restart=True)
        self.replaced += 1
        self._start()

    def _ended(self, ref: ObjectRef) -> Done[Work]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        call = self._running.pop(ref)
        seconds = time.monotonic() - call.since
        try:
            values = ray.get(call.refs)  # arrays are looked at where they lie, not copied
        except RayTaskError as error:
            self._idle.append(call.actor)
            return Done(call.work, "raised", error=error.cause)
        except RayError as error:
            self._replace(call.actor)
            return Done(call.work, "died", error=error)
        self._idle.append(call.actor)
        return Done(call.work, "answered", values, call.refs, seconds=seconds)

    def _cut_off(self) -> list[Done[Work]]:
        """Replace the actors that are past the time limit; one that has answered meanwhile is not among them."""
        import ray

        if self.limit_s is None:
            return []
        now = time.monotonic()
        late = [ref for ref, call in self._running.items() if now - call.since > self.limit_s]
        answered = set(ray.wait(late, num_returns=len(late), timeout=0)[0]) if late else set()
        calls = [self._running.pop(ref) for ref in late if ref not in answered]
        for call in calls:
            self._replace(call.actor)
        return [Done(call.work, "late") for call in calls]

    def _started(self, ref: ObjectRef) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        start = self._starting.pop(ref)
        try:
            self.reports.append(ray.get(ref))
        except RayError as error:
            self._start(start.first)  # also so that a later call says the same
            self._lost_starts += 1
            if isinstance(error, RayTaskError) and (start.first or self._lost_starts >= STARTS):
                if isinstance(error.cause, RswError):
                    raise error.cause from None
                raise ConfigError(
                    f"{self.called} cannot be set up: {type(error.cause).__name__}: {error.cause}"
                ) from None
            if self._lost_starts >= STARTS:
                raise RunStopped(
                    f"{self._lost_starts} processes in a row died while {self.called} was being set up "
                    f"({type(error).__name__}); is there memory enough for it?"
                ) from error
            return
        self._lost_starts = 0
        self._idle.append(start.actor)

    def _check_starts(self) -> None:
        now = time.monotonic()
        late = [start for start in self._starting.values() if now - start.since > START_TIMEOUT_S]
        nobody = not self._idle and not self._running and len(late) == len(self._starting)
        if late and (nobody or any(start.first for start in late)):
            import ray

            raise RunStopped(
                f"no process for {self.called} was ready within {START_TIMEOUT_S:.0f} s; each asks for {self._demand}, "
                f"and Ray has {ray.available_resources()} free"
            )

    def _patience(self) -> float:
        """Seconds until somebody must be looked after."""
        if self.limit_s is None or not self._running:
            return TICK_S
        soonest = min(call.since for call in self._running.values()) + self.limit_s - time.monotonic()
        return max(0.01, min(TICK_S, soonest))
