"""The moving average of the weights of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def decay_at(step: int, decay: float) -> float:
    """The decay after ``step`` optimizer steps, from 1 on: it rises as ``(1 + step) / (10 + step)`` up to ``decay``, so that the
    first weights are soon forgotten.

    >>> [round(decay_at(step, 0.9), 2) for step in (1, 10, 100)]
    [0.18, 0.55, 0.9]
    """
    return min((1 + step) / (10 + step), decay)


class MovingAverage:
    """An exponential moving average of weights while they are trained.

    Args:
        weights: those that are trained; the average starts from them.
        decay: the share of the old average that an update keeps, at most; see :func:`decay_at`.
        every: optimizer steps from one update to the next; the first comes one step earlier, as in Flow-GRPO's code.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> average = MovingAverage([weight], decay=0.9)
    >>> weight.data.fill_(11.0).item(), average.update(), round(average.weights[0].item(), 3)
    (11.0, None, 9.0)
    """

    def __init__(self, weights: Sequence[torch.nn.Parameter], decay: float, every: int = 1) -> None:
        self.trained, self.decay, self.every, self.step = weights, decay, every, 0
        self.weights: list[Tensor] = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """Count an optimizer step that was taken, and let the average follow where it is due."""
        self.step += 1
        if (self.step + 1) % self.every == 0:
            for average, weight in zip(self.weights, self.trained, strict=True):
                average.lerp_(weight.to(average), 1 - decay_at(self.step, self.decay))

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in the place of the weights."""
        for average, weight in zip(self.weights, self.trained, strict=True):
            weight.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"step": self.step, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`. Raises ``ValueError`` where it is that of other weights."""
        if [one.shape for one in state["weights"]] != [one.shape for one in self.weights]:
            raise ValueError("the moving average is one of other weights")
        self.step = state["step"]
        self.weights = [kept.to(own) for kept, own in zip(state["weights"], self.weights, strict=True)]
