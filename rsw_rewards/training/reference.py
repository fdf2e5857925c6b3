"""The reference of the KL term: the weights that a run started from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

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
