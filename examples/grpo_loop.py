"""GRPO in one file: the small world model learns change questions and forecasts by ``rsw.Reward`` alone.

python examples/grpo_loop.py --steps 60

Everything that ``rsw train configs/quickstart.yaml`` adds is left out here: actors, scoring beside sampling, checkpoints, statistics.
What is left is GRPO itself (arXiv 2402.03300): sample a group per prompt, score it, compare within the group, and make tokens of
better outputs more probable. About three minutes of processor time for 60 steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rsw_rewards as rsw
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import request_seed

RUBRIC = {"exact_match": 0.9, "answer_format": 0.1, "gain_over_copy": 1.0}
"""The first two are of questions and the third of forecasts, so every output has a reward between 0 and 1."""
TASKS = ("change_qa", "forecast")


def scenes(split: str, count: int) -> dict[str, list[rsw.Sample]]:
    """``count`` samples of each task. The scenes of the splits ``rl`` and ``test`` have none in common."""
    return {task: scene_world_samples(count, 0, split=split, tasks=(task,)) for task in TASKS}


def sample_outputs(
    policy: Any, samples: Sequence[rsw.Sample], group: int, seed: int, step: int, temperature: float = 1.0
) -> list[rsw.Output]:
    """``group`` outputs for each sample, those of a sample together. Each has a seed of its own."""
    return list(
        policy.generate([
            rsw.Request(sample, candidate, request_seed(seed, step, sample.id, candidate), temperature)
            for sample in samples
            for candidate in range(group)
        ])
    )  # fmt: skip


def rewards_of(reward: rsw.Reward, outputs: Sequence[rsw.Output], samples: Sequence[rsw.Sample]) -> Tensor:
    """(n,) the reward of each output; NaN where a verifier failed, which gives no gradient."""
    group = len(outputs) // len(samples)
    results = reward.many(outputs, [sample for sample in samples for _ in range(group)])
    return torch.tensor([np.nan if result.reward is None else result.reward for result in results])


def advantages_of(rewards: Tensor, group: int) -> Tensor:
    """(n,) how much better each output is than the mean of its group, in standard deviations; 0 where it has no reward.

    Args:
        rewards: (n,) float, the ``group`` outputs of a prompt after each other.

    >>> advantages_of(torch.tensor([1.0, 0.0, 0.5, 0.5]), 2).tolist()
    [0.707..., -0.707..., 0.0, 0.0]
    """
    by_prompt = rewards.view(-1, group)
    known = by_prompt.isfinite()
    count = known.sum(1, keepdim=True)
    centred = (by_prompt - by_prompt.nanmean(1, keepdim=True)).where(known, 0.0)
    spread = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    # A group without spread prefers nothing. What rounding leaves of equal rewards must not be divided by itself.
    return (centred / (spread + 1e-4)).where(spread > 1e-6, 0.0).flatten()


def log_probabilities(policy: Any, outputs: Sequence[rsw.Output]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the sampled tokens under the present weights.

    Returns:
        (n, length) float32 log-probabilities and (n, length) bool, True at sampled tokens. Elsewhere both are 0.
    """
    traces = [(output.tokens.prompt_ids, output.tokens.completion_ids) for output in outputs]
    width = max(len(prompt) + len(completion) for prompt, completion in traces)
    ids = torch.full((len(traces), width), policy.pad_id)
    sampled = torch.zeros(len(traces), width, dtype=torch.bool)
    there = torch.zeros(len(traces), width, dtype=torch.int64)
    for row, (prompt, completion) in enumerate(traces):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        sampled[row, len(prompt) : end] = True
        there[row, :end] = 1
    # The logits at a position are of the token after it. The model masks those of impossible tokens itself, as it does in sampling.
    logits = policy.model(input_ids=ids, attention_mask=there, use_cache=False).logits[:, :-1].float()
    chosen = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
    return chosen.where(sampled[:, 1:], 0.0), sampled[:, 1:]


def grpo_loss(log_probs: Tensor, old: Tensor, sampled: Tensor, advantages: Tensor, epsilon: float = 0.2) -> Tensor:
    """The clipped loss of PPO with one advantage per output: a mean over tokens, then over outputs.

    Args:
        log_probs: (n, length) under the weights that are trained.
        old: (n, length) under the weights that sampled.
        sampled: (n, length) bool, the tokens that count.
        advantages: (n,) float.
        epsilon: how far a ratio of probabilities may leave 1 before it earns nothing more.
    """
    ratio = (log_probs - old).exp()
    gain = advantages[:, None]
    per_token = -torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    # A mean per output, so that an answer of two tokens weighs as much as a forecast of 64.
    return ((per_token * sampled).sum(1) / sampled.sum(1).clamp(min=1)).mean()


def learn(
    policy: Any,
    optimizer: torch.optim.Optimizer,
    outputs: Sequence[rsw.Output],
    advantages: Tensor,
    updates: int,
) -> None:
    """Learn from one generation: ``updates`` optimizer steps, each on all outputs that teach something.

    Outputs without an advantage have no gradient, and are left out to save time. The loss is divided by all of them nevertheless.
    """
    useful = [row for row, output in enumerate(outputs) if advantages[row] != 0 and output.tokens is not None]
    if not useful:
        return
    # Task by task, because answers beside forecasts would be padded to forty times their length.
    parts: dict[int, list[int]] = {}
    for row in useful:
        parts.setdefault(len(outputs[row].tokens.completion_ids) > 8, []).append(row)
    old = {}
    with torch.no_grad():
        for key, rows in parts.items():
            old[key], _ = log_probabilities(policy, [outputs[row] for row in rows])
    for _ in range(updates):
        optimizer.zero_grad()
        for key, rows in parts.items():
            log_probs, sampled = log_probabilities(policy, [outputs[row] for row in rows])
            loss = grpo_loss(log_probs, old[key], sampled, advantages[rows]) * len(rows) / len(outputs)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()


def heldout_rewards(
    policy: Any, reward: rsw.Reward, samples: dict[str, list[rsw.Sample]], group: int
) -> dict[str, float]:
    """The mean reward of each task over ``group`` outputs per sample, sampled as in training."""
    found = {}
    for task, asked in samples.items():
        outputs = sample_outputs(policy, asked, group, seed=1, step=-1)
        found[task] = float(rewards_of(reward, outputs, asked).nanmean())
    return found


def train(
    steps: int = 60,
    prompts: int = 8,
    group: int = 8,
    updates: int = 1,
    learning_rate: float = 3e-4,
    scenes_each: int = 500,
    heldout: int = 200,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, float]]:
    """Train the shipped world model; returns the mean held-out reward of each task before and after.

    Args:
        steps: generations.
        prompts: prompts per generation, half of each task.
        group: outputs per prompt, which are compared with each other.
        updates: optimizer steps per generation.
        learning_rate: of AdamW.
        scenes_each: samples of each task to train on.
        heldout: held-out samples of each task.
        seed: of prompts and outputs. The same seed gives the same run on one machine.
    """
    torch.manual_seed(seed)
    policy: Any = build_policy("token_world_model")
    policy.setup("cpu", torch.get_num_threads())
    optimizer = torch.optim.AdamW(policy.model.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    training, unseen = scenes("rl", scenes_each), scenes("test", heldout)
    with rsw.Reward(RUBRIC) as reward:
        before = heldout_rewards(policy, reward, unseen, group=4)
        print(f"held-out reward before training: {told(before)}", flush=True)
        for step in range(steps):
            rng = np.random.default_rng([seed, step])
            samples = [
                training[task][place]
                for task in TASKS
                for place in rng.choice(len(training[task]), prompts // 2, replace=False)
            ]
            outputs = sample_outputs(policy, samples, group, seed, step)
            rewards = rewards_of(reward, outputs, samples)
            learn(policy, optimizer, outputs, advantages_of(rewards, group), updates)
            if (step + 1) % 10 == 0:
                half = len(rewards) // 2
                means = dict(
                    zip(TASKS, (float(rewards[:half].nanmean()), float(rewards[half:].nanmean())), strict=True)
                )
                print(f"step {step + 1}: reward {told(means)}", flush=True)
        after = heldout_rewards(policy, reward, unseen, group=4)
    print(f"held-out reward after {steps} steps: {told(after)}", flush=True)
    return before, after


def told(means: dict[str, float]) -> str:
    """Mean rewards by task, in words."""
    return ", ".join(f"{task} {mean:.3f}" for task, mean in means.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    train(steps=asked.steps, seed=asked.seed)


if __name__ == "__main__":
    main()
