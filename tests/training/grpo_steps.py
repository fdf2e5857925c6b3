"""GRPO's trainer over rollouts that are given: what it makes of a generation, without sampling or scoring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsw_rewards.config import RunConfig
from rsw_rewards.core.records import Output, TokenTrace
from rsw_rewards.training.trainer_views import TokenView
from rsw_rewards.training.trl_trainer import Trainer
from tests.training.toy_lm import EOS, FIRST, ToyLM, toy_data

SAMPLES = toy_data()
PROMPTS, GROUP = 4, 4


def rollouts(seed: int = 0, group: int = GROUP) -> list[Output]:
    """Random answers and forecasts of 1 to 8 tokens to prompts of two lengths, most of them with their end."""
    rng = np.random.default_rng(seed)
    found = []
    for sample in SAMPLES[:PROMPTS]:
        prompt = (3, 4, 5) if sample.id.startswith("f") else (2, 6, 7, 8, 4)
        for candidate in range(group):
            made = rng.integers(FIRST, 19, rng.integers(1, 9)).tolist() + [EOS] * bool(rng.random() < 0.7)
            trace = TokenTrace(prompt, tuple(made), tuple((-3 + 0.5 * rng.normal(size=len(made))).tolist()))
            found.append(Output(sample.id, candidate, tokens=trace))
    return found


class Given:
    """Stands where rollouts are collected, with the same ones at every step."""

    def __init__(self, outputs: Sequence[Output], rewards: Sequence[float | None]) -> None:
        self.outputs, self.rewards = outputs, rewards

    def collect(self, ids: Sequence[str], step: int, weights: Any) -> tuple[list[Output], list[float | None]]:
        by_id: dict[str, list[tuple[Output, float | None]]] = {}
        for output, reward in zip(self.outputs, self.rewards, strict=True):
            by_id.setdefault(output.sample_id, []).append((output, reward))
        rows = [row for one in ids for row in by_id[one]]
        return [output for output, _ in rows], [reward for _, reward in rows]


def trainer(
    folder: Path, outputs: Sequence[Output], rewards: Sequence[float | None], *, stale: int = 0, **grpo: Any
) -> Any:
    """The trainer that a run with these keys of ``grpo`` has, over a toy policy that has left its start."""
    section = {"steps": 1, "prompts": PROMPTS, "group": GROUP, "learning_rate": 1e-2, "threads": 1, "device": "cpu"}
    config = RunConfig.model_validate({
        "out": folder, "policy": "", "train": {"source": ""}, "rubric": {"components": [{"use": "exact_match"}]}, "rollouts": {"stale": stale},
        "grpo": section | grpo,
    })  # fmt: skip
    policy = ToyLM()
    policy.setup()
    prompts = [sample.id for sample in SAMPLES[:PROMPTS]] * config.grpo.steps
    given: Any = Given(outputs, rewards)
    made = Trainer(config, TokenView(policy, SAMPLES), prompts, given)
    made.model.train()
    with torch.no_grad():
        torch.manual_seed(0)
        for weight in made.model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return made


def rows(made: Any) -> list[dict[str, Any]]:
    """The data set's rows of a generation, as the trainer is handed them."""
    return [{"prompt": sample.id} for sample in SAMPLES[:PROMPTS] for _ in range(made.num_generations)]


def update(made: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one update, summed over its micro-batches."""
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    total = 0.0
    for _ in range(made.args.gradient_accumulation_steps):
        loss = made.compute_loss(made.model, made._prepare_inputs(rows(made)))
        loss.backward()
        total += float(loss.detach())
        made._step += 1
    return total, {name: weight.grad for name, weight in made.model.named_parameters()}
