"""Weights that are kept beside those that are trained: those that a run started from, for its KL term, and a moving average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rsw_rewards.rollouts.weights import is_sharded
from rsw_rewards.training.sharding import free, share


class StartingWeights:
    """A model as it was when this was made, whatever it has learnt since.

    What is trained is copied: the whole model, or its adapters and the rows of added tokens. An adapter that was trained before the
    run is part of the start, so that switching adapters off would give another model. Make it before a checkpoint is loaded: a
    resumed run has the same start.

    Of a network that is divided among processes, each keeps the start of its own share: make it after the division.

    Args:
        model: any network; weights that need no gradient are taken not to change.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> start, first = StartingWeights(model), model.weight.item()
    >>> _ = torch.nn.init.constant_(model.weight, 7.0)
    >>> with start:
    ...     model.weight.item() == first
    True
    >>> model.weight.item()
    7.0
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.weights = {name: weight.detach().clone() for name, weight in _trained(model)}

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *error: object) -> None:
        self._swap()

    def _swap(self) -> None:
        torch.clear_autocast_cache()  # it knows weights by their place, not by what they hold
        free(self.model)
        for name, weight in _trained(self.model):
            if is_sharded(weight):  # what is gathered before a pass is read from where the shares lie
                now, start = share(weight), share(self.weights[name])
                kept = now.clone()
                now.copy_(start)
                start.copy_(kept)
                continue
            # Only `data` changes hands: gradients that are still to come through these weights stay valid.
            weight.data, self.weights[name] = self.weights[name].to(weight.device), weight.data


class StartingModel(torch.nn.Module):
    """The model of :class:`StartingWeights` as a module of its own, which has no weights and gives no gradients."""

    def __init__(self, start: StartingWeights) -> None:
        super().__init__()
        self.start = start

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.start:
            return self.start.model(*args, **kwargs)


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


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
