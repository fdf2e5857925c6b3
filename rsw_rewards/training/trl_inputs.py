"""What GRPO's trainer is given: rollouts as its rollout function, advantages, and its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rsw_rewards.config import RunConfig
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rl_settings import GrpoConfig
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.advantages import grpo_advantages
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.trainer_views import TokenView, Trainable, TrainerView
from rsw_rewards.training.trl_arguments import trl_arguments
from rsw_rewards.training.trl_trainer import Trainer

RolloutFunction = Callable[[list[Any], GRPOTrainer], dict[str, Any]]


def rollout_function(
    collector: Collector, view: TrainerView, group: int, processes: Processes = ALONE
) -> RolloutFunction:
    """TRL's rollout function: prompts in, tokens and rewards out.

    Args:
        collector: makes and scores outputs.
        view: reads the prompts and gives the tokens of outputs.
        group: rollouts per prompt; every prompt comes that many times in a row.
        processes: this is the first of them, which makes and scores for all.
    """

    def make(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        weights = trained_weights(trainer.accelerator.unwrap_model(trainer.model))
        parts = processes.gather(view.ids(prompts))
        asked = [one for part in parts for one in part]
        ids = asked[::group]
        if asked != [one for one in ids for _ in range(group)] or len(set(ids)) < len(ids):
            raise RuntimeError("the trainer did not hand over whole groups of distinct prompts")
        outputs, given = collector.collect(ids, int(trainer.state.global_step), weights)
        found = view.tokens(outputs)
        masks = found.get("env_mask") or [[1] * len(completion) for completion in found["completion_ids"]]
        # Without a reward, nothing of a row is learnt from: its tokens count in no mean and no KL term.
        found["env_mask"] = [
            [0] * len(mask) if reward is None else mask for mask, reward in zip(masks, given, strict=True)
        ]
        if collector.config.rollouts.off_policy:
            found["logprobs"] = sampled_logprobs(found["completion_ids"], outputs)
        tasks = [str(collector.samples[output.sample_id].task) for output in outputs]
        found |= {"collected": given, "advantage": advantages(given, tasks, cast(RunConfig, collector.config).grpo)}
        found["sample"] = [output.sample_id for output in outputs]
        return processes.scatter(_divided(found, [len(part) for part in parts]))

    return make


def following_rollouts(view: TrainerView, processes: Processes) -> RolloutFunction:
    """TRL's rollout function of a process that has the first one make and score its rollouts."""

    def make(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        trained_weights(trainer.accelerator.unwrap_model(trainer.model))  # put together in all processes at once
        processes.gather(view.ids(prompts))
        return processes.scatter()

    return make


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


def _divided(columns: Mapping[str, Sequence[Any] | None], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Consecutive rows of ``columns``, ``lengths`` of them each. A column that is None stays so."""
    ends = list(accumulate(lengths))
    return [
        {key: None if column is None else column[end - length : end] for key, column in columns.items()}
        for end, length in zip(ends, lengths, strict=True)
    ]


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


def make_trainer(
    policy: Trainable,
    config: GrpoConfig,
    *,
    view: TrainerView | None = None,
    seed: int,
    samples: Sequence[Sample],
    prompts: Sequence[str],
    rollouts: RolloutFunction,
    folder: Path,
    save_every: int,
    keep: int | None,
    callbacks: Sequence[TrainerCallback],
    off_policy: bool = False,
    processes: Processes = ALONE,
) -> GRPOTrainer:
    """TRL's trainer over ``prompts`` (sample ids, in the order they are asked for).

    The data set holds the whole run in order, so that the trainer's position in it is all that a checkpoint must remember.
    ``off_policy`` says that rollouts bring log-probabilities, which ratios are to be to. An update's rows are divided equally among
    ``processes``.

    Raises:
        ConfigError: TRL does not take the settings, or the rows cannot be divided.
    """
    rows = config.rows_per_pass(processes.count)
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "max_steps": config.steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": config.rows // config.updates // (rows * processes.count),
        "generation_batch_size": config.rows,
        "num_generations": config.group,
        "num_iterations": config.iterations,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "adam_beta2": config.adam_beta2,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "epsilon": config.epsilon,
        "loss_type": config.loss_type,
        "temperature": config.temperature,
        "shuffle_dataset": False,
        "save_strategy": "steps" if save_every else "no",
        "save_steps": save_every or config.steps,
        "save_total_limit": keep,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": config.on_cpu,
        "dataloader_pin_memory": not config.on_cpu,
        "router_aux_loss_coef": 0.0,  # its loss is over all tokens, those of rows without a reward among them
        "bf16": False,
        "gradient_checkpointing": False,
        **trl_arguments(config),
    }
    if config.loss_type == "dr_grpo" and "max_completion_length" not in arguments:
        # Its losses are divided by the length that a completion may have, not by the one it has.
        arguments["max_completion_length"] = _longest(policy, samples)
    view = view or TokenView(policy)
    try:
        made = GRPOConfig(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"grpo: TRL does not take these settings: {' '.join(str(error).split())}") from error
    return Trainer(
        policy.model,
        made,
        view.dataset(prompts),
        view.processing_class,
        rollouts,
        callbacks=callbacks,
        beta=config.beta,
        off_policy=off_policy,
        shared_prefix=config.shared_prefix,
        processes=processes,
    )


def _longest(policy: Trainable, samples: Sequence[Sample]) -> int:
    """Most tokens that a completion of any of the tasks may have. Raises :class:`ConfigError` where the policy does not say."""
    if not hasattr(policy, "longest"):
        raise ConfigError(
            "grpo: dr_grpo divides by the length that a completion may have, which this policy does not say; give it a method"
            " longest(sample), or set grpo.trl.max_completion_length"
        )
    return max(policy.longest(sample) for sample in {sample.task: sample for sample in samples}.values())
