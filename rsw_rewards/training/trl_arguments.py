"""Every argument of TRL's ``GRPOConfig``: taken under ``grpo.trl``, set by the run, or refused with the reason why.

TRL 1.16 has 200 arguments. Many belong to what is done here by others than TRL: sampling, scoring, measuring, logging. An argument
that nothing would read is refused, so that no key of a configuration is without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt, Lt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from rsw_rewards.config import RunConfig
from rsw_rewards.errors import ConfigError, did_you_mean
from rsw_rewards.rl_settings import GrpoConfig
from rsw_rewards.rollouts.trained import CHECKPOINTS

if TYPE_CHECKING:
    from trl import GRPOConfig

    from rsw_rewards.training.trainer_views import TrainerView

CISPO_CAP = 5.0
"""Largest ratio that ``loss_type: cispo`` lets a token count by, where ``epsilon_high`` is left out (ScaleRL, arXiv 2510.13786)."""

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
"""Loss types that clip ratios between ``1 - epsilon`` and ``1 + epsilon_high``."""

Given = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Need:
    """What an argument needs to have an effect."""

    words: str
    met: Callable[[GrpoConfig, Given], bool]


def _loss(*types: str) -> Need:
    return Need(f"'loss_type' {' or '.join(types)}", lambda grpo, trl: grpo.loss_type in types)


_ADAPTIVE = Need("'use_adaptive_entropy: true'", lambda grpo, trl: bool(trl.get("use_adaptive_entropy")))
_SCHEDULE = Need("a 'schedule' other than constant", lambda grpo, trl: grpo.schedule != "constant")
_ADAM = Need("an Adam optimizer", lambda grpo, trl: "adam" in trl.get("optim", "adamw_torch_fused"))


@dataclass(frozen=True, slots=True)
class Taken:
    """An argument that ``grpo.trl`` may hold: the type of its value, and what it needs."""

    type: Any
    need: Need | None = None


_Share = Annotated[float, Gt(0), Field(le=1)]

TAKEN: Mapping[str, Taken] = {
    "epsilon_high": Taken(PositiveFloat, _loss(*CLIPPED, "cispo")),
    "delta": Taken(PositiveFloat, _loss(*CLIPPED)),
    "importance_sampling_level": Taken(Literal["token", "sequence"], _loss(*CLIPPED, "cispo", "sapo")),
    "max_completion_length": Taken(PositiveInt, _loss("dr_grpo")),
    "sapo_temperature_pos": Taken(PositiveFloat, _loss("sapo")),
    "sapo_temperature_neg": Taken(PositiveFloat, _loss("sapo")),
    "vespo_k_pos": Taken(NonNegativeFloat, _loss("vespo")),
    "vespo_k_neg": Taken(NonNegativeFloat, _loss("vespo")),
    "vespo_lambda_pos": Taken(NonNegativeFloat, _loss("vespo")),
    "vespo_lambda_neg": Taken(NonNegativeFloat, _loss("vespo")),
    "multi_objective_aggregation": Taken(Literal["sum_then_normalize", "normalize_then_sum"]),
    "mask_truncated_completions": Taken(bool),
    "off_policy_mask_threshold": Taken(PositiveFloat),
    "use_bias_correction_kl": Taken(bool, Need("'beta' above 0", lambda grpo, trl: grpo.beta > 0)),
    "top_entropy_quantile": Taken(_Share),
    "entropy_coef": Taken(NonNegativeFloat),
    "use_adaptive_entropy": Taken(bool),
    "entropy_coef_min": Taken(NonNegativeFloat, _ADAPTIVE),
    "entropy_coef_max": Taken(NonNegativeFloat, _ADAPTIVE),
    "entropy_coef_delta": Taken(PositiveFloat, _ADAPTIVE),
    "entropy_target": Taken(NonNegativeFloat, _ADAPTIVE),
    "warmup_steps": Taken(NonNegativeInt, _SCHEDULE),
    "lr_scheduler_kwargs": Taken(dict[str, Any], _SCHEDULE),
    "optim": Taken(str),
    "adam_beta1": Taken(Annotated[float, Field(ge=0), Lt(1)], _ADAM),
    "adam_epsilon": Taken(PositiveFloat, _ADAM),
    "bf16": Taken(bool),
    "gradient_checkpointing": Taken(bool),
}
"""What ``grpo.trl`` may hold."""

SET = frozenset({
    "output_dir", "seed", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "generation_batch_size",
    "steps_per_generation", "num_train_epochs", "num_generations", "num_iterations", "learning_rate", "lr_scheduler_type",
    "adam_beta2", "weight_decay", "max_grad_norm", "beta", "epsilon", "loss_type", "scale_rewards", "reward_weights",
    "temperature", "shuffle_dataset", "save_strategy", "save_steps", "save_total_limit", "logging_steps", "report_to",
    "disable_tqdm", "use_cpu", "dataloader_pin_memory", "router_aux_loss_coef",
})  # fmt: skip
"""What follows from other keys of a run's configuration."""

REFUSED: Mapping[str, frozenset[str]] = {
    "outputs are sampled by the policy, not by TRL; see 'policy' and 'rollouts'": frozenset({
        "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs", "cache_implementation",
        "num_generations_eval", "ds3_gather_for_generation", "pad_to_multiple_of", "max_tool_calling_iterations",
        "use_transformers_continuous_batching", "transformers_continuous_batching_config", "use_transformers_paged",
        "use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode", "vllm_structured_outputs_regex",
        "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port",
        "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size",
        "vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap",
    }),
    "the policy loads the model; see 'policy'": frozenset({"model_init_kwargs", "trust_remote_code"}),
    "the KL term is held against the starting weights, which a resumed run finds again": frozenset({
        "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps",
    }),
    "the sampler would not compute so, and tokens would be learnt from under another distribution than theirs": frozenset({
        "cast_lm_head_to_fp32", "disable_dropout", "neftune_noise_alpha", "fp16", "tf32", "torch_compile",
        "torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config", "label_smoothing_factor",
    }),
    "it has no effect on this trainer": frozenset({
        "activation_checkpointing", "activation_checkpointing_kwargs", "use_cache", "gradient_checkpointing_kwargs",
        "optim_args", "optim_target_modules", "torch_empty_cache_steps", "full_determinism", "label_names",
        "include_num_input_tokens_seen", "prediction_loss_only", "do_train", "do_predict", "average_tokens_across_devices",
        "auto_find_batch_size", "debug", "skip_memory_metrics",
    }),
    "prompts come in the order that the run lays down; see 'train' and 'seed'": frozenset({
        "data_seed", "dataloader_drop_last", "dataloader_num_workers", "dataloader_persistent_workers",
        "dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "remove_unused_columns",
        "train_sampling_strategy", "length_column_name",
    }),
    "held-out samples are measured by the run; see 'heldout' and 'measure'": frozenset({
        "do_eval", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_do_concat_batches",
        "eval_use_gather_object", "eval_accumulation_steps", "per_device_eval_batch_size", "include_for_metrics",
        "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval", "load_best_model_at_end", "metric_for_best_model",
        "greater_is_better",
    }),
    "the run writes its own log; see 'print_every', 'dump_every' and 'log'": frozenset({
        "logging_strategy", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node", "log_level",
        "log_level_replica", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
        "log_completions", "log_multimodal", "num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo",
    }),
    "nothing is sent to a hub": frozenset({
        "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision",
    }),
    "the run writes and finds its own checkpoints; see 'checkpoints' and --resume": frozenset({
        "save_only_model", "save_on_each_node", "enable_jit_checkpoint", "resume_from_checkpoint", "ignore_data_skip",
        "restore_callback_states_from_checkpoint",
    }),
    "learner processes are started by torchrun or accelerate, and 'grpo.fsdp' divides weights among them; see docs/scaling.md": frozenset({
        "local_rank", "accelerator_config", "parallelism_config", "fsdp", "fsdp_config", "deepspeed", "ddp_backend",
        "ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph",
    }),
}  # fmt: skip
"""What no run takes, by the reason."""


def trl_arguments(config: GrpoConfig) -> dict[str, Any]:
    """``grpo.trl`` as TRL's ``GRPOConfig`` takes it, without what is null.

    Raises:
        ConfigError: a key that is not taken or would have no effect, or a value that is not of its type.

    Example:
        >>> trl_arguments(GrpoConfig(loss_type="dapo", trl={"epsilon_high": "0.28"}))
        {'epsilon_high': 0.28}
    """
    found: dict[str, Any] = {}
    for key, value in config.trl.items():
        if key not in TAKEN:
            raise ConfigError(f"grpo.trl: {_why_not(key)}")
        if value is None:
            continue
        try:
            found[key] = TypeAdapter(TAKEN[key].type).validate_python(value)  # YAML reads 4e-4 as a text
        except ValidationError as error:
            raise ConfigError(f"grpo.trl: {key!r} is {value!r}: {error.errors()[0]['msg']}") from None
    for key in found:
        need = TAKEN[key].need
        if need is not None and not need.met(config, found):
            raise ConfigError(f"grpo.trl: {key!r} has no effect without {need.words}; leave it out")
    if config.loss_type not in CLIPPED and config.epsilon != GrpoConfig.model_fields["epsilon"].default:
        instead = "; it caps ratios by 'grpo.trl.epsilon_high'" if config.loss_type == "cispo" else ""
        raise ConfigError(f"grpo: 'epsilon' has no effect under 'loss_type' {config.loss_type}{instead}; leave it out")
    if config.loss_type == "cispo":
        found.setdefault("epsilon_high", CISPO_CAP)
    return found


def run_arguments(config: RunConfig, view: TrainerView, processes: int) -> GRPOConfig:
    """All arguments of a run, with what :data:`SET` names. An update's rows are divided equally among so many processes.

    Raises:
        ConfigError: TRL does not take the settings, or the rows cannot be divided.
    """
    from trl import GRPOConfig

    grpo, every = config.grpo, config.checkpoints.every
    rows = grpo.rows_per_pass(processes)
    arguments: dict[str, Any] = {
        "output_dir": str(config.out / CHECKPOINTS),
        "seed": config.seed,
        "max_steps": grpo.steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": grpo.rows // grpo.updates // (rows * processes),
        "generation_batch_size": grpo.rows,
        "num_generations": grpo.group,
        "num_iterations": grpo.iterations,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": grpo.schedule,
        "adam_beta2": grpo.adam_beta2,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.max_grad_norm,
        "epsilon": grpo.epsilon,
        "loss_type": grpo.loss_type,
        "temperature": grpo.temperature,
        "shuffle_dataset": False,
        "save_strategy": "steps" if every else "no",
        "save_steps": every or grpo.steps,
        "save_total_limit": config.checkpoints.keep,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": grpo.on_cpu,
        "dataloader_pin_memory": not grpo.on_cpu,
        "router_aux_loss_coef": 0.0,  # its loss is over all tokens, those of rows without a reward among them
        "bf16": False,
        "gradient_checkpointing": False,
        **trl_arguments(grpo),
    }
    if grpo.loss_type == "dr_grpo" and "max_completion_length" not in arguments:
        # Its losses are divided by the length that a completion may have, not by the one it has.
        arguments["max_completion_length"] = _longest(view)
    try:
        return GRPOConfig(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"grpo: TRL does not take these settings: {' '.join(str(error).split())}") from error


def _longest(view: TrainerView) -> int:
    """Most tokens that a completion of any of the tasks may have. Raises :class:`ConfigError` where the policy does not say."""
    if not hasattr(view.policy, "longest"):
        raise ConfigError(
            "grpo: dr_grpo divides by the length that a completion may have, which this policy does not say; give it a method"
            " longest(sample), or set grpo.trl.max_completion_length"
        )
    return max(view.policy.longest(sample) for sample in {one.task: one for one in view.samples.values()}.values())


def _why_not(key: str) -> str:
    if key in SET:
        return (
            f"{key!r} follows from other keys of the run ('grpo', 'rollouts', 'checkpoints', 'seed'); set those instead"
        )
    for reason, keys in REFUSED.items():
        if key in keys:
            return f"{key!r} is not taken: {reason}"
    from trl import GRPOConfig

    if key in {item.name for item in fields(GRPOConfig)}:
        return (
            f"{key!r} of the installed TRL is newer than this package, which does not know what it does; leave it out"
        )
    return f"TRL's GRPOConfig has no argument {key!r}; {did_you_mean(key, sorted(TAKEN))}"
