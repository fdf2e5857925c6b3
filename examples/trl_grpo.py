"""GRPO by TRL alone, with a rubric as its reward: a tiny vision-language model learns to see change. Minutes on a CPU.

rsw train examples/squares_start.yaml
python examples/trl_grpo.py runs/squares/start --out runs/squares/trl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from squares import squares
from transformers import AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from rsw_rewards import Sample
from rsw_rewards.integrations.trl import RSWReward


def dataset(samples: Iterable[Sample]) -> Dataset:
    """What TRL reads of a vision-language data set, and the id of each row's sample."""
    return Dataset.from_list([
        {
            "prompt": [{"role": "user", "content": sample.prompt}],
            "images": [Image.fromarray(image.array) for image in sample.images],
            "id": sample.id,
        }
        for sample in samples
    ])  # fmt: skip


def train(model: str, rubric: str, out: Path, steps: int, seed: int) -> list[dict[str, Any]]:
    """Returns what TRL logged, a row a step."""
    processor = AutoProcessor.from_pretrained(model)
    tokenizer = processor.tokenizer
    samples = squares(960, seed=0)
    reward = RSWReward(rubric, samples, eos_token_id=tokenizer.eos_token_id)
    trainer = GRPOTrainer(
        model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(out),
            max_steps=steps,
            seed=seed,
            per_device_train_batch_size=64,
            num_generations=8,
            max_completion_length=4,
            # An answer holds no token that stands for an image.
            generation_kwargs={"suppress_tokens": sorted({*tokenizer.all_special_ids} - {tokenizer.eos_token_id})},
            loss_type="grpo",
            beta=0.04,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=dataset(samples),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model(str(out))
    return [row for row in trainer.state.log_history if "reward" in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("--rubric", default="examples/squares.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/squares/trl"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rows = train(asked.model, asked.rubric, asked.out, asked.steps, asked.seed)
    (asked.out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
