"""Losses, advantages and estimates of the KL divergence against OpenRLHF's, on padded batches at tame and at wild ratios."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rsw_rewards.training.ppo_math import (
    KlEstimator,
    gae,
    kl_estimate,
    policy_loss,
    sequence_weights,
    token_rewards,
    value_loss,
)
from tests.foreign import package

Import = Callable[[str], ModuleType]


@pytest.fixture
def openrlhf(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports a module of OpenRLHF without what its packages load for a GPU (DeepSpeed, FlashAttention, vLLM), which no formula uses."""
    root = Path(str(package("openrlhf").__file__)).parent
    for folder in ("models", "trainer/ray"):
        empty = ModuleType(f"openrlhf.{folder.replace('/', '.')}")
        empty.__path__ = [str(root / folder)]
        monkeypatch.setitem(sys.modules, empty.__name__, empty)
    for name in ("deepspeed", "openrlhf.trainer.ray.launcher"):
        monkeypatch.setitem(sys.modules, name, absent := ModuleType(name))
    vars(absent)["RayActorGroup"] = object
    return lambda name: import_module(f"openrlhf.{name}")


def batch(seed: int, spread: float) -> tuple[torch.Tensor, ...]:
    """(6, 8) mask, and four matrices whose padding is noise."""
    made = torch.Generator().manual_seed(seed)
    lengths = torch.cat([torch.randint(1, 9, (5,), generator=made), torch.tensor([8])])
    return torch.arange(8)[None] < lengths[:, None], *(
        spread * torch.randn((4, 6, 8), generator=made, dtype=torch.float64)
    )


def compared(ours: torch.Tensor, theirs: torch.Tensor, weight: torch.Tensor, tolerance: float) -> None:
    """Values, and gradients relative to the largest; weights of sequences are in float32."""
    found, expected = (torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (ours, theirs))
    largest = max(float(expected.abs().max()), 1e-12)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=tolerance, abs=1e-12)
    assert float((found - expected).abs().max()) / largest < tolerance


@pytest.mark.parametrize("spread", [0.3, 30.0])
@pytest.mark.parametrize("dual", [None, 3.0])
@pytest.mark.parametrize("by_token", [True, False])
def test_the_policy_loss(openrlhf: Import, spread: float, dual: float | None, by_token: bool) -> None:
    mask, now, old, noise, _ = batch(1, spread)
    now.requires_grad_()
    advantages = noise / spread
    loss = openrlhf("models.loss").PolicyLoss(0.2, 0.28, dual, token_level_loss=by_token)
    expected, *_ = loss(now, old, advantages, mask.double())
    weights = mask.double() / mask.sum() if by_token else sequence_weights(mask)
    found, _ = policy_loss(now, old, advantages, weights, 0.2, 0.28, dual)
    compared(found, expected, now, 1e-12 if by_token else 5e-7)


@pytest.mark.parametrize("epsilon", [None, 0.2])
def test_the_value_loss(openrlhf: Import, epsilon: float | None) -> None:
    mask, values, old, returns, _ = batch(2, 1.0)
    values.requires_grad_()
    expected = openrlhf("models.loss").ValueLoss(epsilon, token_level_loss=False)(values, old, returns, mask.double())
    found, _ = value_loss(values, old, returns, sequence_weights(mask), epsilon)
    compared(found, expected, values, 5e-7)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimates_of_the_kl_divergence(openrlhf: Import, estimator: KlEstimator) -> None:
    """Up to OpenRLHF's bounds: 10 for every estimate, of which ours has that of ``k3``."""
    _, now, reference, _, _ = batch(3, 3.0)
    expected = openrlhf("models.utils").compute_approx_kl(now, reference, kl_estimator=estimator)
    found = kl_estimate(now, reference, estimator)
    torch.testing.assert_close(found.clamp(-10, 10), expected.double(), rtol=1e-5, atol=1e-5)


def test_advantages_and_returns(openrlhf: Import) -> None:
    mask, values, kl, _, _ = batch(4, 1.0)
    rewards = values.new_tensor([0.0, 1.0, 0.25, 0.5, 1.0, 0.75])
    maker: Any = openrlhf("trainer.ppo_utils.experience_maker").RemoteExperienceMaker
    expected = openrlhf("models.utils").compute_reward(rewards, 0.1, kl * mask, mask)
    per_token = token_rewards(rewards, mask, kl, 0.1)
    torch.testing.assert_close(per_token, expected, rtol=0, atol=1e-15)
    wanted = maker.get_advantages_and_returns(None, values, expected, mask, 0.97, 0.9)
    for ours, theirs in zip(gae(per_token, values, mask, 0.97, 0.9), wanted, strict=True):
        torch.testing.assert_close(ours, theirs * mask, rtol=1e-14, atol=1e-14)
