"""Rewards for verl: a reward function that its configuration names, and a reward manager that sees truncation, images and groups."""

from __future__ import annotations

from typing import Any

from rsw_rewards.integrations._common import from_text, shared

_ALONE = "verl shows its reward function one output at a time"


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    *,
    rubric: Any,
    samples: Any = None,
    truth: tuple[str, str] | None = None,
    settings: Any = None,
    **unused: Any,
) -> dict[str, float]:
    """What verl calls by ``reward.custom_reward_function``; rubric and samples stand in its ``reward_kwargs``.

    Args:
        solution_str: the text. verl does not tell a function whether it was cut off; the reward manager knows.
        ground_truth: the id of a sample, a whole sample, or the field that ``truth`` names.
        rubric, samples, truth: as for :class:`~rsw_rewards.integrations._common.Adapter`.
        settings: further ones of :class:`rsw_rewards.Reward`, as a mapping.

    Returns:
        ``score`` and the value of every component, always under the same names.

    Raises:
        RunStopped: there is no reward; verl marks the group as failed.

    >>> rubric, sample = {"exact_match": 1.0}, {"task": "change_qa", "reference": {"answers": "yes"}}
    >>> compute_score("levir", "yes", sample, rubric=rubric)
    {'score': 1.0, 'exact_match': 1.0}
    """
    adapter = shared(rubric, samples, truth=truth, alone=_ALONE, **(settings or {}))
    result = adapter.reward.one(from_text(solution_str, False), adapter.sample(ground_truth))
    return {"score": adapter.number(result), **adapter.logged(result)}
