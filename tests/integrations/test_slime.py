"""Our reward in slime: its own hub calls it, and its own arithmetic says what an advantage is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsw_rewards.integrations.slime import RSWReward
from tests.foreign import checkout, package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share

ARGS = SimpleNamespace(advantage_estimator="grpo", rewards_normalization=True, grpo_std_normalization=True)


def sample(text: str, group: int = 0, status: str = "completed") -> Any:
    return SimpleNamespace(response=text, label="a", status=status, group_index=group, remove_sample=False, reward=None)


def ask(reward: RSWReward, samples: list[Any]) -> list[Any]:
    for one, given in zip(samples, asyncio.run(reward.rm(ARGS, samples)), strict=True):
        one.reward = given
    return samples


def test_rewards_of_one_and_of_a_group() -> None:
    reward = RSWReward(RUBRIC, QUESTIONS)
    group = asyncio.run(reward.rm(ARGS, [sample(text) for text in TEXTS]))
    assert [row["score"] for row in group] == pytest.approx(expected(TEXTS))
    assert [asyncio.run(reward.rm(ARGS, sample(text)))["score"] for text in TEXTS] == pytest.approx(expected(TEXTS))
    assert asyncio.run(reward.rm(ARGS, sample("yes", status="truncated")))["score"] == 0.0


def test_what_has_no_reward_moves_no_siblings_advantage() -> None:
    reward = RSWReward(share, QUESTIONS)
    samples = ask(
        reward, [sample("1"), sample("0"), sample("broken"), sample("1"), sample("0.5", 1), sample("0", 1, "aborted")]
    )
    assert [one.remove_sample for one in samples] == [False, False, True, False, False, True]
    raw, trained = reward.post_process(ARGS, samples)
    alone = np.array([1.0, 0.0, 1.0])
    reference = (alone - alone.mean()) / (alone.std(ddof=1) + 1e-6)
    assert trained == pytest.approx([reference[0], reference[1], 0.0, reference[2], 0.0, 0.0])
    assert raw == pytest.approx([1, 0, 2 / 3, 1, 0.5, 0.5])


def test_slimes_own_hub_gives_our_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout("slime", "624b824a898ab0ec1fcb4d373004c7f3852bf515")
    hub, types = package("slime.rollout.rm_hub"), package("slime.utils.types")
    reward = RSWReward(RUBRIC, QUESTIONS)
    monkeypatch.setattr(hub, "load_function", lambda path: getattr(reward, path))
    args = SimpleNamespace(custom_rm_path="rm", rm_type=None)
    group = [types.Sample(prompt="?", response=text, label="a", status=types.Sample.Status.COMPLETED) for text in TEXTS]
    assert [row["score"] for row in asyncio.run(hub.batched_async_rm(args, group))] == pytest.approx(expected(TEXTS))
    assert asyncio.run(hub.async_rm(args, group[0]))["score"] == expected(TEXTS)[0]
