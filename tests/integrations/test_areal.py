"""Our reward in AReaL: its own wrapper calls it in another process."""

from __future__ import annotations

import asyncio
import pickle

import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.areal import RSWReward
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share


def test_a_pickled_reward_gives_the_same() -> None:
    reward = pickle.loads(pickle.dumps(RSWReward(RUBRIC, QUESTIONS, eos_token_id=[0, 1])))
    assert [reward("?", text, [5], [7, 1], id="a") for text in TEXTS] == pytest.approx(expected(TEXTS))
    assert reward("?", "yes", [5], [7], id="a") == 0.0  # cut off
    assert (
        RSWReward(RUBRIC, eos_token_id=0, column="answer", truth=("change_qa", "answers"))(
            "?", "no", [], [0], answer="no"
        )
        == 1.0
    )


def test_a_failure_raises() -> None:
    with pytest.raises(rsw.RunStopped, match="the output has no reward: share"):
        RSWReward(share, QUESTIONS, eos_token_id=0)("?", "broken", [5], [0], id="a")


def test_areals_own_wrapper_gives_our_rewards() -> None:
    package("areal.api.reward_api")
    from areal.api.reward_api import AsyncRewardWrapper

    async def rewards() -> list[float]:
        ask = AsyncRewardWrapper(
            RSWReward(RUBRIC, QUESTIONS, eos_token_id=0), timeout_seconds=120, max_workers=1, max_retries=0
        )
        return [await ask("?", text, [5], [7, 0], id="a") for text in TEXTS]

    assert asyncio.run(rewards()) == pytest.approx(expected(TEXTS))
