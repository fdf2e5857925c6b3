"""Our rewards in verl: its own reward loop calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.verl import compute_score
from tests.foreign import package

QUESTION = {"id": "q", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
RUBRIC = {"exact_match": 0.9, "answer_format": 0.1}


class Words:
    """A tokenizer whose tokens are words."""

    def __init__(self) -> None:
        self.words = [""]

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[int(token)] for token in ids)

    def encode(self, text: str) -> list[int]:
        self.words += text.split()
        return list(range(len(self.words) - len(text.split()), len(self.words)))


def test_a_function_without_verl(tmp_path: Path) -> None:
    (path := tmp_path / "samples.jsonl").write_text(json.dumps(QUESTION))
    for text in ("yes", "no", "nothing that is known"):
        given = compute_score("levir", text, "q", {"index": 0}, rubric=RUBRIC, samples=str(path))
        assert given["score"] == pytest.approx(rsw.Reward(RUBRIC).one(text, QUESTION).reward)
        assert set(given) == {"score", *RUBRIC}
    assert (
        compute_score("levir", "yes", "yes", rubric={"exact_match": 1.0}, truth=["change_qa", "answers"])["score"]
        == 1.0
    )


def test_verls_own_manager_gives_our_rewards(tmp_path: Path) -> None:
    package("verl")
    import torch
    from omegaconf import OmegaConf
    from tensordict import TensorDict
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn

    words = Words()

    def item(text: str) -> Any:
        ids = torch.tensor([words.encode(text)])
        tensors = {
            "prompts": torch.zeros(1, 2, dtype=torch.long),
            "responses": ids,
            "attention_mask": torch.ones(1, 2 + ids.shape[1], dtype=torch.long),
        }
        held = {"data_source": "levir", "reward_model": {"ground_truth": "q"}, "extra_info": {"index": 0}}
        return DataProto(
            batch=TensorDict(tensors, batch_size=1),
            non_tensor_batch={key: np.array([value], dtype=object) for key, value in held.items()},
        )

    (path := tmp_path / "samples.jsonl").write_text(json.dumps(QUESTION))
    function = {
        "path": "pkg://rsw_rewards.integrations.verl", "name": "compute_score", "reward_kwargs": {"rubric": RUBRIC, "samples": str(path)},
    }  # fmt: skip
    config = OmegaConf.create({"reward": {"custom_reward_function": function}})
    manager = NaiveRewardManager(config, words, get_custom_reward_fn(config))
    for text in ("yes", "no", "nothing that is known"):
        given = manager.loop.run_until_complete(manager.run_single(item(text)))
        assert given["reward_score"] == pytest.approx(rsw.Reward(RUBRIC).one(text, QUESTION).reward)
        assert set(given["reward_extra_info"]) == {"score", *RUBRIC}
