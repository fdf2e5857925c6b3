"""The loop of ``examples/grpo_loop.py``: its advantages and its loss, and a few steps of it."""

from __future__ import annotations

from pathlib import Path

import torch

from rsw_rewards.core.plugins import load_file
from rsw_rewards.training.advantages import group_advantages

FILE = Path(__file__).parents[2] / "examples/grpo_loop.py"
loop = load_file(FILE)


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(FILE.read_text().splitlines()) < 250


def test_advantages_are_those_of_the_full_path_and_none_without_spread_or_reward() -> None:
    rewards = torch.tensor([0.2, 0.9, 0.4, 0.7, 0.7, 0.7, torch.nan, 0.1, 0.3, torch.nan, torch.nan, 0.5])
    found = loop.advantages_of(rewards, 3)
    known = group_advantages(rewards.double(), torch.arange(12) // 3, "group", ddof=1)
    torch.testing.assert_close(found.double(), known, atol=1e-5, rtol=1e-5)
    assert (found[3:7] == 0).all() and (found[9:] == 0).all()


def test_the_loss_prefers_what_was_better_until_the_ratio_is_clipped() -> None:
    old = torch.full((2, 3), -1.0)
    sampled = torch.tensor([[True, True, False], [True, True, True]])
    advantages = torch.tensor([1.0, -1.0])
    for moved, clipped in ((0.0, False), (0.5, True)):
        log_probs = (old + moved * advantages[:, None]).requires_grad_()
        loop.grpo_loss(log_probs, old, sampled, advantages).backward()
        assert log_probs.grad is not None and log_probs.grad[0, 2] == 0
        # Minus the gradient of a mean over tokens, then over the two outputs.
        expected = torch.zeros(2, 3) if clipped else torch.tensor([[-0.25, -0.25, 0.0], [1 / 6, 1 / 6, 1 / 6]])
        torch.testing.assert_close(log_probs.grad, expected)


def test_a_few_steps_change_what_is_sampled_and_the_same_seed_repeats_them() -> None:
    kept = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        runs = [loop.train(steps=1, prompts=2, group=3, scenes_each=4, heldout=4, learning_rate=1e-2) for _ in range(2)]
    finally:
        torch.set_num_threads(kept)
    assert runs[0] == runs[1]
    before, after = runs[0]
    assert before.keys() == after.keys() == {"change_qa", "forecast"} and before != after
