"""All that is bent of TRL: one subclass of its ``GRPOTrainer``, read against TRL 1.16.0 (:data:`READ_AGAINST`).

It leans on what TRL keeps to itself. ``constraints.txt`` pins that version, and ``tests/training/test_trl_version.py`` says what is
to be read again where the installed one differs. Importing this imports TRL.
"""

from __future__ import annotations

import logging
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from rsw_rewards.config import RunConfig
from rsw_rewards.rollouts.trained import checkpoint_weights, read_state
from rsw_rewards.rollouts.weights import base_model, has_adapters, trained_weights, whole
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.kept_weights import StartingModel, StartingWeights
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.sharding import load_optimizer, shard
from rsw_rewards.training.shared_prefix import UNSCORED, Images, inputs_of, pack, why_not
from rsw_rewards.training.trainer_views import TrainerView, generation_columns
from rsw_rewards.training.trl_arguments import run_arguments

_log = logging.getLogger("rsw_rewards")

READ_AGAINST = "1.16.0"
"""The version of TRL whose source this file was written beside."""

LEANS_ON = (
    "trl.trainer.grpo_trainer:GRPOTrainer.__init__",
    "trl.trainer.grpo_trainer:GRPOTrainer._prepare_inputs",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate_single_turn",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate_and_score_completions",
    "trl.trainer.grpo_trainer:GRPOTrainer._calculate_rewards",
    "trl.trainer.grpo_trainer:GRPOTrainer._get_per_token_logps_and_entropies",
    "trl.trainer.grpo_trainer:GRPOTrainer._compute_loss",
    "trl.trainer.grpo_trainer:add_fused_lm_head",
    "trl.trainer.grpo_trainer:shuffle_sequence_dict",
    "transformers.training_args:TrainingArguments._setup_devices.func",
    "transformers.trainer:Trainer._prepare_for_training",
    "transformers.trainer:Trainer._save_checkpoint",
    "transformers.trainer:Trainer._save_optimizer_and_scheduler",
    "transformers.trainer:Trainer._load_from_checkpoint",
    "transformers.trainer:Trainer._load_optimizer_and_scheduler",
    "transformers.trainer:Trainer.save_model",
)
"""What of TRL, and of transformers below it, is overridden here, or relied on in what it reads and calls."""

_IMPOSSIBLE = -1e4
"""Log-probability that stands for minus infinity: its differences and gradients are zero instead of not a number."""


_MEAN_OF_ROWS = ("grpo", "sapo", "luspo", "dr_grpo")
"""Loss types that divide by the rows of a micro-batch."""
_SHARE_OF_TOKENS = ("dapo", "cispo", "vespo")
"""Loss types that divide by a share of the generation's tokens, from which the rollout function leaves tokens without a reward out."""


@dataclass(slots=True)
class _Scored:
    """What TRL reads of a forward pass. A data class, in which data-parallel training finds the tensors that gradients come from."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    aux_loss: None = None


def score_through_forward(model: PreTrainedModel, temperature: float, learn_entropy: bool = False) -> None:
    """Make the trainer take log-probabilities and entropies from the model's own ``forward``.

    TRL multiplies hidden states with the output matrix itself, past whatever mask ``forward`` lays on its logits. The
    gradient would then be that of another distribution than the one that was sampled from. ``forward`` takes ``labels``, each row's
    own tokens, or ``shift_labels``, the token that follows each position, as TRL's does.

    Args:
        model: the network whose ``forward`` is replaced.
        temperature: what logits are divided by.
        learn_entropy: entropies have a gradient, which costs memory of the size of the logits.
    """
    original = type(model).forward

    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(self, *args, **kwargs)
        labels, shifted = kwargs.pop("labels", None), kwargs.pop("shift_labels", None)
        length = (shifted if labels is None else labels).shape[1]
        following = shifted if labels is None else labels[:, 1:]
        # Logits of the prompt are not wanted: from the first position that predicts a token that is scored in any row.
        first = int((following != UNSCORED).any(0).to(torch.int8).argmax())
        out = original(self, *args, **kwargs, use_cache=False, logits_to_keep=length - first)
        labels = following[:, first:]
        scored = labels != UNSCORED
        logits = out.logits[:, : labels.shape[1]].float() / temperature
        log_p = torch.log_softmax(logits, -1)
        chosen = log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0].clamp(min=_IMPOSSIBLE)
        with torch.set_grad_enabled(learn_entropy and torch.is_grad_enabled()):
            entropy = -(log_p.exp() * log_p.clamp(min=_IMPOSSIBLE)).sum(-1)
        chosen, entropy = (
            torch.nn.functional.pad(one.masked_fill(~scored, 0.0), (first, 0)) for one in (chosen, entropy)
        )
        return _Scored(chosen, entropy)

    model.forward = types.MethodType(forward, model)


@contextmanager
def _shuffling(together: int) -> Iterator[None]:
    """Let TRL shuffle the rows of a generation in runs of so many, which stay in order; as ever where each row is alone."""
    trl: Any = grpo_trainer
    original = trl.shuffle_sequence_dict

    def shuffled(columns: Mapping[str, Any]) -> dict[str, Any]:
        rows = len(columns["prompt_ids"])
        order = torch.arange(rows).reshape(-1, together)[torch.randperm(rows // together)].flatten()
        return {key: _in_order(column, order) for key, column in columns.items()}

    trl.shuffle_sequence_dict = original if together == 1 else shuffled
    try:
        yield
    finally:
        trl.shuffle_sequence_dict = original


def _in_order(column: Any, order: torch.Tensor) -> Any:
    """The rows of a column; what is None or one number for all stays as it is."""
    if isinstance(column, torch.Tensor):
        return column[order] if column.ndim else column
    return None if column is None else [column[place] for place in order.tolist()]


def _divided(columns: Mapping[str, Sequence[Any] | None], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Consecutive rows of ``columns``, ``lengths`` of them each. A column that is None stays so."""
    ends = list(accumulate(lengths))
    return [
        {key: None if column is None else column[end - length : end] for key, column in columns.items()}
        for end, length in zip(ends, lengths, strict=True)
    ]


def reward(completions: Sequence[Any], collected: Sequence[float | None], **unused: Any) -> list[float | None]:
    """The one reward function: hands over what was scored while rollouts were still being made."""
    return list(collected)


class Trainer(GRPOTrainer):
    """TRL's trainer over rollouts whose reward, the column ``collected``, may be None; the column ``advantage`` is what they teach.

    The losses and gradients of an update are those of TRL's own definition for its rows with a reward: a mean over sequences is over
    these alone, one over tokens over their tokens, and a mean over micro-batches over those that hold one.

    The data set holds the whole run in order, so that the trainer's position in it is all that a checkpoint must remember.

    Args:
        config: the run. With ``off_policy`` rollouts, ratios are to the probabilities that tokens were sampled with, instead of to those of
            the weights at the start of an update, which are others where rollouts are stale. Clipping is then around the sampler, as in
            PPO. With ``shared_prefix``, rows of a prompt are computed as one, see :mod:`rsw_rewards.training.shared_prefix`, as far as
            they are in one micro-batch. Where the model cannot, a warning says why.
        view: the policy and its samples. The policy's present weights are the reference of the KL term.
        prompts: ids of the samples that are asked for, in order.
        collector: makes and scores rollouts, for all processes; in the first one only.
        callbacks: told of every step.
        processes: the learner processes. Where they divide the weights, checkpoints hold them whole all the same.

    Raises:
        ConfigError: TRL does not take the settings, or the rows cannot be divided.
    """

    args: GRPOConfig

    def __init__(
        self,
        config: RunConfig,
        view: TrainerView,
        prompts: Sequence[str],
        collector: Collector | None,
        callbacks: Sequence[TrainerCallback] = (),
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.view, self.collector, self._processes = config, view, collector, processes
        self._rewarded = (0.0, 0.0)
        self._logps = torch.zeros(0)
        """Log-probabilities of the latest pass: TRL's own ``_compute_loss``, which asks for them, does not give them back."""
        model: PreTrainedModel = view.policy.model
        arguments = run_arguments(config, view, processes.count)
        # One card per process: others are for rollouts, scoring, further processes.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        # An accelerate configuration's precision would be the learner's alone, and sampler and learner two distributions.
        arguments.mixed_precision = "bf16" if arguments.bf16 else "no"
        super().__init__(
            model=model,
            processing_class=view.processing_class,
            reward_funcs=reward,
            args=arguments,
            train_dataset=view.dataset(prompts),
            rollout_func=self.roll_out,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        learn_entropy = arguments.entropy_coef > 0 or arguments.use_adaptive_entropy
        score_through_forward(base_model(model), arguments.temperature, learn_entropy)
        self._together = self._rows_together() if config.grpo.shared_prefix else 1
        if processes.sharded:
            shard(model, processes)
            # Gradients are exchanged by the network itself, and nothing is to be wrapped around it for that.
            accelerator: Any = self.accelerator
            accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)
        if config.grpo.beta:
            # TRL's own reference is a model loaded by name, which a class of our own does not have, or a second adapter, which
            # lacks the rows of added tokens.
            self.ref_model = cast(Any, StartingModel(StartingWeights(model)))
            self.beta = config.grpo.beta

    def roll_out(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's rollout function: prompts in, every one ``grpo.group`` times in a row; tokens and rewards out."""
        # Put together in all processes at once.
        weights = trained_weights(self.accelerator.unwrap_model(cast(Any, self.model)))
        parts = self._processes.gather(self.view.ids(prompts))
        if self.collector is None:
            mine: dict[str, Any] = self._processes.scatter()
            return mine
        rows, group = [one for part in parts for one in part], self.config.grpo.group
        ids = rows[::group]
        if rows != [one for one in ids for _ in range(group)] or len(set(ids)) < len(ids):
            raise RuntimeError("the trainer did not hand over whole groups of distinct prompts")
        outputs, given = self.collector.collect(ids, int(self.state.global_step), weights)
        columns = generation_columns(self.view, outputs, given, self.config)
        return self._processes.scatter(_divided(columns, [len(part) for part in parts]))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run directory says what this was."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights, whole; every process must ask."""
        if not self._processes.sharded:
            super().save_model(output_dir, _internal_call)
            return
        model: Any = self.model
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        adapted = has_adapters(model)
        state = whole({k: v for k, v in model.state_dict().items() if k in trained or not adapted})
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        model = self.model if model is None else model
        if has_adapters(model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:  # names in the files may differ from the model's, and the library skips those without a warning
            model.load_state_dict(checkpoint_weights(Path(resume_from_checkpoint), model))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._processes.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer, schedule = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        state = whole(optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(schedule.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self._processes.sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(self.optimizer, read_state(Path(checkpoint) / OPTIMIZER_NAME))
        cast(Any, self.lr_scheduler).load_state_dict(read_state(Path(checkpoint) / SCHEDULER_NAME))

    def _rows_together(self) -> int:
        """Rows of a prompt that are in one micro-batch, wherever it begins; 1 where the model cannot compute them together."""
        looks = hasattr(self.processing_class, "image_processor")
        if reason := why_not(self.model, getattr(self.processing_class, "model_input_names", ()) if looks else ()):
            _log.warning("grpo.shared_prefix: every rollout is learnt from with its own prompt, since %s", reason)
            return 1
        return math.gcd(self.args.num_generations or 1, self.args.per_device_train_batch_size)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        # TRL lays every further column that the rollout function gives (collected, advantage, sample) into the rows.
        for first in range(0, len(inputs), self._together):
            names = {row["sample"] for row in inputs[first : first + self._together]}
            if len(names) > 1:  # equal words about other images are equal tokens
                raise RuntimeError(f"the rows of {sorted(names)} were to be learnt from as those of one sample")
        known = [row["collected"] is not None for row in inputs]
        output["rewarded"] = torch.tensor(known, device=self.accelerator.device)
        output["advantages"].copy_(torch.tensor([row["advantage"] for row in inputs]))
        if self.config.rollouts.off_policy:
            output["old_per_token_logps"] = output["sampling_per_token_logps"]
        return output

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        with _shuffling(self._together):
            inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        size = self.args.gradient_accumulation_steps
        parts: list[dict[str, Any]] = self._buffered_inputs or []  # of the generation, which has one update or more
        first = self._step % len(parts) // size * size
        counts = torch.stack([part["rewarded"].sum() for part in parts[first : first + size]])
        both = self.accelerator.reduce(torch.stack([counts.sum(), (counts > 0).sum()]).float(), "mean")
        self._rewarded = (both[0].item(), both[1].item())
        return inputs

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if self._together == 1:
            found: Any = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **more
            )
            self._logps = found[0].detach()
            return found
        # One call for each pack: its numbers do not depend on what else is in a micro-batch, and ratios of unchanged weights are 1.
        logps, entropies = [], []
        for first in range(0, len(input_ids), self._together):
            part = slice(first, first + self._together)
            packed = pack(input_ids[part], attention_mask[part], logits_to_keep)
            images = types = None
            if more.get("pixel_values") is not None:
                images = Images.of_row(first, more["pixel_values"], more["image_grid_thw"], more["num_images"])
            if more.get("mm_token_type_ids") is not None:
                rows = zip(more["mm_token_type_ids"][part], attention_mask[part].bool(), strict=True)
                types = [row[there] for row, there in rows]
            inputs = inputs_of(self.accelerator.unwrap_model(self.model), packed, images, types)
            with self.accelerator.autocast():
                out = model(**inputs, shift_labels=packed.labels[None], fused_lm_head=True)
            logps.append(packed.unpack(out.log_probs[0]))
            entropies.append(packed.unpack(out.entropy[0]))
        self._logps = torch.cat(logps).detach()
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = self._loss(model, inputs)
        if self.config.rollouts.off_policy:
            mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
            gap = (self._logps - inputs["sampling_per_token_logps"]).abs()[mask.bool()]
            known = gap if len(gap) else gap.new_full((1,), torch.nan)
            means, largest = (self.accelerator.gather(one) for one in (known.mean(), known.max()))
            self._metrics["train"]["sampler_gap_mean"].append(means.nanmean().item())
            self._metrics["train"]["sampler_gap"].append(largest.nan_to_num(0.0).max().item())
        return loss

    def _loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of the rows with a reward."""
        rows, parts = self._rewarded  # with a reward, of this update, per process
        size, counted, beta = len(inputs["rewarded"]), self.current_gradient_accumulation_steps, self.beta
        if rows in (0, size * counted):
            return super()._compute_loss(model, inputs)
        # TRL divides by the micro-batches of an update, and by the rows of each. Both are to be those with a reward. Every term of
        # the policy's loss is proportional to its advantages or to beta, and so is scaled through them; the entropy bonus is not.
        factor = 1.0
        if self.loss_type in _MEAN_OF_ROWS:
            factor = size * parts / rows
        elif self.loss_type in _SHARE_OF_TOKENS:
            factor = parts / counted
        # TRL declares the count as a whole number, and a mean over the processes may be none.
        self.current_gradient_accumulation_steps, self.beta = cast(int, parts), beta * factor
        try:
            return super()._compute_loss(model, {**inputs, "advantages": inputs["advantages"] * factor})
        finally:
            self.current_gradient_accumulation_steps, self.beta = counted, beta
