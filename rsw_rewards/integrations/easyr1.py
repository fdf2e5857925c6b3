"""A batch reward function for EasyR1, for a file that ``worker.reward.reward_function`` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsw_rewards.integrations.adapter import from_text, shared

REWARD_NAME = "rsw"
REWARD_TYPE = "batch"


def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]],
    *,
    rubric: Any,
    samples: Any = None,
    max_response_length: int,
    truth: Sequence[str] | None = None,
    on_failure: str = "group_mean",
    settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """What EasyR1 calls with a batch; the keywords stand in ``reward_function_kwargs``.

    Args:
        reward_inputs: n mappings with ``response``, ``response_length`` and ``ground_truth``: the id of a sample, a whole sample as
            JSON, or the field that ``truth`` names. Responses of one ground truth are a group.
        rubric, samples, truth: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        max_response_length: as ``data.max_response_length``; a response of as many tokens was cut off, and is invalid.
        on_failure: ``"group_mean"`` or ``"raise"``.
        settings: further ones of :class:`rsw_rewards.Reward`.

    Returns:
        ``overall`` and the value of every component; 0 for a component without a value, which EasyR1 only logs.

    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> asked = [{"response": text, "response_length": 2, "ground_truth": "a"} for text in ("yes", "no")]
    >>> compute_score(asked, rubric={"exact_match": 1.0}, samples=[sample], max_response_length=16)
    [{'overall': 1.0, 'exact_match': 1.0}, {'overall': 0.0, 'exact_match': 0.0}]
    """
    adapter = shared(
        rubric, samples, truth=truth, on_failure=on_failure, choices=("group_mean", "raise"), **(settings or {})
    )
    groups = [str(one["ground_truth"]) for one in reward_inputs]
    outputs = [from_text(one["response"], one["response_length"] >= max_response_length) for one in reward_inputs]
    results = adapter.reward.many(outputs, [adapter.sample(one["ground_truth"]) for one in reward_inputs], groups)
    return [
        {
            "overall": reward,
            **{name: value if value == value else 0.0 for name, value in adapter.logged(result).items()},
        }
        for reward, result in zip(adapter.numbers(results, groups), results, strict=True)
    ]
