"""What must hold between policy, rubric and samples before a training starts."""

from __future__ import annotations

from collections.abc import Sequence

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.records import Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policy import Policy


def check_learnable(config: ExperimentConfig, policy: Policy, samples: Sequence[Sample]) -> None:
    """Raise :class:`ConfigError` for a run in which nothing, or not what was meant, could be learnt."""
    rubric = config.rubric
    if not any(component.weight > 0 for component in rubric.components):
        raise ConfigError("rubric: no component has a weight above 0, so there is no reward to learn from")
    if rubric.combine == "normalize_each" and config.generation.group == 1:
        raise ConfigError(
            "rubric: 'normalize_each' compares the rollouts of a prompt, and with a group of 1 every reward is 0; set 'group' to 2 or"
            " more, or 'combine' to weighted_sum"
        )
    if alien := sorted({str(sample.task) for sample in samples if sample.task not in policy.tasks}):
        raise ConfigError(
            f"train: there are samples of {alien[0]}, which the policy {policy.name!r} cannot do; leave the task out by the 'mix' of"
            f" the method's section (it does {', '.join(sorted(map(str, policy.tasks)))})"
        )


def check_apart(train: Sequence[Sample], heldout: Sequence[Sample]) -> None:
    """Raise :class:`ConfigError` where a scene is both trained on and held out."""
    if seen := {sample.scene for sample in train} & {sample.scene for sample in heldout}:
        raise ConfigError(
            f"{len(seen)} scenes, {min(seen)!r} among them, are in both 'train' and 'heldout': hold out other places"
        )
