"""Denoising steps: densities against torch.distributions, gradients against finite differences, marginals, a toy in closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch

from rsw_rewards.rollouts.diffusion_steps import (
    Step,
    cps_step,
    dance_step,
    ddim_step,
    flow_step,
)
from rsw_rewards.training.advantages import group_advantages
from rsw_rewards.training.ppo_math import policy_loss


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed * 1000 + row) for row in range(n)]


def double(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize("kind", ["ddim", "flow"])
def test_the_density_is_that_of_the_normal_distribution(kind: str) -> None:
    torch.manual_seed(0)
    latent, predicted = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    step = (
        ddim_step(latent, predicted, *double(0.3, 0.5))
        if kind == "ddim"
        else flow_step(latent, predicted, *double(0.8, 0.6))
    )
    value = step.sample(generators(3))
    expected = torch.distributions.Normal(step.mean, step.std).log_prob(value).flatten(1).mean(1)
    torch.testing.assert_close(step.log_prob(value), expected)


@pytest.mark.parametrize("kind", ["ddim", "flow"])
def test_gradients_of_the_loss_are_those_of_finite_differences(kind: str) -> None:
    torch.manual_seed(1)
    latent = torch.randn(4, 3, dtype=torch.float64)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.0, -0.5, 0.3, -0.8], dtype=torch.float64)

    def step(matrix: torch.Tensor) -> Step:
        predicted = latent @ matrix
        return (
            ddim_step(latent, predicted, *double(0.3, 0.5))
            if kind == "ddim"
            else flow_step(latent, predicted, *double(0.8, 0.6))
        )

    with torch.no_grad():
        value = step(weight).sample(generators(4))
        old = step(weight + 0.01).log_prob(value)
    assert torch.autograd.gradcheck(
        lambda matrix: policy_loss(step(matrix).log_prob(value), old, advantage, torch.full((4,), 0.25), 0.5)[0],
        (weight,),
    )


def test_a_row_is_drawn_the_same_whatever_stands_beside_it() -> None:
    step = Step(torch.zeros(4, 2, 3), torch.tensor(1.0), torch.zeros(()))
    alone = Step(torch.zeros(1, 2, 3), torch.tensor(1.0), torch.zeros(())).sample(generators(4)[2:3])
    torch.testing.assert_close(step.sample(generators(4))[2:3], alone)


def test_the_last_ddim_step_has_no_density() -> None:
    latent = torch.randn(2, 3)
    last = ddim_step(latent, torch.randn(2, 3), torch.tensor(0.9), torch.tensor(1.0))
    assert last.std == 0
    with pytest.raises(ValueError, match="no density"):
        last.log_prob(latent)


@pytest.mark.parametrize(
    "step_of",
    [
        partial(flow_step, noise_level=0.0),
        partial(flow_step, noise_level=0.7),
        partial(dance_step, eta=0.3),
    ],
)
def test_a_noisy_flow_keeps_the_distribution_of_the_plain_one(step_of: Callable[..., Step]) -> None:
    """Pictures from N(2, 0.5^2): the exact velocity is known, and every sampler must end there."""
    mean, std = 2.0, 0.5
    sigmas = torch.linspace(1.0, 0.02, 200, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)

    def velocity(latent: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance = (1 - sigma) ** 2 * std**2 + sigma**2
        centred = (latent - (1 - sigma) * mean) / variance
        return sigma * centred - (mean + (1 - sigma) * std**2 * centred)

    for now, after in pairwise(sigmas):
        step = step_of(latent, velocity(latent, now), now, after)
        latent = step.mean + step.std * torch.randn(latent.shape, generator=generator, dtype=torch.float64)
    end = float(sigmas[-1])
    assert latent.mean() == pytest.approx((1 - end) * mean, abs=0.03)
    assert latent.std() == pytest.approx(((1 - end) ** 2 * std**2 + end**2) ** 0.5, rel=0.04)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_coefficients_preserving_step_leaves_as_much_noise_as_its_level_says(eta: float) -> None:
    """Where picture and noise are told apart without error, a step of any length gives ``(1 - sigma) picture + sigma noise``."""
    generator = torch.Generator().manual_seed(0)
    picture, noise = 2.0, torch.randn(100_000, 1, generator=generator, dtype=torch.float64)
    now, after = double(0.9, 0.3)
    step = cps_step((1 - now) * picture + now * noise, noise - picture, now, after, eta)
    latent = step.mean + step.std * torch.randn(noise.shape, generator=generator, dtype=torch.float64)
    assert latent.mean() == pytest.approx(0.7 * picture, abs=0.005) and latent.std() == pytest.approx(0.3, rel=0.01)
    assert latent.std() < flow_step((1 - now) * picture + now * noise, noise - picture, now, after).std


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_keeps_the_distribution_whatever_its_noise(eta: float) -> None:
    mean, std = 1.0, 0.5
    alphas = torch.linspace(0.01, 1.0, 300, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(20_000, 1, generator=generator, dtype=torch.float64) + 0.1 * mean
    for now, after in pairwise(alphas):
        variance = now * std**2 + 1 - now
        noise = (1 - now).sqrt() * (latent - now.sqrt() * mean) / variance
        step = ddim_step(latent, noise, now, after, eta)
        latent = step.mean + step.std * torch.randn(latent.shape, generator=generator, dtype=torch.float64)
    assert latent.mean() == pytest.approx(mean, abs=0.03) and latent.std() == pytest.approx(std, rel=0.05)


def test_the_first_update_of_a_one_step_policy_is_the_analytic_policy_gradient() -> None:
    """One noisy step whose mean is the parameter, reward -(x - 3)^2: the gradient of its expectation is -2 (mean - 3)."""
    centre = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    std = torch.tensor(0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    value = centre.detach() + std * torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    reward = -((value[:, 0] - 3.0) ** 2)
    step = Step(centre.expand(len(value), 1), std, centre)
    weights = torch.full((len(value),), 1 / len(value), dtype=torch.float64)
    loss, clipped = policy_loss(
        step.log_prob(value), step.log_prob(value).detach(), reward - reward.mean(), weights, 0.2
    )
    (gradient,) = torch.autograd.grad(-loss, centre)
    assert float(gradient) == pytest.approx(6.0, rel=0.03) and clipped == 0


def test_repeated_updates_bring_the_policy_to_the_best_picture() -> None:
    centre = torch.zeros(1, requires_grad=True)
    std, optimizer = torch.tensor(0.3), torch.optim.Adam([centre], 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        value = centre.detach() + std * torch.randn(64, 1, generator=generator)
        advantage = group_advantages(-((value[:, 0] - 2.0) ** 2), torch.arange(64) // 16)
        step = Step(centre.expand(64, 1), std, centre)
        log_prob = step.log_prob(value)
        loss, _ = policy_loss(log_prob, log_prob.detach(), advantage, torch.full((64,), 1 / 64), 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(centre.detach()) == pytest.approx(2.0, abs=0.15)


def test_advantages_compare_within_a_prompt_and_ignore_what_has_no_reward() -> None:
    rewards = torch.tensor([1.0, 3.0, float("nan"), 10.0, 10.0])
    found = group_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]))
    assert found[2] == 0 and found[3] == found[4] == 0 and found[0] == -found[1] < 0
    assert torch.equal(group_advantages(torch.full((2,), float("nan")), torch.tensor([0, 0])), torch.zeros(2))
