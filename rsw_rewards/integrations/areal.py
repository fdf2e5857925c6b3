"""A reward function for AReaL, which calls it in processes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsw_rewards.integrations.adapter import from_text, shared


class RSWReward:
    """What AReaL's workflows take as ``reward_fn``. It is pickled into each process, which makes the reward when it is first asked.

    Args:
        rubric, samples: as for :class:`rsw_rewards.Reward`; best as files, since they are pickled with every call.
        eos_token_id: the ids that may end a completion; one that ends otherwise was cut off, and is invalid.
        column: the data set's column with the id of the sample, the whole sample, or the field that ``truth`` names.
        truth: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        settings: further ones of :class:`rsw_rewards.Reward`.

    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> reward_fn = RSWReward({"exact_match": 1.0}, [sample], eos_token_id=2)
    >>> reward_fn("Changed?", "yes", [5], [7, 2], id="a"), reward_fn("Changed?", "yes", [5], [7], id="a")
    (1.0, 0.0)
    """

    def __init__(
        self,
        rubric: Any,
        samples: Any = None,
        *,
        eos_token_id: int | Sequence[int],
        column: str = "id",
        truth: tuple[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.ends = frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)
        self.column = column
        self.settings = {"rubric": rubric, "samples": samples, "truth": truth, **settings}

    def __call__(
        self, prompt: Any, completions: str, prompt_ids: Sequence[int], completion_ids: Sequence[int], **row: Any
    ) -> float:
        """The reward of one completion. Raises :class:`rsw_rewards.RunStopped` where there is none."""
        adapter = shared(alone="AReaL shows one output at a time", **self.settings)
        output = from_text(completions, not len(completion_ids) or int(completion_ids[-1]) not in self.ends)
        return adapter.number(adapter.reward.one(output, adapter.sample(row[self.column], row.get("images"))))
