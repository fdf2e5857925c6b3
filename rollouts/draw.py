"""Tokens decided by random numbers of each row's own, so that a rollout does not depend on which others are in its batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class Draw:
    """A logits processor that decides every token with the row's own random numbers, and keeps its log-probability.

    Args:
        seeds: one per row.
        temperature: what logits are divided by; 0 takes the likeliest token (its log-probability is that of temperature 1).
        limit: tokens at most.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, limit: int) -> None:
        self.temperature = temperature
        self.uniforms = np.stack([np.random.default_rng(seed).random(limit) for seed in seeds]) if temperature else None
        self.logprobs: list[torch.Tensor] = []
        """(rows,) float32 per step."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) that leave one token possible in each row."""
        token, logprob = self.draw(scores, range(len(scores)), len(self.logprobs))
        self.logprobs.append(logprob)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)

    def draw(self, logits: torch.Tensor, rows: Sequence[int], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(n,) tokens and (n,) log-probabilities of ``rows`` at a step, from (n, vocabulary) logits."""
        log_p = torch.log_softmax(logits.float() / (self.temperature or 1.0), -1)
        if self.uniforms is None:
            token = log_p.argmax(-1, keepdim=True)
        else:
            # The first token whose cumulative probability passes the row's number: never one without probability.
            total = log_p.double().exp().cumsum(-1)
            number = torch.from_numpy(self.uniforms[list(rows), step]).to(total.device)
            token = (total > number[:, None] * total[:, -1:]).int().argmax(-1, keepdim=True)
        return token[:, 0], log_p.gather(1, token)[:, 0]
