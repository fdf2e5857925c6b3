"""Our reward in ms-swift: its own code calls it, and its own arithmetic says what an advantage is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.swift import RSWReward
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share


def columns(count: int, is_truncated: bool = False) -> dict[str, list[Any]]:
    return {"id": ["a"] * count, "prompt_id": ["p"] * count, "is_truncated": [is_truncated] * count}


def test_rewards_and_components_of_a_batch() -> None:
    reward = RSWReward(RUBRIC, QUESTIONS)
    texts = list(TEXTS)
    assert reward.rewards(texts, **columns(len(texts))) == pytest.approx(expected(texts))
    matches = reward.rewards(texts, "exact_match", **columns(len(texts)))
    assert matches == pytest.approx(expected(texts, rubric={"exact_match": 1.0}))
    assert reward.rewards(["yes"], **columns(1, is_truncated=True)) == [0.0]


def test_a_failure_is_the_mean_of_its_group() -> None:
    reward = RSWReward(share, QUESTIONS)
    groups = {"id": ["a"] * 5, "prompt_id": list("ppqpq"), "is_truncated": [False] * 5}
    texts = ["1", "broken", "0.5", "0", "broken"]
    assert reward.rewards(texts, **groups) == [1.0, 0.5, 0.5, 0.0, 0.5]
    assert reward.rewards(texts, "failed", **groups) == [0, 1, 0, 0, 1]
    with pytest.raises(rsw.RunStopped):
        RSWReward(share, QUESTIONS, on_failure="raise").rewards(["broken"], **columns(1))


def test_a_column_that_is_missing_is_a_sentence() -> None:
    with pytest.raises(rsw.InputError, match="ms-swift gives no column 'id'; it gives prompt_id"):
        RSWReward(RUBRIC, QUESTIONS).rewards(["yes"], prompt_id=["p"])


def rollout(text: str, finish_reason: str = "stop") -> Any:
    """A completion as ms-swift keeps it."""
    from swift.rl_core.data import GRPOSample

    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]
    return GRPOSample(messages=messages, prompt_id="p", finish_reason=finish_reason, extra={"id": "a"})


@pytest.mark.parametrize("asynchronous", [False, True])
def test_ms_swifts_own_code_gives_our_rewards_and_the_groups_advantages(asynchronous: bool) -> None:
    package("swift.rewards")
    import torch
    from swift.rl_core.advantage import compute_advantages
    from swift.rl_core.grpo_algorithm import compute_rewards_per_func

    plugins = RSWReward(share, QUESTIONS).plugins(asynchronous=asynchronous)
    assert list(plugins) == ["rsw", "rsw_share", "rsw_failed"]
    functions = [plugin(args=None) for plugin in plugins.values()]
    rollouts = [rollout(text) for text in ("1", "0", "broken", "1")]
    given = compute_rewards_per_func(rollouts, functions, None, torch.device("cpu"))
    assert given[:, 0].tolist() == pytest.approx([1, 0, 2 / 3, 1])
    assert given[:, 1].tolist() == pytest.approx([1, 0, np.nan, 1], nan_ok=True)
    assert given[:, 2].tolist() == [0, 0, 1, 0]
    weights = torch.tensor([1.0, 0.0, 0.0])
    advantages, _ = compute_advantages(given, weights, 4, scale_rewards="group")
    alone, _ = compute_advantages(given[[0, 1, 3]], weights, 3, scale_rewards="group")
    assert advantages[2] == pytest.approx(0, abs=1e-6)
    assert advantages[[0, 1, 3]].tolist() == pytest.approx((alone * np.sqrt(3 / 2)).tolist(), abs=1e-3)
    cut_off = compute_rewards_per_func([rollout("1"), rollout("1", "length")], functions, None, torch.device("cpu"))
    assert cut_off[:, 0].tolist() == [1, 0]
