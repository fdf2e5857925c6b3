"""All that is bent of TRL: one subclass of its ``GRPOTrainer``, read against TRL 1.16.0 (:data:`READ_AGAINST`).

It leans on what TRL keeps to itself. ``constraints.txt`` pins that version, and ``tests/training/test_trl_version.py`` says what is
to be read again where the installed one differs. Importing this imports TRL.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from rsw_rewards.rollouts.weights import base_model
from rsw_rewards.training.reference import StartingModel, StartingWeights

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
    "transformers.training_args:TrainingArguments._setup_devices.func",
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
    gradient would then be that of another distribution than the one that was sampled from.

    Args:
        model: the network whose ``forward`` is replaced.
        temperature: what logits are divided by.
        learn_entropy: entropies have a gradient, which costs memory of the size of the logits.
    """
    original = type(model).forward

    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(self, *args, **kwargs)
        labels = kwargs.pop("labels")
        # Logits of the prompt are not wanted: from the position before the first token that is scored in any row.
        first = max(0, int((labels != -100).any(0).to(torch.int8).argmax()) - 1)
        out = original(self, *args, **kwargs, use_cache=False, logits_to_keep=labels.shape[1] - first)
        labels = labels[:, first + 1 :]
        scored = labels != -100
        logits = out.logits[:, :-1].float() / temperature
        log_p = torch.log_softmax(logits, -1)
        chosen = log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0].clamp(min=_IMPOSSIBLE)
        with torch.set_grad_enabled(learn_entropy and torch.is_grad_enabled()):
            entropy = -(log_p.exp() * log_p.clamp(min=_IMPOSSIBLE)).sum(-1)
        return _Scored(chosen.masked_fill(~scored, 0.0), entropy.masked_fill(~scored, 0.0))

    model.forward = types.MethodType(forward, model)


def reward(completions: Sequence[Any], collected: Sequence[float | None], **unused: Any) -> list[float | None]:
    """The one reward function: hands over what was scored while rollouts were still being made."""
    return list(collected)


class Trainer(GRPOTrainer):
    """TRL's trainer over rollouts whose reward, the column ``collected``, may be None; the column ``advantage`` is what they teach.

    The losses and gradients of an update are those of TRL's own definition for its rows with a reward: a mean over sequences is over
    these alone, one over tokens over their tokens, and a mean over micro-batches over those that hold one.

    Args:
        model: the network that is trained, with its adapters if it has any.
        arguments: TRL's; without ``beta``.
        prompts: rows of the prompts of the whole run, in order.
        processing_class: the tokenizer or processor that TRL asks for.
        rollouts: TRL's rollout function.
        callbacks: told of every step.
        beta: weight of the KL term against the present weights.
        off_policy: ratios are to the probabilities that tokens were sampled with, instead of to those of the weights at the start of an
            update, which are others where rollouts are stale. Clipping is then around the sampler, as in PPO.
    """

    args: GRPOConfig

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: GRPOConfig,
        prompts: Any,
        processing_class: Any,
        rollouts: Callable[..., dict[str, Any]],
        *,
        callbacks: Sequence[TrainerCallback] = (),
        beta: float = 0.0,
        off_policy: bool = False,
    ) -> None:
        self.off_policy = off_policy
        self._rewarded = (0.0, 0.0)
        arguments._n_gpu = min(
            arguments.n_gpu, 1
        )  # one card per process: others are for rollouts, scoring, further processes
        # An accelerate configuration's precision would be the learner's alone, and sampler and learner two distributions.
        arguments.mixed_precision = "bf16" if arguments.bf16 else "no"
        super().__init__(
            model=model,
            processing_class=processing_class,
            reward_funcs=reward,
            args=arguments,
            train_dataset=prompts,
            rollout_func=rollouts,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        learn_entropy = arguments.entropy_coef > 0 or arguments.use_adaptive_entropy
        score_through_forward(base_model(model), arguments.temperature, learn_entropy)
        if beta:
            # TRL's own reference is a model loaded by name, which a class of our own does not have, or a second adapter, which
            # lacks the rows of added tokens.
            vars(self)["ref_model"] = StartingModel(StartingWeights(model))
            self.beta = beta

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run directory says what this was."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        known = [row["collected"] is not None for row in inputs]
        output["rewarded"] = torch.tensor(known, device=self.accelerator.device)
        output["advantages"].copy_(torch.tensor([row["advantage"] for row in inputs]))
        if self.off_policy:
            output["old_per_token_logps"] = output["sampling_per_token_logps"]
        return output

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        size = self.args.gradient_accumulation_steps
        parts: list[dict[str, Any]] = self._buffered_inputs or []  # of the generation, which has one update or more
        first = self._step % len(parts) // size * size
        counts = torch.stack([part["rewarded"].sum() for part in parts[first : first + size]])
        both = self.accelerator.reduce(torch.stack([counts.sum(), (counts > 0).sum()]).float(), "mean")
        self._rewarded = (both[0].item(), both[1].item())
        return inputs

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        rows, parts = self._rewarded  # with a reward, of this update, per process
        size, asked, beta = len(inputs["rewarded"]), self.current_gradient_accumulation_steps, self.beta
        if rows in (0, size * asked):
            return super()._compute_loss(model, inputs)
        # TRL divides by the micro-batches of an update, and by the rows of each. Both are to be those with a reward. Every term of
        # the policy's loss is proportional to its advantages or to beta, and so is scaled through them; the entropy bonus is not.
        factor = 1.0
        if self.loss_type in _MEAN_OF_ROWS:
            factor = size * parts / rows
        elif self.loss_type in _SHARE_OF_TOKENS:
            factor = parts / asked
        state = vars(self)
        state |= {"current_gradient_accumulation_steps": parts, "beta": beta * factor}
        try:
            return super()._compute_loss(model, {**inputs, "advantages": inputs["advantages"] * factor})
        finally:
            state |= {"current_gradient_accumulation_steps": asked, "beta": beta}
