"""A reward function for TRL's GRPOTrainer and RLOOTrainer: whole groups, gathered over processes where the rubric needs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.engine.reward import Result
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import Adapter, from_text, gathered
from rsw_rewards.io.given_images import images_of

_FIELDS = ("id", "task", "images", "reference", "scene", "kind", "metadata")


class RSWReward:
    """What TRL takes in ``reward_funcs``. An output without a reward is None, which TRL leaves out of its group.

    Args:
        rubric, samples, settings: as for :class:`rsw_rewards.Reward`. Without ``samples``, columns of the dataset hold the fields of
            each sample: ``id``, ``task``, ``reference``.
        eos_token_id: the ids that may end a completion, as ``tokenizer.eos_token_id``. One that ends otherwise was cut off, and is
            invalid.
        column: the dataset's column with the ids of samples.
        on_failure: ``"drop"``; or ``"raise"``, which stops the training.

    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> reward = RSWReward({"exact_match": 1.0}, [sample], eos_token_id=2)
    >>> reward(["?"] * 3, ["yes", "no", "yes"], [[7, 2], [8, 2], [7]], id=["a", "a", "a"])
    [1.0, 0.0, 0.0]
    """

    __name__ = "rsw_reward"

    def __init__(
        self,
        rubric: Any,
        samples: Any = None,
        *,
        eos_token_id: int | Collection[int],
        column: str = "id",
        on_failure: str = "drop",
        **settings: Any,
    ) -> None:
        self.adapter = Adapter(rubric, samples, on_failure=on_failure, choices=("drop", "raise"), **settings)
        self.by_id = samples is not None
        self.column = column
        self.ends = frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """A reward for every completion, in their order; None for one that has none."""
        outputs = [
            from_text(
                text if isinstance(text, str) else text[-1]["content"], not len(ids) or int(ids[-1]) not in self.ends
            )
            for text, ids in zip(completions, completion_ids, strict=True)
        ]
        samples = self._samples(columns, prompts)
        results = self._results(outputs, samples)
        logged = [self.adapter.logged(result) for result in results]
        for name in self.adapter.labels:
            values = [row[name] for row in logged]
            known = [value for value in values if value == value]
            if log_extra is not None:
                log_extra(name, values)
            if log_metric is not None and known:
                log_metric(f"components/{name}", sum(known) / len(known))
        return self.adapter.numbers(results, [sample.id for sample in samples])

    def _samples(self, columns: dict[str, Sequence[Any]], prompts: Sequence[Any]) -> list[Sample]:
        if self.column not in columns:
            raise InputError(
                f"the dataset has no column {self.column!r} with the ids of samples; its columns are {', '.join(columns)}"
            )
        if self.by_id:
            return [self.adapter.sample(name) for name in columns[self.column]]
        names = {"id": self.column, **{name: name for name in _FIELDS if name in columns}}
        return [
            self.adapter.sample({field: columns[name][row] for field, name in names.items()}, images_of(prompt))
            for row, prompt in enumerate(prompts)
        ]

    def _results(self, outputs: list[Output], samples: list[Sample]) -> list[Result]:
        """The results of this process's rows. A group may lie over several processes; its rows follow each other."""
        if not self.adapter.reward.needs_groups:
            return self.adapter.reward.many(outputs, samples)
        ids, own = gathered([sample.id for sample in samples])
        groups = [number for number, (_, span) in enumerate(groupby(ids)) for _ in span]
        results, _, places = self.adapter.whole_groups(outputs, samples, [groups[place] for place in own])
        return [results[place] for place in places]
