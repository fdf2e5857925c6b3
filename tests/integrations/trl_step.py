"""One step of TRL's own trainer over completions that are given; as a program, in each of several processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rsw_rewards.integrations.trl import RSWReward
from tests.integrations.shown import QUESTIONS


def step(texts: Sequence[str], rubric: Any, folder: Path, **settings: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """What TRL logs, and its table of completions: their rewards, components and advantages.

    Args:
        texts: the completions of one group, over all processes. One that ends in ``...`` was cut off there.
        rubric: of the reward.
        folder: where TRL writes.
        settings: further ones of TRL's.
    """
    from datasets import Dataset
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    from rsw_rewards.rollouts.tiny_vlm import tiny_tokenizer

    tokenizer = tiny_tokenizer(texts)
    end = tokenizer.eos_token_id

    def given(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        first = trainer.accelerator.process_index * len(prompts)
        ids = [
            tokenizer(text.removesuffix("...")).input_ids + [end] * (not text.endswith("..."))
            for text in texts[first : first + len(prompts)]
        ]
        return {"prompt_ids": tokenizer(list(prompts)).input_ids, "completion_ids": ids, "logprobs": None}

    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, eos_token_id=end, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    trainer = GRPOTrainer(
        model,
        reward_funcs=RSWReward(rubric, QUESTIONS, eos_token_id=end),
        args=GRPOConfig(
            output_dir=str(folder), max_steps=1, num_generations=len(texts), report_to="none", use_cpu=True, bf16=False,
            logging_steps=1, log_completions=True, save_strategy="no", disable_tqdm=True, **settings,
        ),
        train_dataset=Dataset.from_list([{"prompt": "changed?", "id": "a"}]),
        processing_class=tokenizer,
        rollout_func=given,
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history[0], pd.read_parquet(folder / "completions" / "completions_00001.parquet")


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    step(asked.pop("texts"), asked.pop("rubric"), Path(sys.argv[1]), **asked)
