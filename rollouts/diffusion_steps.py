"""One denoising step as a random choice with a density: what policy gradients need of a diffusion model.

A sampler without noise makes no choices, so that nothing can be said of how probable a picture was. The steps here add noise
and say where they would have gone without it. Those of DDIM, Flow-GRPO and DanceGRPO leave the distribution of the pictures as it is, where
steps are small; that of Flow-CPS leaves as much noise in a latent as its level says, however long the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsw_rewards.rl_settings import Divergence, Ratio

LARGEST_SIGMA = 0.999
"""Noise level above which the flow's noise is not raised any further; it would be infinite at 1."""


@dataclass(frozen=True, slots=True)
class Step:
    """A normal distribution over what follows a noisy latent."""

    mean: torch.Tensor
    """(n, ...) where the latent goes without noise."""
    std: torch.Tensor
    """Scalar; 0 for a step without choice, which has no density."""
    predicted: torch.Tensor
    """(n, ...) what the network said: the velocity of a flow, the noise of DDIM."""
    length: torch.Tensor | None = None
    """Scalar, above 0: the time that the step takes, from 1 (noise) to 0 (picture); None where there is no such time."""

    def sample(self, generator: Sequence[torch.Generator]) -> torch.Tensor:
        """(n, ...) draws, each row from a generator of its own, so that a row does not depend on the batch around it."""
        shape = self.mean.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=one, dtype=torch.float32) for one in generator])
        return self.mean + self.std * noise.to(self.mean)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """(n,) log-density of (n, ...) values, averaged over their elements: a ratio of two then does not depend on the size of a
        picture (as in DDPO and Flow-GRPO). Raises ``ValueError`` for a step without choice.
        """
        if not float(self.std) > 0:
            raise ValueError("a step without noise has no density; leave it out of the gradient")
        each = -((value - self.mean) ** 2) / (2 * self.std**2) - torch.log(self.std) - 0.5 * math.log(2 * math.pi)
        return each.flatten(1).mean(1)

    def kl(self, other: Step) -> torch.Tensor:
        """(n,) Kullback-Leibler divergence to a step of the same spread, averaged over elements."""
        return (((self.mean - other.mean) ** 2) / (2 * self.std**2)).flatten(1).mean(1)


def ddim_step(
    latent: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, alpha_next: torch.Tensor, eta: float = 1.0
) -> Step:
    """DDIM with noise (Song, Meng and Ermon 2021, equations 12 and 16), the step of DDPO (Black et al. 2023).

    Args:
        latent: (n, ...) at the present noise level.
        noise: (n, ...) predicted noise.
        alpha, alpha_next: scalars in (0, 1], the products of ``1 - beta`` up to now and up to the next, less noisy level.
        eta: 0 is deterministic, 1 as noisy as ancestral sampling.
    """
    clean = (latent - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    std = eta * variance.clamp(min=0.0).sqrt()
    mean = alpha_next.sqrt() * clean + (1 - alpha_next - std**2).clamp(min=0.0).sqrt() * noise
    return Step(mean, std, noise)


def flow_step(
    latent: torch.Tensor,
    velocity: torch.Tensor,
    sigma: torch.Tensor,
    sigma_next: torch.Tensor,
    noise_level: float = 0.7,
    largest: float = LARGEST_SIGMA,
) -> Step:
    """Euler-Maruyama step of the stochastic equation with the marginals of a rectified flow (Flow-GRPO, arXiv 2505.05470, eq. 9).

    Args:
        latent: (n, ...) at the noise level ``sigma``: ``(1 - sigma) picture + sigma noise``.
        velocity: (n, ...) predicted ``noise - picture``.
        sigma, sigma_next: scalars, 1 is pure noise; ``sigma_next < sigma``.
        noise_level: ``a`` of the paper: the spread is ``a sqrt(sigma / (1 - sigma))`` times the root of the step.
        largest: noise level above which the spread rises no further. Where few steps start at 1, give the second level (as
            Flow-GRPO does): next to 1 the spread is so large that one long step would throw the latent away.
    """
    dt = sigma_next - sigma
    spread = noise_level * (sigma / (1 - sigma.clamp(max=largest))).sqrt()
    pull = spread**2 / (2 * sigma)
    mean = latent * (1 + pull * dt) + velocity * (1 + pull * (1 - sigma)) * dt
    return Step(mean, spread * (-dt).sqrt(), velocity, -dt)


def dance_step(
    latent: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor, eta: float = 0.3
) -> Step:
    """The same equation with one spread at all noise levels (DanceGRPO, arXiv 2505.07818, equation 8).

    Args:
        latent, velocity, sigma, sigma_next: as in :func:`flow_step`.
        eta: the spread is ``eta`` times the root of the step.
    """
    dt = sigma_next - sigma
    clean = latent - sigma * velocity
    score = -(latent - (1 - sigma) * clean) / sigma**2
    mean = latent + velocity * dt - 0.5 * eta**2 * score * dt
    return Step(mean, eta * (-dt).sqrt(), velocity, -dt)


def cps_step(
    latent: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor, eta: float = 0.8
) -> Step:
    """The coefficients-preserving step (Flow-CPS, arXiv 2509.05952): DDIM's way of adding noise, for a flow.

    The noise in the next latent, ``sigma_next`` in all, is part what the network sees and part new. With few steps the picture is
    cleaner than that of :func:`flow_step`. With many it varies less than it should, since the share of new noise does not fall.

    Args:
        latent, velocity, sigma, sigma_next: as in :func:`flow_step`.
        eta: from 0, deterministic, to 1, where all noise is new: the new noise is ``sigma_next sin(eta pi / 2)``.
    """
    clean, noise = latent - sigma * velocity, latent + (1 - sigma) * velocity
    std = sigma_next * math.sin(eta * math.pi / 2)
    mean = (1 - sigma_next) * clean + sigma_next * math.cos(eta * math.pi / 2) * noise
    return Step(mean, std, velocity, sigma - sigma_next)


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
