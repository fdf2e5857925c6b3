"""Advantages against the other rollouts of a prompt, for GRPO and for denoising steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rsw_rewards.core.rewards import EPSILON, tied
from rsw_rewards.rl_settings import GrpoConfig

Scale = Literal["batch", "group", "task", "none"]
"""What advantages are divided by: the standard deviation of all rewards, of each prompt's, of each task's, or nothing."""


def group_advantages(
    rewards: Tensor, groups: Tensor, scale: Scale = "batch", tasks: Tensor | None = None, ddof: int = 0
) -> Tensor:
    """(n,) float64: rewards less the mean of their prompt, over a standard deviation plus :data:`EPSILON`.

    The standard deviation is that of the batch in Flow-GRPO, of the prompt in GRPO and DanceGRPO. With that of a task, every task has
    advantages of the same size, however many components its rewards are made of.

    A prompt whose rewards are equal up to rounding, see :func:`~rsw_rewards.core.rewards.tied`, has advantages of exactly 0.

    Args:
        rewards: (n,) float, NaN where an output has none; such rows have no say and no advantage.
        groups: (n,) int64 prompt numbers from 0.
        scale: what is divided by.
        tasks: (n,) int64 task numbers from 0, for the scale ``task``.
        ddof: 0 for standard deviations of the numbers at hand (Flow-GRPO), 1 for estimates (TRL).

    >>> group_advantages(torch.tensor([0.0, 1.0, 0.7, 0.7]), torch.tensor([0, 0, 1, 1]), "group")
    tensor([-0.9998,  0.9998,  0.0000,  0.0000], dtype=torch.float64)
    """
    known = torch.isfinite(rewards)
    value = rewards.double().where(known, 0.0)
    centred = (value - _means(value, known, groups)).where(known, 0.0)
    low, high = (
        torch.full((int(groups.max()) + 1,), start, dtype=value.dtype, device=value.device).scatter_reduce(
            0, groups[known], value[known], how
        )[groups]
        for start, how in ((torch.inf, "amin"), (-torch.inf, "amax"))
    )
    spread = known & ~tied(low, high)
    if scale != "none":
        together = {"batch": torch.zeros_like(groups), "group": groups, "task": tasks}[scale]
        if together is None:
            raise ValueError("the scale 'task' needs the tasks of the rows")
        squares = (value - _means(value, known, together)).square().where(known, 0.0)
        count = _sums(known.double(), together)
        centred = centred / ((_sums(squares, together) / (count - ddof).clamp(min=1)).sqrt() + EPSILON)
    return centred.where(spread, 0.0)


def grpo_advantages(
    rewards: Tensor, groups: Tensor, tasks: Tensor, scale: Scale | None = None, twice: bool = False
) -> Tensor:
    """(n,) float64: the advantages of GRPO as TRL has them, with standard deviations over n - 1.

    Args:
        rewards, groups, tasks: as for :func:`group_advantages`.
        scale: what is divided by; the spread of each prompt where None.
        twice: whether to divide by the spread of each prompt and then by that of the batch, TRL's ``normalize_then_sum``.
    """
    if not twice:
        return group_advantages(rewards, groups, scale or "group", tasks, ddof=1)
    within = group_advantages(rewards, groups, "group", ddof=1).where(rewards.isfinite(), torch.nan)
    return group_advantages(within, groups, "batch", ddof=1)


def advantages(given: Sequence[float | None], tasks: Sequence[str], config: GrpoConfig) -> list[float]:
    """The advantage of each row by the configuration's ``scale_rewards``, with standard deviations over n - 1; 0 without a reward.

    TRL's own are these in float32, in which equal rewards less their mean are not always 0.

    Args:
        given: rewards, ``config.group`` rows of a prompt after each other.
        tasks: of every row.
        config: the method's section.

    Example:
        >>> config = GrpoConfig(steps=1, group=2, learning_rate=1e-3, scale_rewards="task")
        >>> [round(one, 3) for one in advantages([0.0, 1.0, 0.0, 0.1], ["change_qa"] * 2 + ["forecast"] * 2, config)]
        [-0.707, 0.707, -0.706, 0.706]
    """
    rewards = torch.tensor([np.nan if reward is None else reward for reward in given], dtype=torch.float64)
    groups = torch.arange(len(given)) // config.group
    names = sorted(set(tasks))
    numbers = torch.tensor([names.index(task) for task in tasks])
    twice = config.trl.get("multi_objective_aggregation") == "normalize_then_sum"
    return grpo_advantages(rewards, groups, numbers, config.scale_rewards, twice).tolist()


def _sums(values: Tensor, groups: Tensor) -> Tensor:
    """(n,) the sum of every row's group."""
    return values.new_zeros(int(groups.max()) + 1).index_add_(0, groups, values)[groups]


def _means(values: Tensor, known: Tensor, groups: Tensor) -> Tensor:
    """(n,) the mean of every row's group over the rows that are ``known``; values elsewhere are 0."""
    return _sums(values, groups) / _sums(known.double(), groups).clamp(min=1)
