"""A policy taught what is true, step by step, without the folder of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.config import DiffusionSupervisedConfig, VlmSupervisedConfig
from rsw_rewards.core.records import Sample
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster
from rsw_rewards.training.diffusion_supervised import futures_taught
from rsw_rewards.training.teaching import Checkpoints, optimise
from rsw_rewards.training.vlm_supervised import answers_taught


def fit(
    policy: Any, samples: Sequence[Sample], steps: int, batch: int, learning_rate: float, **more: Any
) -> Iterator[float]:
    """The losses of the steps of a stage with a policy that is set up."""
    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, **more}
    nothing: dict[str, Any] = {"out": "unused", "policy": "unused", "train": {"source": "unused"}}
    kept = Checkpoints(Path(), every=0, keep=None)
    if isinstance(policy, DiffusionForecaster):
        shown = DiffusionSupervisedConfig.model_validate(nothing | settings)
        return optimise(shown, policy, futures_taught(shown, policy, samples), (0.9, 0.99), kept)
    asked = VlmSupervisedConfig.model_validate(nothing | settings)
    return optimise(asked, policy, answers_taught(asked, policy, samples), (0.9, 0.98), kept)
