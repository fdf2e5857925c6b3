"""The mathematics of PPO as pure functions: advantages, whitening, clipped losses, estimates of the KL divergence.

Rows are sequences, columns the tokens of their completions; ``mask`` is true where there is a token. A row's tokens stand
together from its first column on. ``weights`` say how much each token counts and add up to 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsw_rewards.core.rewards import tied

KlEstimator = Literal["k1", "k2", "k3"]

LARGEST_LOG_RATIO = 20.0
"""Differences of log-probabilities beyond it are cut, so that no ratio overflows. verl has the same bound."""
LARGEST_K3 = 10.0
"""The most that the estimate ``k3`` says of one token, as in verl."""


def sequence_weights(mask: Tensor) -> Tensor:
    """(n, t) weights under which every sequence counts the same, whatever its length, and every token of it the same.

    The mean over tokens would give a short answer beside a long picture next to nothing: 4 % for 3 tokens beside 64.
    """
    mask = mask.to(torch.get_default_dtype())
    per_row = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return per_row / per_row.sum().clamp(min=1)


def token_rewards(rewards: Tensor, mask: Tensor, kl: Tensor | None = None, beta: float = 0.0) -> Tensor:
    """(n, t) rewards: that of the sequence at its last token, and at every token ``-beta * kl``.

    Args:
        rewards: (n,) reward of each sequence.
        mask: (n, t) bool; at least one token a row.
        kl: (n, t) estimated KL divergence from the reference at each token.
    """
    per_token = torch.zeros(mask.shape, dtype=rewards.dtype, device=rewards.device)
    if kl is not None:
        per_token = -beta * kl.to(rewards.dtype) * mask
    last = mask.sum(1, keepdim=True) - 1
    return per_token.scatter_add(1, last, rewards[:, None])


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, after: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv:1506.02438, equation 16).

    ``delta_t = r_t + gamma * V_{t+1} - V_t`` and ``A_t = sum_k (gamma * lam)^k delta_{t+k}``.

    Args:
        rewards, values: (n, t); ``values[:, k]`` is that of the state in which token k is chosen.
        mask: (n, t) bool; at least one token a row.
        after: (n,) value of the state after the last token: 0 for a sequence that ended, the critic's for one that was cut off and
            would have gone on (arXiv:1712.00378). All 0 where left out.

    Returns:
        Advantages and returns (advantage plus value, what the critic learns), (n, t), 0 where there is no token.
    """
    held = mask.to(values.dtype)
    values, rewards = values * held, rewards * held
    following_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    if after is not None:
        following_values = following_values.scatter(1, mask.sum(1, keepdim=True) - 1, after[:, None].to(values.dtype))
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    for step in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, step] + gamma * following_values[:, step] - values[:, step]
        following = (delta + gamma * lam * following) * held[:, step]
        advantages[:, step] = following
    return advantages, (advantages + values) * held


def whiten(values: Tensor, weights: Tensor, groups: Tensor | None = None, eps: float = 1e-8) -> Tensor:
    """``values`` with weighted mean 0 and weighted variance 1; 0 where the weight is 0, and where all values are
    equal up to rounding, see :func:`~rsw_rewards.core.rewards.tied`.

    Args:
        values, weights: (n, t).
        groups: (n,) int; rows of each group are whitened by themselves.
    """
    if groups is None:
        groups = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    out = torch.zeros_like(values)
    for group in groups.unique():
        weight = weights.double() * (groups == group)[:, None]
        here = values[weight > 0]
        if not len(here) or tied(here.min(), here.max()):
            continue
        weight = weight / weight.sum()
        centred = values.double() - (weight * values).sum()
        variance = (weight * centred.square()).sum()
        out = torch.where(weight > 0, (centred / (variance + eps).sqrt()).to(values.dtype), out)
    return out


def policy_loss(
    log_p: Tensor,
    old: Tensor,
    advantages: Tensor,
    weights: Tensor,
    epsilon: float,
    epsilon_high: float | None = None,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (arXiv:1707.06347, equation 7) as a loss, and the weighted share of tokens that are clipped.

    Args:
        log_p: (n, t) log-probabilities of the tokens under the policy that is trained; or (n,) of one choice of each row.
        old: the same under the policy that sampled them.
        advantages, weights: as ``log_p``.
        epsilon: how far below 1 a ratio counts, and above 1 as well where ``epsilon_high`` is left out.
        epsilon_high: how far above 1 (DAPO's clip-higher, arXiv:2503.14476).
        dual_clip: bound, over 1, of the ratio where the advantage is negative (dual clip, arXiv:1912.09729): a token that became far
            more probable than it was would otherwise outweigh all others.
    """
    ratio = (log_p - old).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    plain = ratio * advantages
    clipped = ratio.clamp(1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high)) * advantages
    gain, cut = torch.minimum(plain, clipped), clipped < plain
    if dual_clip is not None:
        least = torch.where(advantages < 0, dual_clip * advantages, -torch.inf)
        gain, cut = torch.maximum(gain, least), cut | (gain < least)
    return -(weights * gain).sum(), (weights * cut).sum()


def value_loss(
    values: Tensor, old: Tensor, returns: Tensor, weights: Tensor, epsilon: float | None
) -> tuple[Tensor, Tensor]:
    """Half the squared error of the critic, and the weighted share of tokens that are clipped.

    A value that leaves the one at generation by more than ``epsilon`` is held against the worse of itself and the clipped one, so
    that it gains nothing by going further in one generation.
    """
    error = (values - returns).square()
    if epsilon is None:
        return 0.5 * (weights * error).sum(), torch.zeros((), device=values.device)
    clipped = (old + (values - old).clamp(-epsilon, epsilon) - returns).square()
    return 0.5 * (weights * torch.maximum(error, clipped)).sum(), (weights * (clipped > error)).sum()


def kl_estimate(log_p: Tensor, reference: Tensor, estimator: KlEstimator) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens of the policy (J. Schulman, "Approximating KL divergence", 2020).

    ``k1 = log p - log q`` is unbiased and may be negative, ``k2 = k1^2 / 2`` is biased and of low variance,
    ``k3 = q/p - 1 - log(q/p)`` is unbiased and never negative. As in verl, it is cut at :data:`LARGEST_K3`: a token that the reference
    finds far more probable, about e^2.6 times, says no more than that. TRL's estimate is not cut.
    """
    difference = log_p - reference
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    difference = difference.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return (torch.expm1(-difference) + difference).clamp(max=LARGEST_K3)
