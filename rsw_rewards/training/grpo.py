"""``method: grpo``: TRL's trainer with rollouts from the pool and rewards from the rubric."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerCallback

from rsw_rewards.config import RunConfig
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.settings import validated
from rsw_rewards.errors import ConfigError
from rsw_rewards.rl_settings import GrpoConfig
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.training.checkpoints import CompleteCheckpoint
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.trainer_views import TokenView, Trainable, trainer_view
from rsw_rewards.training.training_run import TrainingRun, trainable_by_tokens
from rsw_rewards.training.trl_arguments import trl_arguments
from rsw_rewards.training.trl_trainer import Trainer


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
    with run.collector() as collector:
        callbacks: list[TrainerCallback] = [CompleteCheckpoint(collector, run.processes)]
        if collector is not None:
            callbacks.append(collector.log)  # writes the row of a step
        trainer = Trainer(config, view, run.prompts, collector, callbacks, run.processes)
        trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    return policy


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
