"""Weights on their way through Ray's object store: as NumPy arrays, which it shares between processes without copying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def pack_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[np.ndarray, str]]:
    """Tensors of any device as (array, name of the torch dtype). Types that NumPy lacks, such as bfloat16, go as raw bytes."""
    import torch

    packed = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().to("cpu").contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        # A copy: without one, training in place would change what the replicas of an in-process pool or a late reader see.
        array = tensor.reshape(-1).view(torch.uint8).numpy().copy() if tensor.numel() else np.zeros(0, np.uint8)
        packed[name] = (array, f"{dtype}:{','.join(map(str, tensor.shape))}")
    return packed


def unpack_weights(packed: Mapping[str, tuple[np.ndarray, str]]) -> dict[str, torch.Tensor]:
    """The tensors of :func:`pack_weights`, each in memory of its own: arrays from the object store are shared and read-only."""
    import torch

    weights = {}
    for name, (array, form) in packed.items():
        dtype, _, shape = form.partition(":")
        size = [int(part) for part in shape.split(",") if part]
        tensor = torch.empty(size, dtype=getattr(torch, dtype))
        if tensor.numel():
            tensor.reshape(-1).view(torch.uint8).numpy()[:] = array
        weights[name] = tensor
    return weights
