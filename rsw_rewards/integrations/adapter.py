"""What all adapters share: a trainer's rows as samples and outputs, and what becomes of a reward that failed."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from rsw_rewards.core.answer import AT_LIMIT
from rsw_rewards.core.image_values import HoldsArray, describe
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample
from rsw_rewards.engine.reward import Result, Reward
from rsw_rewards.errors import ConfigError, InputError, RunStopped, did_you_mean
from rsw_rewards.io.in_memory import as_sample, as_samples
from rsw_rewards.serve.remote import RemoteReward, is_address

_log = logging.getLogger(__name__)


def from_text(text: str | None, is_truncated: bool) -> Output:
    """The output that a text is; one that was cut off at the length limit is invalid, as it is in ``rsw train``."""
    if is_truncated:
        return Output(invalid=AT_LIMIT, finish_reason="length")
    return Output(text=text, finish_reason="stop")


@lru_cache(maxsize=4096)
def _of_text(text: str) -> Sample:
    return as_sample(_mapping(text), 0)


def _mapping(truth: Any) -> Mapping[str, Any]:
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except ValueError:
            raise InputError(
                f"{describe(truth)} is no sample; give 'samples' and let the row name one by its id"
            ) from None
    if not isinstance(truth, Mapping):
        raise InputError(f"a row's truth must be a sample as a mapping or as JSON, not {describe(truth)}")
    return truth


class Adapter:
    """A :class:`Reward` that takes the rows of a trainer and gives the numbers that the trainer can take. It is warm when made.

    Args:
        rubric, settings: as for :class:`Reward`; in place of the rubric a Reward or a :class:`rsw.RemoteReward`, or the address of a
            reward service, as ``http://host:8000``.
        samples: as for :class:`Reward`; the trainer's truth is then the id of one. Where left out, a row carries its whole sample.
        on_failure: what becomes of an output without a reward, one of ``choices``: ``"raise"`` raises :class:`RunStopped`;
            ``"group_mean"`` gives it the mean of its group's others; ``"drop"`` gives None, by which the trainer leaves it out.
        choices: what the trainer can do.
        alone: why the trainer shows one output at a time, as a sentence's end; empty where it shows whole groups.
        truth: ``(task, field)`` where a row's truth is that field of the reference, as ``("change_qa", "answers")``.
        gives: the field of an :class:`Output` that the trainer fills, ``"text"`` or ``"image"``.

    Raises:
        ConfigError: for another ``on_failure``, for both ``samples`` and ``truth``, for unknown ``settings``, and where the rubric needs
            whole groups and the trainer shows none.
    """

    def __init__(
        self,
        rubric: Any,
        samples: Any = None,
        *,
        on_failure: str = "raise",
        choices: Sequence[str] = ("raise",),
        alone: str = "",
        truth: tuple[str, str] | None = None,
        gives: str = "text",
        **settings: Any,
    ) -> None:
        if on_failure not in choices:
            raise ConfigError(f"'on_failure' cannot be {on_failure!r} here; {did_you_mean(str(on_failure), choices)}")
        if samples is not None and truth is not None:
            raise ConfigError("with 'samples' a row's truth is the id of one, so leave 'truth' out, or 'samples'")
        known = None if samples is None else as_samples(samples)
        self.reward = _reward_of(rubric, known, settings)
        if alone and self.reward.needs_groups:
            raise ConfigError(f"{self.reward.needs_groups}, and {alone}; use a rubric that rewards outputs one by one")
        self.labels = [component.label for component in self.reward.rubric.components]
        self.on_failure, self.truth, self.gives = on_failure, truth, gives
        self._failed = 0
        self._samples = None if known is None else {sample.id: sample for sample in known}
        self.reward.warm()

    def sample(self, truth: Any, shown: Sequence[Any] | None = None) -> Sample:
        """The sample of a row.

        Args:
            truth: the id of one of ``samples``; else the field that ``truth`` names; else a whole sample, as a mapping or as JSON.
            shown: the images of the row's prompt, which are those of a sample that the row holds whole and that names none.

        Raises:
            InputError: no sample has the id, the value is no sample, or its task is not answered by what the trainer gives.
        """
        sample = self._sample(truth)
        if shown is not None and len(shown) and not sample.images and self._samples is None:
            sample = replace(sample, images=tuple(shown))
        if self.gives not in (fields := OUTPUT_FIELDS[sample.task]):
            raise InputError(
                f"the sample {sample.id!r} is of the task {sample.task}, which is answered by {' or '.join(fields)}, but here every"
                f" output is {'an image' if self.gives == 'image' else 'a text'}; leave samples of this task out"
            )
        return sample

    def _sample(self, truth: Any) -> Sample:
        if not isinstance(truth, str | Mapping) and isinstance(truth, HoldsArray) and np.ndim(truth) == 0:
            truth = np.asarray(truth).item()
        if self._samples is not None:
            if (known := self._samples.get(str(truth))) is None:
                raise InputError(
                    f"{describe(truth)} is the id of none of the {len(self._samples)} samples; a row's truth is an id, unless"
                    " 'samples' is left out"
                )
            return known
        if self.truth is not None:
            task, field = self.truth
            value = str(truth) if isinstance(truth, int | float) else truth
            return as_sample({"task": task, "reference": {field: value}}, 0)
        return _of_text(truth) if isinstance(truth, str) else as_sample(_mapping(truth), 0)

    def whole_groups(
        self, outputs: Sequence[Output], samples: Sequence[Sample], groups: Sequence[Hashable]
    ) -> tuple[list[Result], list[Hashable], range]:
        """The results of the groups of this process's rows, parts of which may lie on other processes.

        Returns:
            The results and their groups, and the places of this process's rows among them.
        """
        rows, own = gathered(list(zip(outputs, samples, groups, strict=True)))
        near = {rows[place][2] for place in own}
        asked = [place for place, row in enumerate(rows) if row[2] in near]
        outputs, samples, groups = ([rows[place][part] for place in asked] for part in range(3))
        first = asked.index(own.start) if own else 0
        return self.reward.many(outputs, samples, groups), groups, range(first, first + len(own))

    def numbers(self, results: Sequence[Result], groups: Iterable[Hashable]) -> list[float | None]:
        """A number for every result, None for one that the trainer leaves out; a warning where one has no reward.

        Raises:
            RunStopped: one has no reward and ``on_failure`` is ``"raise"``.
        """
        given = [result.reward for result in results]
        if None in given:
            reason = results[given.index(None)].reason
            if self.on_failure == "raise":
                raise RunStopped(f"an output has no reward: {reason}")
            self._warn(given.count(None), reason)
        return group_means(given, groups) if self.on_failure == "group_mean" else given

    def _warn(self, failed: int, reason: str) -> None:
        """Say that outputs have no reward, at the first and whenever twice as many had none."""
        before, self._failed = self._failed, self._failed + failed
        if self._failed.bit_length() > before.bit_length():
            what = "gets the mean of its group's others" if self.on_failure == "group_mean" else "is left out"
            _log.warning("%d outputs so far have no reward; each %s; the latest: %s", self._failed, what, reason)

    def number(self, result: Result) -> float:
        """The reward of an output that is seen alone. Raises :class:`RunStopped` where it has none."""
        if result.reward is None:
            raise RunStopped(f"the output has no reward: {result.reason}")
        return result.reward

    def logged(self, result: Result) -> dict[str, float]:
        """The value of every component, always under the same names; NaN for one that failed or was not asked."""
        known = {label: score.value for label, score in result.parts.items() if score.value is not None}
        return {label: known.get(label, np.nan) for label in self.labels}


def _reward_of(rubric: Any, samples: list[Sample] | None, settings: Mapping[str, Any]) -> Reward | RemoteReward:
    """What gives the rewards: that which is given, or one made of a rubric."""
    made = RemoteReward(rubric) if is_address(rubric) else rubric
    if not isinstance(made, Reward | RemoteReward):
        known = inspect.signature(Reward).parameters.keys() - {"rubric", "samples"}
        if unknown := sorted(settings.keys() - known):
            raise ConfigError(f"there is no setting {unknown[0]!r}; {did_you_mean(unknown[0], sorted(known))}")
        return Reward(rubric, samples=samples, **settings)
    if settings:
        raise ConfigError(f"{', '.join(settings)}: give these where the Reward is made, or to 'rsw serve'")
    return made


class GroupsOf:
    """The rewards of outputs that coroutines of one loop show one by one: those of a group wait for each other.

    Args:
        size: outputs of a group.
        adapter: what rewards them.
        timeout_s: how long an output waits for the others of its group.
    """

    def __init__(self, size: int, adapter: Adapter, timeout_s: float) -> None:
        self.size, self.adapter, self.timeout_s = size, adapter, timeout_s
        self._waiting: dict[Hashable, tuple[list[tuple[Output, Sample]], asyncio.Future[asyncio.Future[Any]]]] = {}

    async def reward(self, output: Output, sample: Sample, group: Hashable) -> tuple[float, Result]:
        """The number for the trainer, and the result, of one output.

        Raises:
            RunStopped: it has no reward and ``on_failure`` is ``"raise"``, or too few outputs of its group came in time.
        """
        if group not in self._waiting:
            self._waiting[group] = [], asyncio.get_running_loop().create_future()
        rows, complete = self._waiting[group]
        place = len(rows)
        rows.append((output, sample))
        if len(rows) == self.size:
            del self._waiting[group]
            complete.set_result(asyncio.ensure_future(self._rewarded(rows)))
        try:
            asked = await asyncio.wait_for(asyncio.shield(complete), self.timeout_s)
        except TimeoutError:
            self._waiting.pop(group, None)
            raise RunStopped(
                f"{len(rows)} of {self.size} outputs of a group came within {self.timeout_s:g} s"
            ) from None
        results, numbers = await asyncio.shield(asked)
        return self.adapter.number(results[place]) if numbers is None else numbers[place], results[place]

    async def _rewarded(self, rows: Sequence[tuple[Output, Sample]]) -> tuple[list[Result], list[Any] | None]:
        outputs, samples = zip(*rows, strict=True)
        results = await self.adapter.reward.amany(outputs, samples, [0] * len(rows))
        means = self.adapter.on_failure == "group_mean"
        return results, self.adapter.numbers(results, [0] * len(rows)) if means else None


def group_means(rewards: Sequence[float | None], groups: Iterable[Hashable]) -> list[float | None]:
    """Rewards in which each None is the mean of its group's others, 0 in a group without any.

    An advantage that is centred in its group is then 0 for the filled ones, and that of the group without them for the others: with
    n outputs of which one failed, divided by the standard deviation it is sqrt((n - 1) / (n - 2)) times as large.

    >>> group_means([1.0, 0.0, None, 0.5], "aaaa")
    [1.0, 0.0, 0.5, 0.5]
    """
    groups = list(groups)
    by_group: dict[Hashable, list[float]] = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        if reward is not None:
            by_group[group].append(reward)
    means = {group: float(np.mean(known)) for group, known in by_group.items()}
    return [means.get(group, 0.0) if reward is None else reward for reward, group in zip(rewards, groups, strict=True)]


def gathered(rows: list[Any]) -> tuple[list[Any], range]:
    """The rows of all processes of accelerate in the order of their ranks, and the places of this process's."""
    accelerate = sys.modules.get("accelerate")  # a trainer that runs several processes by it has imported it
    if accelerate is None or (state := accelerate.PartialState()).num_processes == 1:
        return rows, range(len(rows))
    gather = accelerate.utils.gather_object
    counts = gather([len(rows)])
    if len(counts) != state.num_processes:
        raise ConfigError(
            f"a group may lie over the {state.num_processes} processes, and accelerate gathers nothing from them; on CPUs set"
            " ACCELERATE_USE_CPU=1"
        )
    first = sum(counts[: state.process_index])
    return gather(rows), range(first, first + len(rows))


_making = threading.Lock()
_made: dict[str, Adapter] = {}
_as_json = json.JSONEncoder(
    sort_keys=True, default=lambda value: repr(value) if plain(value) is value else plain(value)
).encode


def shared(rubric: Any, samples: Any = None, **options: Any) -> Adapter:
    """The adapter of this process for a trainer's settings, made when they first occur; for functions that a trainer calls by name.

    Args:
        rubric, samples, options: as for :class:`Adapter`; what a configuration file can hold.
    """
    key = _as_json((rubric, samples, options))
    with _making:
        if key not in _made:
            _made[key] = Adapter(plain(rubric), plain(samples), **plain(options))
        return _made[key]


def plain(value: Any) -> Any:
    """A value of a foreign configuration as dicts, lists and what they hold; for those of OmegaConf and Hydra."""
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(held) for held in value]
    return value
