"""``method: grpo``: TRL's trainer with rollouts from the pool and rewards from the rubric."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from rsw_rewards.config import GrpoConfig, RunConfig, validated
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rubric import Rubric, parse_rubric
from rsw_rewards.training.checkpoints import CompleteCheckpoint, engine_state
from rsw_rewards.training.experiment import Setting, train_with_rewards, trainable
from rsw_rewards.training.learner import TokenView, Trainable, make_trainer, rollout_function, trainer_view
from rsw_rewards.training.schedule import prompt_order


def train_grpo(config: RunConfig, resume: bool = False) -> Path:
    """Run a whole training, see :func:`rsw_rewards.training.experiment.train_with_rewards`."""
    config = config.model_copy(update={"grpo": _with_scale(config.grpo, parse_rubric(config.rubric, "rubric"))})

    def learn(setting: Setting) -> Trainable:
        return _supervised_instead(config) if config.control == "supervised" else _learn(config, setting)

    return train_with_rewards(config, learn, resume)


def _learn(config: RunConfig, setting: Setting) -> Trainable:
    """The GRPO steps; returns the trained policy."""
    grpo = config.grpo
    policy = trainable(config)
    log = setting.log(config)
    rollouts = setting.rollouts(config, log, policy.eos_id)
    view = trainer_view(policy, setting.samples)
    if grpo.refill and not isinstance(view, TokenView):
        raise ConfigError(
            "grpo.refill is for policies whose prompts are tokens alone: TRL takes the pictures of a prompt from its data set, before"
            " it is known which groups are replaced; leave it out"
        )
    try:
        trainer = make_trainer(
            policy,
            grpo,
            seed=config.seed,
            prompts=prompt_order(setting.samples, -(-grpo.steps // grpo.boundary), setting.share, config.seed),
            rollouts=rollout_function(rollouts, view, grpo.group),
            view=view,
            folder=config.out / "checkpoints",
            save_every=config.checkpoints.every,
            keep=config.checkpoints.keep,
            callbacks=[log, CompleteCheckpoint(rollouts.state_dict)],
            off_policy=config.rollouts.off_policy,
        )
        if setting.checkpoint is not None:
            rollouts.load_state_dict(engine_state(setting.checkpoint))
            log.say(f"going on from step {setting.done} ({setting.checkpoint})")
        trainer.train(resume_from_checkpoint=str(setting.checkpoint) if setting.checkpoint else None)
        log.say(rollouts.clock.summary(grpo.steps - setting.done))
    finally:
        rollouts.close()
        log.close()
    return policy


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
    if rubric.combine == "normalize_each":
        if grpo.scale_rewards == "group":
            raise ConfigError(
                "grpo.scale_rewards is 'group', which would undo the rubric's 'normalize_each'; set it to 'batch' or leave it out"
            )
        return grpo.model_copy(update={"scale_rewards": grpo.scale_rewards or "batch"})
    return grpo.model_copy(update={"scale_rewards": grpo.scale_rewards or "group"})
