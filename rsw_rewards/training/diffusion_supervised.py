"""``method: diffusion_supervised``: a diffusion forecaster learns from true futures, the start of reinforcement learning.

The loss is the one that these models are pretrained with: the denoiser's prediction at a random noise level, given the input picture
and the text of what is to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
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
from rsw_rewards.training.teaching import NO_CHECKPOINTS, Checkpoints, optimise, prepare, teach


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

    steps = partial(
        fit, policy, samples, config.steps, config.batch, config.learning_rate, config.warmup, config.seed,
        config.drop_text, processes=processes,
    )  # fmt: skip
    teach(config, policy, samples, steps, resume, processes=processes)


def fit(
    policy: DiffusionForecaster,
    samples: Sequence[Sample],
    steps: int,
    batch: int,
    learning_rate: float,
    warmup: int = 20,
    seed: int = 0,
    drop_text: float = 0.0,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    processes: Processes = ALONE,
) -> Iterator[float]:
    """Teach a policy (after ``setup``) the true futures; yields the loss of each step.

    Raises:
        InputError: a sample without a true future, or whose images cannot be used.
    """
    pipeline = policy.pipeline
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

    return optimise(
        policy, backward, steps=steps, learning_rate=learning_rate, warmup=warmup, betas=(0.9, 0.99), seed=seed,
        checkpoints=checkpoints, processes=processes,
    )  # fmt: skip


def _future(sample: Sample) -> Any:
    """The true picture of a sample, the last of a series. Raises :class:`InputError`."""
    if images := sample.reference.get("images"):
        return images[-1]
    raise InputError(f"sample {sample.id!r} has no true future to learn from")
