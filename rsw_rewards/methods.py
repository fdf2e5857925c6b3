"""The methods of training: where the configuration model and the function of each are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Method(NamedTuple):
    """What ``method`` of a configuration names."""

    config: str
    """Where its configuration model is."""
    train: str
    """Where its function is, which takes the configuration. It also takes whether to go on and the learner processes, where
    runs of it can be taken up again."""
    rewarded: bool = False
    """Whether it learns from rewards. Its own settings, the number of steps among them, then stand in a section of its name."""
    makes: str | None = None
    """The policy that it makes without being given one."""


METHODS: Mapping[str, Method] = {
    "grpo": Method("rsw_rewards.config:RunConfig", "rsw_rewards.training.grpo:train_grpo", rewarded=True),
    "ppo": Method("rsw_rewards.config:PpoRunConfig", "rsw_rewards.training.ppo:train_ppo", rewarded=True),
    "flow_grpo": Method("rsw_rewards.config:FlowGrpoRunConfig", "rsw_rewards.training.diffusion:train", rewarded=True),
    "supervised": Method(
        "rsw_rewards.training.supervised:SupervisedConfig",
        "rsw_rewards.training.supervised:train",
        makes="token_world_model",
    ),
    "vlm_supervised": Method("rsw_rewards.config:VlmSupervisedConfig", "rsw_rewards.training.vlm_supervised:train"),
    "build_world_model": Method(
        "rsw_rewards.training.build_world_model:BuildWorldModelConfig",
        "rsw_rewards.training.build_world_model:train",
        makes="backbone_world_model",
    ),
    "diffusion_supervised": Method(
        "rsw_rewards.config:DiffusionSupervisedConfig", "rsw_rewards.training.diffusion_supervised:train"
    ),
    "tokenizer": Method("rsw_rewards.training.tokenizer:TokenizerConfig", "rsw_rewards.training.tokenizer:train"),
    "clip": Method("rsw_rewards.training.encoders:ClipConfig", "rsw_rewards.training.encoders:train_clip"),
    "detector": Method("rsw_rewards.training.encoders:DetectorConfig", "rsw_rewards.training.encoders:train_detector"),
}
"""Every training method."""


def key_of_steps(content: Mapping[str, Any]) -> str:
    """The key of the training steps in a configuration: methods that learn from rewards have a section of their own."""
    method = content.get("method", "grpo")
    return f"{method}.steps" if method in METHODS and METHODS[method].rewarded else "steps"
