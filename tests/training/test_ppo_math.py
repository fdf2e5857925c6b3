"""PPO's mathematics: advantages against their definition, losses against finite differences, and a bandit in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.training.ppo_math import (
    gae,
    kl_estimate,
    policy_loss,
    sequence_weights,
    token_rewards,
    value_loss,
    whiten,
)

number = st.floats(-2, 2, width=32)


@pytest.fixture(autouse=True)
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mask_of(lengths: list[int], width: int | None = None) -> torch.Tensor:
    return torch.arange(width or max(lengths))[None] < torch.tensor(lengths)[:, None]


@st.composite
def episodes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    shape = (len(lengths), 7)
    rewards, values = (
        torch.tensor(draw(st.lists(number, min_size=7 * len(lengths), max_size=7 * len(lengths)))).reshape(shape)
        for _ in range(2)
    )
    return rewards, values, lengths


@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_the_sum_that_defines_them(
    episode: tuple[torch.Tensor, torch.Tensor, list[int]], gamma: float, lam: float
) -> None:
    rewards, values, lengths = episode
    mask = mask_of(lengths, 7)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        r, v = rewards[row].tolist(), [*values[row].tolist()[:length], 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, length))
            assert float(advantages[row, t]) == pytest.approx(expected, abs=1e-9)
            assert float(returns[row, t]) == pytest.approx(expected + v[t], abs=1e-9)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()


@given(episodes(), st.floats(0, 1))
def test_with_lambda_one_returns_are_discounted_rewards(
    episode: tuple[torch.Tensor, torch.Tensor, list[int]], gamma: float
) -> None:
    rewards, values, lengths = episode
    _, returns = gae(rewards, values, mask_of(lengths, 7), gamma, 1.0)
    for row, length in enumerate(lengths):
        expected = sum(gamma**k * float(rewards[row, k]) for k in range(length))
        assert float(returns[row, 0]) == pytest.approx(expected, abs=1e-9)


def test_advantages_of_three_tokens_computed_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.6]])
    advantages, _ = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.9, 0.8)
    # deltas 0.9 * 0.4 - 0.5, 0.9 * 0.6 - 0.4, 1 - 0.6; each sum takes 0.72 of the next
    assert advantages.tolist() == [pytest.approx([-0.14 + 0.72 * 0.428, 0.14 + 0.72 * 0.4, 0.4])]


def test_the_reward_comes_with_the_last_token_and_the_penalty_with_each() -> None:
    mask, kl = mask_of([1, 3]), torch.tensor([[0.5, 9.0, 9.0], [0.1, 0.2, 0.3]])
    assert token_rewards(torch.tensor([1.0, 2.0]), mask).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    found = token_rewards(torch.tensor([1.0, 2.0]), mask, kl, 0.1)
    torch.testing.assert_close(found, torch.tensor([[0.95, 0.0, 0.0], [-0.01, -0.02, 1.97]]))


@given(st.lists(st.integers(1, 80), min_size=1, max_size=8))
def test_a_short_answer_weighs_what_a_long_picture_weighs(lengths: list[int]) -> None:
    weights = sequence_weights(mask_of(lengths))
    torch.testing.assert_close(weights.sum(1), torch.full((len(lengths),), 1 / len(lengths)))
    assert (weights[~mask_of(lengths)] == 0).all()


@given(episodes())
def test_whitened_advantages_have_mean_zero_and_variance_one(
    episode: tuple[torch.Tensor, torch.Tensor, list[int]],
) -> None:
    values, _, lengths = episode
    mask = mask_of(lengths, 7)
    weights = sequence_weights(mask)
    found = whiten(values, weights)
    mean = (weights * values).sum()
    variance = (weights * (values - mean).square()).sum()
    assert float((weights * found).sum()) == pytest.approx(0, abs=1e-6)
    if variance > 1e-3:
        assert float((weights * found.square()).sum()) == pytest.approx(1, abs=1e-4)
    assert (found[~mask] == 0).all() and torch.isfinite(found).all()


def test_tasks_are_whitened_by_themselves() -> None:
    values = torch.tensor([[1.0], [3.0], [0.01], [0.03], [5.0]])
    found = whiten(values, torch.full((5, 1), 0.2), torch.tensor([0, 0, 1, 1, 2]))
    torch.testing.assert_close(found[:, 0], torch.tensor([-1.0, 1.0, -1.0, 1.0, 0.0]), atol=1e-3, rtol=0)


def made_losses() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Sixteen tokens whose ratios are below, inside and above the range, with advantages of both signs; none sits on an edge.
    return {name: torch.randn(4, 4, generator=generator) for name in ("log_p", "old", "advantages", "returns")}


@pytest.mark.parametrize("epsilon", [0.1, 0.2, 10.0])
def test_gradients_of_the_losses_are_those_of_finite_differences(epsilon: float) -> None:
    made = made_losses()
    weights = sequence_weights(mask_of([4, 2, 1, 3]))
    now = made["log_p"].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: policy_loss(x, made["old"], made["advantages"], weights, epsilon)[0], (now,)
    )
    for limit in (epsilon, None):
        assert torch.autograd.gradcheck(
            lambda x, e=limit: value_loss(x, made["old"], made["returns"], weights, e)[0], (now,)
        )


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected", "moves"),
    [
        (0.5, 1.0, -1.2, False),
        (-0.5, -1.0, 0.8, False),
        (0.5, -1.0, math.exp(0.5), True),
        (-0.5, 1.0, -math.exp(-0.5), True),
    ],
)
def test_a_ratio_is_only_clipped_where_going_further_would_pay(
    log_ratio: float, advantage: float, expected: float, moves: bool
) -> None:
    now = torch.tensor([[log_ratio]], requires_grad=True)
    one = torch.ones(1, 1)
    loss, clipped = policy_loss(now, torch.zeros(1, 1), advantage * one, one, 0.2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected) and bool(clipped) != moves
    assert now.grad is not None and bool(now.grad.abs().sum() > 0) == moves


def test_a_value_that_went_far_enough_gains_nothing_by_going_on() -> None:
    old, returns, one = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1)
    for value, expected, slope in ((0.1, 0.405, -0.9), (0.5, 0.32, 0.0), (-0.5, 1.125, -1.5)):
        now = torch.tensor([[value]], requires_grad=True)
        loss, _ = value_loss(now, old, returns, one, 0.2)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(expected)
        assert now.grad is not None and float(now.grad) == pytest.approx(slope)


near = st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3)  # where no estimate reaches its bound


@given(near, near)
def test_estimates_of_the_divergence_have_the_expectations_they_should(left: list[float], right: list[float]) -> None:
    log_p, log_q = (torch.log_softmax(torch.tensor(logits), 0) for logits in (left, right))
    p = log_p.exp()
    true = float((p * (log_p - log_q)).sum())
    for estimator in ("k1", "k3"):
        assert float((p * kl_estimate(log_p, log_q, estimator)).sum()) == pytest.approx(true, abs=1e-9)  # type: ignore[arg-type]
    assert (kl_estimate(log_p, log_q, "k3") >= -1e-12).all()
    k2 = float((p * kl_estimate(log_p, log_q, "k2")).sum())
    assert k2 == pytest.approx(float((p * (log_p - log_q) ** 2).sum()) / 2)


def test_what_a_policy_never_did_before_breaks_neither_loss_nor_estimate() -> None:
    """A token e^200 times as probable as it was, and as much less: everything stays finite and within its bound."""
    now = torch.tensor([[100.0, -100.0]], requires_grad=True)
    old, one = -now.detach(), torch.full((1, 2), 0.5)
    loss, _ = policy_loss(now, old, torch.tensor([[-1.0, 1.0]]), one, 0.2)
    assert float(loss.detach()) == pytest.approx(0.5 * math.exp(20))
    loss, clipped = policy_loss(now, old, torch.tensor([[-1.0, 1.0]]), one, 0.2, dual_clip=3.0)
    assert float(loss.detach()) == pytest.approx(1.5) and float(clipped) == 0.5
    assert kl_estimate(old, now.detach(), "k3").tolist() == [[10.0, 10.0]]


REWARDS = torch.tensor([0.1, 0.9, 0.4])


def drawn(logits: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
    p = torch.softmax(logits.detach(), 0).numpy()
    return torch.from_numpy(rng.choice(len(p), count, p=p / p.sum()))


def test_the_first_update_of_a_bandit_is_the_analytic_policy_gradient() -> None:
    """For a softmax over arms, d E[r] / d logit_k = p_k (r_k - E[r]). Arms come in exact proportion, so there is no noise."""
    logits = torch.tensor([0.5, 0.2, 0.3]).log().requires_grad_()
    arms = torch.tensor([0] * 5 + [1] * 2 + [2] * 3)
    mask = torch.ones(10, 1, dtype=torch.bool)
    for baseline in (0.0, 0.7):  # a value that does not depend on the arm changes nothing
        advantages, _ = gae(token_rewards(REWARDS[arms], mask), torch.full((10, 1), baseline), mask, 1.0, 0.95)
        log_p = torch.log_softmax(logits, 0)[arms][:, None]
        loss, _ = policy_loss(log_p, log_p.detach(), advantages, sequence_weights(mask), 0.2)
        (gradient,) = torch.autograd.grad(-loss, logits)
        p = torch.tensor([0.5, 0.2, 0.3])
        torch.testing.assert_close(gradient, p * (REWARDS - (p * REWARDS).sum()))


def test_a_bandit_comes_to_its_best_arm_and_its_critic_to_what_that_gives() -> None:
    logits, value = torch.zeros(3, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([logits, value], 0.05)
    rng, mask = np.random.default_rng(0), torch.ones(32, 1, dtype=torch.bool)
    weights = sequence_weights(mask)
    for _ in range(80):
        arms = drawn(logits, 32, rng)
        old, seen = torch.log_softmax(logits, 0)[arms][:, None].detach(), value.detach().expand(32)[:, None]
        advantages, returns = gae(token_rewards(REWARDS[arms], mask), seen, mask, 1.0, 0.95)
        advantages = whiten(advantages, weights)
        for _ in range(2):
            log_p = torch.log_softmax(logits, 0)[arms][:, None]
            actor, _ = policy_loss(log_p, old, advantages, weights, 0.2)
            critic, _ = value_loss(value.expand(32)[:, None], seen, returns, weights, 0.2)
            optimizer.zero_grad()
            (actor + critic).backward()
            optimizer.step()
    assert float(torch.softmax(logits, 0)[1]) > 0.95
    assert float(value.detach()) == pytest.approx(0.9, abs=0.1)
