"""What the trainings of the small shipped models share: settings, the rate and the update of a step, and weights in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt

from rsw_rewards.core.settings import Strict


class SmallConfig(Strict):
    """What every configuration of a small model has."""

    out: Path
    seed: int = 0
    scenes: PositiveInt
    held_out: PositiveInt
    """Unseen scenes that the result is measured on."""
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: float
    log_every: PositiveInt = 100


def steps(
    config: SmallConfig, optimiser: torch.optim.Optimizer, rate: Callable[[int], float], first: int = 0
) -> Iterator[int]:
    """The numbers of the steps from ``first`` on, each under the learning rate times ``rate`` of its number."""
    for step in range(first, config.steps + first):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate(step)
        yield step


def update(model: torch.nn.Module, optimiser: torch.optim.Optimizer, loss: Any) -> None:
    """One step along the gradient of ``loss``, whose norm is cut at 1."""
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
