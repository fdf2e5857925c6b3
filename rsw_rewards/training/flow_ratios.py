"""How far a denoising step has moved from the one that sampled, and from the one that training started with."""

from __future__ import annotations

import torch
from torch import Tensor

from rsw_rewards.rl_settings import Divergence, Ratio
from rsw_rewards.rollouts.diffusion_steps import Step


def log_ratio(now: Step, old_log_prob: Tensor, old_mean: Tensor | None, value: Tensor, kind: Ratio) -> Tensor:
    """(n,) logarithm of the ratio of a step to the step that sampled it.

    Args:
        now: the step under the weights that are trained.
        old_log_prob: (n,) log-density of ``value`` under the weights that sampled.
        old_mean: (n, ...) mean of the step under those weights; only for ``guard``.
        value: (n, ...) what was sampled.
        kind: ``density`` is the difference of the log-densities, each a mean over elements (DDPO, Flow-GRPO, DanceGRPO). ``distance`` is
            that times twice the variance, the difference of squared distances to the mean alone (Flow-CPS, arXiv 2509.05952). ``guard``
            (GRPO-Guard, arXiv 2510.22319, RatioNorm) takes off its bias below 0 and divides by its spread, so that one range
            of ratios suits all noise levels: ``std (difference + (mean - old mean)^2 / 2 std^2)``, which is the mean of the sampled noise
            times the way that the mean has moved.
    """
    difference = now.log_prob(value) - old_log_prob
    if kind == "density":
        return difference
    if kind == "distance":
        return 2 * now.std**2 * difference
    assert old_mean is not None
    bias = (now.mean - old_mean).square().flatten(1).mean(1) / (2 * now.std**2)
    return now.std * (difference + bias)


def step_weight(step: Step, kind: Ratio) -> Tensor:
    """Scalar that a step's policy loss is weighted by: 1, or under ``guard`` one over the step's length, so that the gradients of all
    noise levels are of one size (GRPO-Guard's reweighting)."""
    if kind != "guard":
        return torch.ones((), device=step.std.device)
    assert step.length is not None
    return 1 / step.length


def divergence(now: Step, start: Step, kind: Divergence) -> Tensor:
    """(n,) how far a step is from that of the starting weights, a mean over elements.

    Args:
        now, start: the step under the weights that are trained and under those that training started with.
        kind: ``step`` is the exact KL divergence of the two normal distributions. ``flow_grpo`` is that times the step's length, as
            Flow-GRPO's code has it. ``velocity`` is the squared difference of what the networks predict (of a flow the velocity, of
            DDIM the noise), without the factor that the noise level gives it.
    """
    if kind == "velocity":
        return (now.predicted - start.predicted).square().flatten(1).mean(1)
    exact = now.kl(start)
    if kind == "step":
        return exact
    assert now.length is not None
    return exact * now.length
