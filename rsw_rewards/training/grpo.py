"""``method: grpo``: TRL's trainer with rollouts from the pool and rewards from the rubric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback

from rsw_rewards.config import RunConfig
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.settings import validated
from rsw_rewards.errors import ConfigError
from rsw_rewards.rl_settings import GrpoConfig
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.trained import CHECKPOINTS
from rsw_rewards.training.checkpoints import CompleteCheckpoint
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.trainer_views import TokenView, Trainable, TrainerView, trainer_view
from rsw_rewards.training.training_run import TrainingRun, trainable_by_tokens
from rsw_rewards.training.trl_arguments import trl_arguments
from rsw_rewards.training.trl_inputs import (
    RolloutFunction,
    following_rollouts,
    make_trainer,
    rollout_function,
)


def train_grpo(config: RunConfig, resume: bool = False, processes: Processes = ALONE) -> Path:
    """Run a whole training, see :class:`TrainingRun`; returns the folder of the final policy."""
    config = config.model_copy(update={"grpo": _with_scale(config.grpo, config.rubric)})
    with TrainingRun(config, resume, processes) as run:
        policy = _supervised_instead(config, run) if config.control == "supervised" else _learn(config, run)
        return run.finish(policy)


def _learn(config: RunConfig, run: TrainingRun) -> Trainable:
    """The GRPO steps; returns the trained policy."""
    policy = trainable_by_tokens(run.policy)
    view = trainer_view(policy, run.samples)
    if config.grpo.refill and not isinstance(view, TokenView):
        raise ConfigError(
            "grpo.refill is for policies whose prompts are tokens alone: TRL takes the pictures of a prompt from its data set, before"
            " it is known which groups are replaced; leave it out"
        )
    if not run.processes.first:
        made = following_rollouts(view, run.processes)
        _steps(config, run, policy, view, made, [CompleteCheckpoint(dict, run.processes)])
        return policy
    with run.collector() as collector:
        made = rollout_function(collector, view, config.grpo.group, run.processes)
        callbacks = [collector.log, CompleteCheckpoint(collector.state_dict, run.processes)]
        _steps(config, run, policy, view, made, callbacks)
    return policy


def _steps(
    config: RunConfig,
    run: TrainingRun,
    policy: Trainable,
    view: TrainerView,
    made: RolloutFunction,
    callbacks: Sequence[TrainerCallback],
) -> None:
    trainer = make_trainer(
        policy,
        config.grpo,
        seed=config.seed,
        samples=run.samples,
        prompts=run.prompts,
        rollouts=made,
        view=view,
        folder=config.out / CHECKPOINTS,
        save_every=config.checkpoints.every,
        keep=config.checkpoints.keep,
        callbacks=callbacks,
        off_policy=config.rollouts.off_policy,
        processes=run.processes,
    )
    trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)


def _supervised_instead(config: RunConfig, run: TrainingRun) -> Trainable:
    """The control: the same start, more supervised training; returns the policy that came of it."""
    from rsw_rewards.training.supervised import SupervisedConfig, train

    start = getattr(run.policy, "path", None)
    if start is None or run.policy.name != "token_world_model":
        raise ConfigError("control 'supervised' goes on with a token world model; this policy is none")
    out = config.out / "supervised"
    given = {"start": str(start), "tokenizer": out, "seed": config.seed, **config.supervised, "out": out}
    train(validated(SupervisedConfig, given, "supervised"))
    trained = build_policy({"use": "token_world_model", "path": str(out)})
    return trainable_by_tokens(trained)


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
