"""Weights, gradients and optimizer states that are divided among the learner processes, by torch's FSDP2.

A network stays the object that it was, with the same names; its parameters become ``DTensor``. What is kept or sent is whole, as that of
one process (:func:`rsw_rewards.rollouts.weights.whole`), so any number of processes can go on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import set_up
from rsw_rewards.rollouts.weights import is_sharded, trained_weights
from rsw_rewards.training.processes import Processes


def shard(network: nn.Module, processes: Processes) -> None:
    """Give every process the first one's weights and, where the run asks for that, a share of them alone.

    The layers that the network's authors want undivided on one device are gathered one by one, when they are computed. The rest, such as
    embeddings and the output matrix, is gathered for the length of a pass. Make an optimizer after this, and copies before it.

    Args:
        network: on the device where it learns. Its ``forward`` is reached by calling it.
        processes: the learner processes, all of which shard the same networks in the same order.
    """
    processes.same_start([weight for weight in network.parameters() if weight.requires_grad])
    if not processes.sharded:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(network.parameters()).device.type, (processes.count,))
    layers = {name for module in network.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    for module in list(network.modules()):
        if type(module).__name__ in layers and module is not network:
            fully_shard(module, mesh=mesh)
    # Not freed before the backward pass: a critic takes hidden states from inside, and nothing would gather the rest again.
    fully_shard(network, mesh=mesh, reshard_after_forward=False)
    network.register_load_state_dict_pre_hook(_divide_loaded)
    if processes.first:
        held, every = (sum(map(torch.numel, some)) for some in (map(share, network.parameters()), network.parameters()))
        name = type(network).__name__.removeprefix("FSDP")
        print(f"{name}: this process keeps {held:,} of {every:,} numbers (FSDP2)", flush=True)


def share(weight: Any) -> torch.Tensor:
    """What this process holds of a divided tensor, in the same memory."""
    found: torch.Tensor = weight.detach().to_local()
    return found


def _divide_loaded(network: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
    """Replace whole tensors that are about to be loaded by what this process holds of them."""
    free(network)
    for name, weight in network.named_parameters(remove_duplicate=False):
        if (key := prefix + name) in state:
            state[key] = _like(state[key], weight)


def _like(value: Any, weight: Any) -> Any:
    """A whole tensor divided as ``weight`` is; anything of another shape stays what it is."""
    if not is_sharded(weight) or is_sharded(value) or getattr(value, "shape", None) != weight.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, weight.device_mesh, weight.placements)


def load_optimizer(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Restore an optimizer from the whole state of one of any number of processes."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    names = [name for group in state["param_groups"] for name in group["params"]]
    kept = dict(state["state"])
    for name, weight in zip(names, weights, strict=True):
        if name in kept:
            kept[name] = {key: _like(value, weight) for key, value in kept[name].items()}
    optimizer.load_state_dict({**state, "state": kept})


def free(network: nn.Module) -> None:
    """Give back what a pass without gradients has gathered, so that parameters are this process's share again."""
    module: Any
    for module in network.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def whole_policy(policy: Any, spec: Any, processes: Processes) -> Any:
    """A policy whose weights are whole, in the first process; every process must ask.

    Args:
        policy: that was trained; itself where it is not divided.
        spec: of the policy that training started from.
        processes: the learner processes.
    """
    if not processes.sharded:
        return policy
    weights = trained_weights(policy.model)
    if not processes.first:
        return None
    made = build_policy(spec)
    set_up(made, "cpu", torch.get_num_threads())
    made.load_weights(weights, 0)
    return made
