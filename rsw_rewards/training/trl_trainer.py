"""TRL's ``GRPOTrainer``, with rows that have no reward counted nowhere, and ratios to the sampler's probabilities where these differ.

Importing this imports TRL.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

_MEAN_OF_ROWS = ("grpo", "sapo", "luspo", "dr_grpo")
"""Loss types that divide by the rows of a micro-batch."""
_SHARE_OF_TOKENS = ("dapo", "cispo", "vespo")
"""Loss types that divide by a share of the generation's tokens, from which the rollout function leaves tokens without a reward out."""


class Trainer(GRPOTrainer):
    """TRL's trainer over rollouts whose reward, the column ``collected``, may be None; the column ``advantage`` is what they teach.

    The losses and gradients of an update are those of TRL's own definition for its rows with a reward: a mean over sequences is over
    these alone, one over tokens over their tokens, and a mean over micro-batches over those that hold one.

    Args:
        off_policy: ratios are to the probabilities that tokens were sampled with, instead of to those of the weights at the start of an
            update, which are others where rollouts are stale. Clipping is then around the sampler, as in PPO.
    """

    args: GRPOConfig

    def __init__(self, *args: Any, off_policy: bool = False, **kwargs: Any) -> None:
        self.off_policy = off_policy
        self._rewarded = (0.0, 0.0)
        super().__init__(*args, **kwargs)

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
