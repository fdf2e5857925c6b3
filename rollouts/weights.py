"""Weights on their way to the replicas: what of a model travels, and how it goes through Ray's object store as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.errors import ConfigError

if TYPE_CHECKING:
    import torch


def has_adapters(model: Any) -> bool:
    """Whether a model is one of peft's."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def adapter_in(path: str | Path, lora: object = None) -> bool:
    """Whether a folder holds a trained adapter.

    Args:
        path: a folder, or the name of a model on the hub.
        lora: settings of new adapters, if any are asked for.

    Raises:
        ConfigError: new adapters are asked for beside the one in the folder.
    """
    found = (Path(path) / "adapter_config.json").is_file()
    if found and lora is not None:
        raise ConfigError(
            f"{path} holds a LoRA adapter, which is trained further as it is; remove 'lora' from the policy"
        )
    return found


def base_model(model: Any) -> Any:
    """The model below its adapters, or the model itself."""
    return model.get_base_model() if has_adapters(model) else model


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """What a policy's ``load_weights`` takes: all weights of a model, or its adapter's alone if it has one.

    Of a model that is divided among processes every process must ask, and the first one gets them, see :func:`whole`.
    """
    if not has_adapters(model):
        return dict(whole(model.state_dict()))
    from peft import get_peft_model_state_dict

    return dict(whole(get_peft_model_state_dict(model)))


def load_trained(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put what :func:`trained_weights` gave into a model of the same kind."""
    if not has_adapters(model):
        model.load_state_dict(weights)
        return
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, dict(weights))


def is_sharded(value: object) -> bool:
    """Whether a value is a tensor that is divided among processes."""
    return hasattr(value, "full_tensor")


def whole(state: Any) -> Any:
    """A state in which no tensor is divided among processes.

    Args:
        state: tensors, numbers and strings in dicts, lists and tuples. Every process must call this with its own, at the same time.

    Returns:
        The same, with what was divided on the CPU, in the first process; in the others, which need it for nothing, None stands there.

    >>> whole({"step": 3, "weights": ["first", "second"]})
    {'step': 3, 'weights': ['first', 'second']}
    """
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value) for value in state)
    if not is_sharded(state):
        return state
    import torch.distributed as dist

    full = state.detach().full_tensor()
    return full.cpu() if dist.get_rank() == 0 else None


def merged_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a model with adapters as those of one without, by the names of its folder. The model stays as it is."""
    base = base_model(model)
    merged = {
        name.replace(".base_layer.", ".").replace(".token_adapter.", "."): tensor.detach()
        for name, tensor in base.state_dict().items()
        if "lora_" not in name and "trainable_tokens_" not in name
    }
    for name, layer in base.named_modules():
        if hasattr(layer, "get_delta_weight"):
            weight = layer.get_base_layer().weight.detach()
            for adapter in layer.active_adapters:
                weight = weight + layer.get_delta_weight(adapter).detach().to(weight.dtype)
            merged[f"{name}.weight"] = weight
        elif hasattr(layer, "get_merged_weights"):  # embeddings of added tokens, which are trained along with adapters
            whole = layer.get_merged_weights(layer.active_adapters).detach()
            merged[f"{name.removesuffix('.token_adapter')}.weight"] = whole
    return merged


def check_complete(loading_info: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a model has weights that its files lack: the loader made them of random numbers.

    Args:
        loading_info: what ``from_pretrained(..., output_loading_info=True)`` of transformers or diffusers gives beside the model.

    >>> check_complete({"missing_keys": []})
    """
    if absent := sorted(loading_info["missing_keys"]):
        raise ValueError(
            f"its weights lack {len(absent)} of the tensors that its config.json asks for, such as {absent[0]}; copy config.json and"
            " *.safetensors from one model"
        )


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
