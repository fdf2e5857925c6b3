"""``method: grpo``: TRL's trainer with rollouts from the pool and rewards from the rubric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from rsw_rewards.config import RunConfig
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.settings import validated
from rsw_rewards.errors import ConfigError
from rsw_rewards.rl_settings import GrpoConfig
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.trained import CHECKPOINTS
from rsw_rewards.training.checkpoints import CompleteCheckpoint, engine_state
from rsw_rewards.training.experiment import Course, Setting, train_with_rewards, trainable_by_tokens
from rsw_rewards.training.learner import (
    RolloutFunction,
    following_rollouts,
    make_trainer,
    rollout_function,
)
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.schedule import prompt_order
from rsw_rewards.training.trainer_views import TokenView, Trainable, TrainerView, trainer_view
from rsw_rewards.training.trl_arguments import trl_arguments

if TYPE_CHECKING:
    from transformers import TrainerCallback


def train_grpo(config: RunConfig, resume: bool = False, processes: Processes = ALONE) -> Path:
    """Run a whole training, see :func:`rsw_rewards.training.experiment.train_with_rewards`."""
    config = config.model_copy(update={"grpo": _with_scale(config.grpo, config.rubric)})

    def learn(setting: Setting) -> Trainable:
        return _supervised_instead(config) if config.control == "supervised" else _learn(config, setting)

    return train_with_rewards(config, learn, lambda course: _follow(config, course), resume, processes)


def _learn(config: RunConfig, setting: Setting) -> Trainable:
    """The GRPO steps; returns the trained policy."""
    policy = trainable_by_tokens(config)
    log = setting.log(config)
    rollouts = setting.rollouts(config, log)
    view = trainer_view(policy, setting.samples)
    if config.grpo.refill and not isinstance(view, TokenView):
        raise ConfigError(
            "grpo.refill is for policies whose prompts are tokens alone: TRL takes the pictures of a prompt from its data set, before"
            " it is known which groups are replaced; leave it out"
        )
    try:
        if setting.checkpoint is not None:
            rollouts.load_state_dict(engine_state(setting.checkpoint))
            log.say(f"going on from step {setting.done} ({setting.checkpoint})")
        made = rollout_function(rollouts, view, config.grpo.group, setting.processes)
        _steps(config, setting, policy, view, made, [log, CompleteCheckpoint(rollouts.state_dict, setting.processes)])
        log.say(rollouts.clock.summary(config.grpo.steps - setting.done))
    finally:
        rollouts.close()
        log.close()
    return policy


def _follow(config: RunConfig, course: Course) -> None:
    """The GRPO steps in a process beside the first one."""
    policy = trainable_by_tokens(config)
    view = trainer_view(policy, course.samples)
    made = following_rollouts(view, course.processes)
    _steps(config, course, policy, view, made, [CompleteCheckpoint(dict, course.processes)])


def _steps(
    config: RunConfig,
    course: Course,
    policy: Trainable,
    view: TrainerView,
    rollouts: RolloutFunction,
    callbacks: Sequence[TrainerCallback],
) -> None:
    grpo = config.grpo
    trainer = make_trainer(
        policy,
        grpo,
        seed=config.seed,
        samples=course.samples,
        prompts=prompt_order(course.samples, -(-grpo.steps // grpo.boundary), course.share, config.seed),
        rollouts=rollouts,
        view=view,
        folder=config.out / CHECKPOINTS,
        save_every=config.checkpoints.every,
        keep=config.checkpoints.keep,
        callbacks=callbacks,
        off_policy=config.rollouts.off_policy,
        processes=course.processes.count,
    )
    trainer.train(resume_from_checkpoint=str(course.checkpoint) if course.checkpoint else None)


def _supervised_instead(config: RunConfig) -> Trainable:
    """The control: the same start, more supervised training; returns the policy that came of it."""
    from rsw_rewards.training.supervised import SupervisedConfig, train

    policy = build_policy(config.policy)
    start = getattr(policy, "path", None)
    if start is None or policy.name != "token_world_model":
        raise ConfigError("control 'supervised' goes on with a token world model; this policy is none")
    out = config.out / "supervised"
    given = {"start": str(start), "tokenizer": out, "seed": config.seed, **config.supervised, "out": out}
    train(validated(SupervisedConfig, given, "supervised"))
    trained = build_policy({"use": "token_world_model", "path": str(out)})
    trained.setup("cpu", torch.get_num_threads())
    return cast(Trainable, trained)


def _with_scale(grpo: GrpoConfig, rubric: Rubric) -> GrpoConfig:
    """The configuration with what advantages are divided by made explicit. Raises :class:`ConfigError` for what undoes the rubric."""
    each = rubric.combine == "normalize_each"
    twice = trl_arguments(grpo).get("multi_objective_aggregation") == "normalize_then_sum"
    if each and (grpo.scale_rewards == "group" or twice):
        key = "trl.multi_objective_aggregation" if twice else "scale_rewards"
        raise ConfigError(
            f"grpo.{key} is {'normalize_then_sum' if twice else 'group'!r}, which would undo the rubric's 'normalize_each', since it divides"
            f" by the spread of each group; set it to {'sum_then_normalize' if twice else 'batch'!r} or leave it out"
        )
    if twice and grpo.scale_rewards is not None:
        raise ConfigError(
            f"grpo.scale_rewards is {grpo.scale_rewards!r}, which has no effect under 'normalize_then_sum' (it divides by the spread of"
            " each group, then of the batch); leave it out"
        )
    return grpo.model_copy(update={"scale_rewards": grpo.scale_rewards or ("batch" if each else "group")})
