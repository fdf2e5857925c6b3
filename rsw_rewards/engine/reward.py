"""Reward: the reward of single outputs, groups or batches for any trainer, from any thread, without a table."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import threading
import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rsw_rewards.core.functions import INSTEAD, FunctionVerifier, in_loop
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rewards import Column, combined
from rsw_rewards.core.rubric import Rubric, as_rubric
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.engine.batching import Batcher, Scores
from rsw_rewards.engine.calls import actors_for
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.in_memory import as_sample, as_samples, check_ids, keys_of, listed
from rsw_rewards.io.outputs import as_output


@dataclass(frozen=True, slots=True)
class Result:
    """The reward of one output, and the scores of its components.

    >>> rsw.Result(None, {"exact_match": rsw.Score.error("it broke")}, "exact_match: it broke").reward is None
    True
    """

    reward: float | None
    """In [0, 1]; under ``normalize_each`` of any size. None where a failure of ours leaves no reward: leave such an output out."""
    parts: Mapping[str, Score] = field(default_factory=dict)
    """The score of each component that knows the sample's task, by the component's name."""
    reason: str = ""
    """Why there is no reward."""


class _Call(NamedTuple):
    batch: Batch
    groups: np.ndarray
    """(n,) int64, the number of each output's group."""
    known: dict[int, Scores]
    """Scores by the place of their component, of those that were scored at once."""
    waiting: dict[int, Future[Scores]]


class Reward:
    """Computes rewards by a rubric, with the same scores and rewards as :class:`~rsw_rewards.engine.scorer.Scorer` but without a table.

    Threads and coroutines may use it at the same time. Verifiers that look at texts, numbers or pixels run in the caller's thread.
    Those that work with an encoder, a detector, another network or a server, those that are ``async`` and those on actors are asked
    about the outputs of concurrent callers together, which changes no score.

    A copy, or a pickled one in another process, is made anew from its settings and has the state that was observed. A forked process
    goes on with verifiers of the caller's thread; where there are others, it is told to make a Reward of its own.

    Args:
        rubric: a :class:`Rubric`, a YAML file, a mapping as in YAML, the weight of each verifier, one verifier, or a list of
            verifiers or components.
        samples: all samples of the run, as a list, a DataFrame, a Dataset or a file: verifiers that are fitted on references need
            them, and the rubric is checked on them.
        device: where verifiers and their encoders run.
        bank: decoded images and features; one of its own where left out.
        workers: Ray actors that share the work of a component; 0 scores in this process. Components with ``timeout_s`` run on an
            actor always.
        num_gpus: share of a GPU per actor.
        seed: for verifiers that draw numbers.
        window_ms: milliseconds that an output waits for those of other callers, where they are asked about together.
        batch_size: outputs from which no more are waited for.

    Raises:
        ConfigError: the rubric cannot be used, or needs samples and there are none.

    >>> sample = {"task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> with rsw.Reward({"exact_match": 0.9, "answer_format": 0.1}) as reward:
    ...     result = reward.one("yes", sample)
    >>> result.reward, result.parts["exact_match"].value
    (1.0, 1.0)
    """

    def __init__(
        self,
        rubric: Any,
        *,
        samples: Any = None,
        device: str = "cpu",
        bank: FeatureBank | None = None,
        workers: int = 0,
        num_gpus: float = 0.0,
        seed: int = 0,
        window_ms: float = 5.0,
        batch_size: int = 64,
    ) -> None:
        self.rubric = as_rubric(rubric)
        self._scorer = Scorer(self.rubric, device=device, bank=bank, workers=workers, num_gpus=num_gpus, seed=seed)
        components = self._scorer.components
        known = None if samples is None else as_samples(samples)
        self._settings: dict[str, Any] = {
            "samples": known, "device": device, "bank": bank, "workers": workers, "num_gpus": num_gpus, "seed": seed,
            "window_ms": window_ms, "batch_size": batch_size,
        }  # fmt: skip
        self._scorer.check(known or ())
        if known is not None:
            self._scorer.prepare(known)
        elif needy := [one.component.label for one in components if one.verifier.needs_samples]:
            raise ConfigError(f"{needy[0]!r} is fitted on all samples of a run; give them to Reward as 'samples'")
        self._rewarded = frozenset(task for one in components if one.component.weight > 0 for task in one.tasks)
        self.needs_groups = _needs_groups(self.rubric, self._scorer.verifiers)
        """Why an output cannot be rewarded alone, as a clause; empty where it can."""
        self._calls = itertools.count()
        self._loaded: set[int] = set()
        self._make_locks()
        self._unusable = ""
        self._batchers = {
            number: Batcher(
                partial(self._ask, number),
                window_ms,
                1 if one.verifier.scope == "population" else batch_size,
                one.component.label,
            )
            for number, one in enumerate(components)
            if _works_in_batches(one.verifier) or actors_for(one.component, one.verifier, workers)
        }
        _living.add(self)

    def __reduce__(self) -> Any:
        return partial(type(self), self.rubric, **self._settings), (), self._scorer.state_dict() or None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._scorer.load_state_dict(state)

    def _make_locks(self) -> None:
        self._loading = threading.Lock()
        self._locks = [threading.Lock() for _ in self.rubric.components]

    def _forked(self) -> None:
        """In a forked process, which has none of the threads, and whose locks others may have held."""
        self._make_locks()
        if self._batchers:
            self._unusable = (
                "this Reward has threads that do not live on in a forked process; make a Reward in each process"
            )

    def __enter__(self) -> Reward:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def warm(self) -> None:
        """Load everything that a first call would load: weights, METEOR's program, actors.

        Raises:
            ConfigError: something cannot be loaded, or it is closed.
        """
        self._check_usable()
        for number, lock in enumerate(self._locks):
            with lock:
                self._load(number)

    def one(self, output: Any, sample: Any) -> Result:
        """The reward of one output, as if it were a group of its own.

        Args:
            output: the answer itself, a text, an image, a mask or boxes; a mapping with the fields of an output; an :class:`Output`;
                None for a missing one.
            sample: what it answers: a :class:`Sample`, or a mapping as in a samples file.

        Raises:
            ConfigError: the rubric compares the outputs of a group, or rewards no such task.
            InputError: naming the field and the value of an output or a sample that cannot be used.
        """
        self._check_alone()
        return self.many([output], [sample])[0]

    def many(
        self, outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None = None
    ) -> list[Result]:
        """The rewards of outputs, in their order.

        Args:
            outputs: as in :meth:`one`, n of them; all candidates of a group in one call.
            samples: what each answers, n of them.
            groups: n keys, as a list, an array or a tensor; outputs with one key are a group. Where left out, the outputs of a sample
                are one.

        Raises:
            ConfigError: the rubric rewards no such task.
            InputError: naming the field and the value of an output or a sample that cannot be used, for other numbers of them, for
                two samples of one id without ``groups``, and for a key that cannot be hashed.
        """
        if self._batchers and in_loop():
            raise ConfigError(f"an async verifier cannot wait for other verifiers; {INSTEAD}")
        call = self._start(outputs, samples, groups)
        return self._results(call, {number: answer.result() for number, answer in call.waiting.items()})

    async def aone(self, output: Any, sample: Any) -> Result:
        """:meth:`one` for coroutines, which lets others run while encoders, servers and actors work; call :meth:`warm` before."""
        self._check_alone()
        return (await self.amany([output], [sample]))[0]

    async def amany(
        self, outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None = None
    ) -> list[Result]:
        """:meth:`many` for coroutines, as :meth:`aone` is for one output."""
        call = self._start(outputs, samples, groups)
        answers = await asyncio.gather(*map(asyncio.wrap_future, call.waiting.values()))
        return self._results(call, dict(zip(call.waiting, answers, strict=True)))

    def observe(self, outputs: Iterable[Any], samples: Iterable[Any]) -> None:
        """Let verifiers that keep state from step to step see all outputs of a training step, after they were scored.

        Raises:
            ConfigError: it is closed.
            InputError: as in :meth:`many`.
        """
        self.warm()
        self._scorer.observe(self._batch(outputs, samples, None)[0])

    def close(self) -> None:
        """Answer what was asked, stop actors and threads, and release what verifiers hold."""
        if self._unusable:  # closed already; or the threads and the actors are another process's
            return
        self._unusable = "this Reward is closed; make a new one"
        for batcher in self._batchers.values():
            batcher.close()
        self._scorer.close()

    def _check_alone(self) -> None:
        if self.needs_groups:
            raise ConfigError(f"{self.needs_groups}; call many() or amany() with whole groups")

    def _check_usable(self) -> None:
        if self._unusable:
            raise ConfigError(self._unusable)
        if self in _asking.get():
            raise ConfigError(f"a verifier cannot ask the Reward that asks it; {INSTEAD}")

    def _start(self, outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None) -> _Call:
        """Score by the verifiers that run in the caller's thread, while the others are asked already."""
        self._check_usable()
        batch, numbers = self._batch(outputs, samples, groups)
        tasks = {sample.task for sample in batch.samples}
        if not tasks <= self._rewarded:
            task = min(tasks - self._rewarded)
            raise ConfigError(f"no component of the rubric rewards the task {task}")
        asked = [number for number, one in enumerate(self._scorer.components) if tasks & one.tasks]
        waiting = {number: self._batchers[number].submit(batch) for number in asked if number in self._batchers}
        return _Call(
            batch, numbers, {number: self._ask(number, batch) for number in asked if number not in waiting}, waiting
        )

    def _batch(
        self, outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None
    ) -> tuple[Batch, np.ndarray]:
        """The batch, and the number of each output's group."""
        made, asked, numbers = paired(outputs, samples, groups)
        call = next(self._calls)  # groups of different calls have different names, so that calls can be joined
        batch = Batch(asked, made, [f"{call}/{number}" for number in numbers])
        return batch, np.array(numbers, dtype=np.int64)

    def _ask(self, number: int, batch: Batch) -> Scores:
        """The scores of one component, None where it is not asked about a task."""
        asking = _asking.set((*_asking.get(), self))
        try:
            with self._locks[number]:
                self._load(number)
                rows, scores, _ = self._scorer.components[number].scores(batch)
                self._scorer.bank.settle()  # the images of this call are done with, and a Reward lives as long as a training
        finally:
            _asking.reset(asking)
        if len(rows) == len(batch):
            return scores
        spread: list[Score | None] = [None] * len(batch)
        for row, score in zip(rows, scores, strict=True):
            spread[row] = score
        return spread

    def _load(self, number: int) -> None:
        """Make a component ready, once; while its lock is held."""
        if number not in self._loaded:
            with self._loading:  # one after another, since components share what they are made from
                self._scorer.components[number].warm()
            self._loaded.add(number)

    def _results(self, call: _Call, answers: Mapping[int, Scores]) -> list[Result]:
        nothing: Scores = [None] * len(call.batch)
        columns = {
            component.label: call.known.get(number) or answers.get(number) or nothing
            for number, component in enumerate(self.rubric.components)
        }
        of = {label: Column.of(label, scores) for label, scores in columns.items()}
        rewards, reasons = combined(self.rubric, of, call.groups)
        return [
            Result(
                None if reward != reward else reward,
                {label: score for label, score in zip(columns, scores, strict=True) if score is not None},
                reason,
            )
            for reward, reason, *scores in zip(rewards.tolist(), reasons.tolist(), *columns.values(), strict=True)
        ]


def paired(
    outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None
) -> tuple[list[Output], list[Sample], list[int]]:
    """What a caller gave as records, and the number of each output's group, counted from 0.

    Raises:
        InputError: as :meth:`Reward.many`.
    """
    outputs, samples = listed(outputs, "outputs"), listed(samples, "samples")
    keys = None if groups is None else keys_of(groups)
    if not len(outputs) == len(samples) == len(samples if keys is None else keys):
        told = "" if keys is None else f" in {len(keys)} groups"
        raise InputError(
            f"{len(outputs)} outputs for {len(samples)} samples{told}: give each output its sample{', and its group' if keys is not None else ''}"
        )
    known: dict[int, Sample] = {}  # a record that stands there for several outputs is one sample
    for number, sample in enumerate(samples):
        if id(sample) not in known:
            known[id(sample)] = as_sample(sample, number)
    asked = [known[id(sample)] for sample in samples]
    if keys is None:
        check_ids(known.values())
        keys = [sample.id for sample in asked]
    made = [as_output(output, sample) for output, sample in zip(outputs, asked, strict=True)]
    numbers: dict[Hashable, int] = {}
    return made, asked, [numbers.setdefault(key, len(numbers)) for key in keys]


_asking: ContextVar[tuple[Reward, ...]] = ContextVar("asking", default=())
"""The Rewards whose verifiers are at work in this thread or coroutine."""

_living: weakref.WeakSet[Reward] = weakref.WeakSet()


def _forget_threads() -> None:
    for reward in list(_living):
        reward._forked()


os.register_at_fork(after_in_child=_forget_threads)


_IN_BATCHES = frozenset({"encoder", "detector", "network", "endpoint"})


def _works_in_batches(verifier: Verifier) -> bool:
    """Whether many outputs cost a verifier little more than one, or it waits for something else than this process."""
    code = type(verifier).function if isinstance(verifier, FunctionVerifier) else verifier.score
    return bool(verifier.needs & _IN_BATCHES) or inspect.iscoroutinefunction(code)


def _needs_groups(rubric: Rubric, verifiers: Sequence[Verifier]) -> str:
    """Why an output cannot be rewarded alone, as a clause; empty where it can."""
    if rubric.combine == "normalize_each":
        return "the rubric normalises each component within a group ('combine: normalize_each')"
    if rubric.min_std > 0:
        return "the rubric has a 'min_std', a spread of rewards within a group"
    for component, verifier in zip(rubric.components, verifiers, strict=True):
        if verifier.scope != "sample":
            return f"{component.label!r} compares the outputs of a {verifier.scope}"
        if component.weight > 0 and component.min_std > 0:
            return f"{component.label!r} has a 'min_std', a spread of values within a group"
        if component.weight > 0 and not component.required:
            return (
                f"{component.label!r} is optional ('required: false'): where it fails, it is left out for a whole group"
            )
    return ""
