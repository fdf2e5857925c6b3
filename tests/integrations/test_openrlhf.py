"""Our reward in OpenRLHF: its own executor calls it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.openrlhf import make_reward
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share

FILE = """
from rsw_rewards.integrations.openrlhf import make_reward
from tests.integrations.shown import QUESTIONS, RUBRIC
reward_func = make_reward(RUBRIC, QUESTIONS, end="</s>")
"""


def test_rewards_of_texts_behind_their_prompts() -> None:
    pytest.importorskip("torch")
    reward_func = make_reward(RUBRIC, QUESTIONS, end=["</s>", "<|im_end|>"])
    prompt = "<|im_start|>Changed? "
    given = reward_func([prompt + text + "<|im_end|>" for text in TEXTS], [prompt] * len(TEXTS), ["a"] * len(TEXTS))
    assert given["rewards"].tolist() == pytest.approx(expected(TEXTS))
    assert set(given["extra_logs"]) == set(RUBRIC)
    assert reward_func([prompt + "yes"], [prompt], ["a"])["rewards"].tolist() == [0.0]  # cut off


def test_faults_raise() -> None:
    pytest.importorskip("torch")
    with pytest.raises(rsw.RunStopped, match="the output has no reward: share"):
        make_reward(share, QUESTIONS, end="</s>")(["?broken</s>"], ["?"], ["a"])
    with pytest.raises(rsw.InputError, match="a query does not start with its prompt"):
        make_reward(RUBRIC, QUESTIONS, end="</s>")(["hanged? yes</s>"], ["Changed? "], ["a"])


class Characters:
    """A tokenizer of characters."""

    def __call__(self, text: str, **unused: Any) -> Any:
        import torch

        return {"input_ids": torch.tensor([[ord(letter) for letter in text]])}

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


class Engine:
    """Answers with one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, *unused: Any, **unused_too: Any) -> Any:
        tokens = [ord(letter) for letter in self.text]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason="stop", logprobs=None)])


def test_openrlhfs_own_executor_gives_our_rewards(tmp_path: Path) -> None:
    package("openrlhf")
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    (path := tmp_path / "reward.py").write_text(FILE)
    executor = SingleTurnAgentExecutor(str(path))
    settings = SimpleNamespace(max_tokens=8, logprobs=None)

    def reward(text: str, label: str) -> Any:
        return asyncio.run(executor.execute("Changed? ", label, settings, 100, Characters(), Engine(text)))["reward"]

    assert [float(reward(text + "</s>", "a")) for text in TEXTS] == pytest.approx(expected(TEXTS))
    assert reward("yes</s>", "no such sample") is None
