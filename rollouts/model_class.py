"""Methods of one object replaced by way of a class of its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def suppress(model: PreTrainedModel, tokens: Sequence[int]) -> None:
    """Take away the probability of tokens in ``forward`` itself, for sampler and learner alike.

    Suppressing them in generation alone would make every importance ratio wrong. The model gets a class of its own with the same
    name, so that whatever looks up ``forward`` in the class finds this one too.
    """
    import torch

    places = torch.tensor(sorted(tokens))
    parent = type(model)

    @functools.wraps(parent.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = parent.forward(self, *args, **kwargs)
        lowest = torch.finfo(out.logits.dtype).min
        out.logits = out.logits.index_fill(-1, places.to(out.logits.device), lowest)
        return out

    become(model, forward=forward)


def become(model: Any, **methods: Any) -> None:
    """Replace methods of one model or processor by way of a class of its own that has the same name and is saved alike."""
    parent = type(model)
    body = {**methods, "__module__": parent.__module__, "__doc__": parent.__doc__}
    model.__class__ = type(parent.__name__, (parent,), body)
