"""``method: diffusion_supervised``: a diffusion forecaster learns from true futures, the start of reinforcement learning.

The loss is the one that these models are pretrained with: the denoiser's prediction at a random noise level, given the input picture
and the text of what is to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rsw_rewards.config import DiffusionSupervisedConfig
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.sources import load_source
from rsw_rewards.training.teaching import Backward, prepare, teach


def train(config: DiffusionSupervisedConfig, resume: bool = False, processes: Processes = ALONE) -> None:
    """Trains and writes the policy to ``config.out``. Deterministic on a CPU for a number of threads.

    Raises:
        ConfigError: the policy is no diffusion forecaster, or cannot be loaded.
        InputError: there is no forecast among the samples, or one without a true future.
    """
    policy = build_policy(config.policy)
    if not isinstance(policy, DiffusionForecaster):
        raise ConfigError(f"method 'diffusion_supervised' trains a 'diffusion_forecaster', not {policy.name!r}")
    samples = [sample for sample in load_source(config.train, config.seed, "train") if sample.task is Task.FORECAST]
    if not samples:
        raise InputError("train: there is no forecast among the samples")
    prepare(config, policy)
    teach(config, policy, samples, futures_taught(config, policy, samples, processes), (0.9, 0.99), resume, processes)


def futures_taught(
    config: DiffusionSupervisedConfig,
    policy: DiffusionForecaster,
    samples: Sequence[Sample],
    processes: Processes = ALONE,
) -> Backward:
    """What gives the gradients of a step: a policy (after ``setup``) is taught the true futures.

    Raises:
        InputError: in a step, a sample without a true future, or whose images cannot be used.
    """
    pipeline, batch, drop_text = policy.pipeline, config.batch, config.drop_text
    mine, _ = processes.own(np.arange(batch))

    def backward(rng: np.random.Generator) -> float:
        chosen = [samples[place] for place in rng.integers(0, len(samples), batch)[mine]]
        futures = np.stack([policy.resized(_future(sample)) for sample in chosen])
        clean, told = pipeline.encode(futures), policy.conditions(chosen)
        if drop_text:
            without = policy.pipeline.conditions(futures, [""] * len(mine))["text"]
            dropped = torch.from_numpy(rng.random((2, batch))[:, mine] < drop_text).to(pipeline.device)
            told["text"] = torch.where(dropped[0, :, None, None], without, told["text"])
            blank = dropped[1].reshape(-1, *[1] * (told["picture"].ndim - 1))
            told["picture"] = told["picture"].masked_fill(blank, 0.0)
        # Levels spread evenly over a batch: the loss then says less of which ones it happened to hold.
        level = (torch.from_numpy(mine) + float(rng.random())) / batch
        noise = torch.from_numpy(rng.standard_normal((batch, *clean.shape[1:]), np.float32)[mine])
        loss = pipeline.supervised_loss(clean, told, level.to(clean.device), noise.to(clean.device))
        loss = loss * (len(mine) / batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return backward


def _future(sample: Sample) -> Any:
    """The true picture of a sample, the last of a series. Raises :class:`InputError`."""
    if images := sample.reference.get("images"):
        return images[-1]
    raise InputError(f"sample {sample.id!r} has no true future to learn from")
