"""Our reward in EasyR1: its own reward manager calls it with a batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.easyr1 import compute_score
from tests.foreign import checkout, package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, Words, expected, share


def asked(texts: list[str], truth: str = "a", length: int = 3) -> list[dict[str, Any]]:
    return [{"response": text, "response_length": length, "ground_truth": truth} for text in texts]


def test_rewards_of_a_batch() -> None:
    given = compute_score(asked(TEXTS) + asked(TEXTS, "b"), rubric=RUBRIC, samples=QUESTIONS, max_response_length=8)
    assert [row["overall"] for row in given] == pytest.approx(expected(TEXTS) + expected(TEXTS, "b"))
    assert all(set(row) == {"overall", *RUBRIC} for row in given)
    cut_off = compute_score(asked(["yes"], length=8), rubric=RUBRIC, samples=QUESTIONS, max_response_length=8)
    assert cut_off[0]["overall"] == 0.0


def test_a_failure_is_the_mean_of_its_group() -> None:
    settings = {"rubric": share, "samples": QUESTIONS, "max_response_length": 8}
    given = compute_score(asked(["1", "broken", "0.5"]) + asked(["0", "broken"], "b"), **settings)
    assert [row["overall"] for row in given] == [1.0, 0.75, 0.5, 0.0, 0.0]
    with pytest.raises(rsw.RunStopped):
        compute_score(asked(["1", "broken"]), **settings, on_failure="raise")


def test_easyr1s_own_manager_gives_our_rewards(tmp_path: Path) -> None:
    checkout("EasyR1", "b44b311b669bf1fd1aa2fc36f2251482ba33cb16")
    torch = package("torch")
    function = package("verl.workers.reward.function")
    config = package("verl.workers.reward.config")

    (path := tmp_path / "reward.py").write_text(
        "from rsw_rewards.integrations.easyr1 import REWARD_NAME, REWARD_TYPE, compute_score\n"
    )
    words = Words()
    ids = [[*words.encode(text), 0] for text in TEXTS]
    tensors = {
        "responses": torch.tensor([row + [0] * (8 - len(row)) for row in ids]),
        "response_mask": torch.tensor([[1] * len(row) + [0] * (8 - len(row)) for row in ids]),
    }
    settings = config.RewardConfig(
        reward_function=f"{path}:compute_score",
        reward_function_kwargs={"rubric": RUBRIC, "samples": QUESTIONS, "max_response_length": 8},
    )
    settings.post_init()

    class Data(SimpleNamespace):
        def __len__(self) -> int:
            return len(TEXTS)

    data = Data(batch=tensors, non_tensor_batch={"ground_truth": np.array(["a"] * len(TEXTS), dtype=object)})
    rewards, logged = function.AutoRewardManager(settings, words).compute_reward(data)
    assert rewards.sum(1).tolist() == pytest.approx(expected(TEXTS))
    assert set(logged) == {"overall", *RUBRIC}
