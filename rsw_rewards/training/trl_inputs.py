"""What GRPO's trainer is given of a generation: its tokens, rewards and advantages as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rsw_rewards.config import RunConfig
from rsw_rewards.core.records import Output
from rsw_rewards.errors import ConfigError
from rsw_rewards.rl_settings import GrpoConfig
from rsw_rewards.training.advantages import grpo_advantages
from rsw_rewards.training.trainer_views import TrainerView


def generation_columns(
    view: TrainerView, outputs: Sequence[Output], given: Sequence[float | None], config: RunConfig
) -> dict[str, Any]:
    """What TRL's rollout function returns of outputs, a row each.

    Args:
        view: gives the tokens of outputs.
        outputs: whole groups, one after another.
        given: the reward of each, or None. Nothing of a row without one is learnt from: its tokens count in no mean and no KL term.
        config: the run.
    """
    found = view.tokens(outputs)
    rows = zip(found["env_mask"], given, strict=True)
    found["env_mask"] = [[0] * len(mask) if reward is None else mask for mask, reward in rows]
    # On-policy, the learner's own are those of the sampler.
    off_policy = config.rollouts.off_policy
    found["logprobs"] = sampled_logprobs(found["completion_ids"], outputs) if off_policy else None
    tasks = [str(view.samples[output.sample_id].task) for output in outputs]
    names = [output.sample_id for output in outputs]
    return found | {"collected": given, "advantage": advantages(given, tasks, config.grpo), "sample": names}


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


def sampled_logprobs(completions: Sequence[Sequence[int]], outputs: Sequence[Output]) -> list[list[float]]:
    """Log-probabilities that the tokens of each completion were sampled with; zeros before them, where a completion starts with
    what was not sampled, and for rollouts that were lost.

    Raises:
        ConfigError: the policy does not record them.
    """
    found = []
    for completion, output in zip(completions, outputs, strict=True):
        known = () if output.tokens is None else output.tokens.logprobs
        if output.tokens is not None and len(known) != len(output.tokens.completion_ids):
            raise ConfigError(
                "this policy does not record the probabilities of what it samples, so ratios cannot be to them; leave "
                "'rollouts.stale' and 'rollouts.engine' out"
            )
        found.append([0.0] * (len(completion) - len(known)) + list(known))
    return found
