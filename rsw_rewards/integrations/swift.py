"""Reward functions for ms-swift, for a file that ``--external_plugins`` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsw_rewards.engine.reward import Result
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import Adapter, from_text

FAILED = "failed"
"""What the function is called by that says which completions have no reward."""


class RSWReward:
    """The reward, and the value of each component, for ms-swift's ``ORM`` and ``AsyncORM``.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        column: the data set's column with the id of the sample, the whole sample, or the field that ``truth`` names.
        on_failure: ``"group_mean"`` or ``"raise"``.

    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> reward = RSWReward({"exact_match": 1.0}, [sample])
    >>> reward.rewards(["yes", "no"], id=["a", "a"], prompt_id=["p", "p"], is_truncated=[False, False])
    [1.0, 0.0]
    """

    def __init__(
        self,
        rubric: Any,
        samples: Any = None,
        *,
        column: str = "id",
        truth: tuple[str, str] | None = None,
        on_failure: str = "group_mean",
        **settings: Any,
    ) -> None:
        choices = ("group_mean", "raise")
        self.adapter = Adapter(rubric, samples, truth=truth, on_failure=on_failure, choices=choices, **settings)
        self.column = column
        self._last: tuple[Sequence[str], list[float | None], list[Result]] = ((), [], [])

    def plugins(self, name: str = "rsw", asynchronous: bool = False) -> dict[str, type]:
        """Classes for ``swift.rewards.orms``: the reward by its name, ``NAME_COMPONENT`` for each component, ``NAME_failed``.

        The last is 1 for a completion that has no reward. Give all but the first a weight of 0 in ``--reward_weights``: they are
        logged, and do not count.
        """
        from swift.rewards import ORM, AsyncORM

        def plugin(component: str | None) -> type:
            async def later(self: Any, completions: Sequence[str], **columns: Any) -> list[float | None]:
                return rewarded(completions, component, **columns)

            def now(self: Any, completions: Sequence[str], **columns: Any) -> list[float | None]:
                return rewarded(completions, component, **columns)

            label = name if component is None else f"{name}_{component}"
            base, call = (AsyncORM, later) if asynchronous else (ORM, now)
            return type(label, (base,), {"__call__": call})

        rewarded = self.rewards
        parts = {f"{name}_{component}": plugin(component) for component in (*self.adapter.labels, FAILED)}
        return {name: plugin(None), **parts}

    def rewards(
        self, completions: Sequence[str], component: str | None = None, **columns: Sequence[Any]
    ) -> list[float | None]:
        """The reward of every completion, or the value of a component, NaN where it has none, or whether it :data:`FAILED`.

        ``columns`` are those that ms-swift gives: the data set's, ``prompt_id``, and ``is_truncated``, which is True where the
        ``finish_reason`` is ``length``.
        """
        if self._last[0] is not completions:  # ms-swift hands the same list to all functions of a step
            self._last = (completions, *self._scored(completions, columns))
        _, numbers, results = self._last
        if component == FAILED:
            return [float(result.reward is None) for result in results]
        return numbers if component is None else [self.adapter.logged(result)[component] for result in results]

    def _scored(
        self, completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
    ) -> tuple[list[float | None], list[Result]]:
        for name in (self.column, "prompt_id", "is_truncated"):
            if name not in columns:
                raise InputError(f"ms-swift gives no column {name!r}; it gives {', '.join(columns)}")
        outputs = [from_text(*row) for row in zip(completions, columns["is_truncated"], strict=True)]
        shown = columns.get("images") or [None] * len(completions)
        samples = [self.adapter.sample(*row) for row in zip(columns[self.column], shown, strict=True)]
        results, groups, own = self.adapter.whole_groups(outputs, samples, columns["prompt_id"])
        numbers = self.adapter.numbers(results, groups)
        return [numbers[place] for place in own], [results[place] for place in own]
