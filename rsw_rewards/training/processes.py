"""The learner processes of a training: the first makes rollouts, scores, measures and writes; the others only learn beside it.

``accelerate launch`` and ``torchrun`` start the same command several times. What is said between the processes apart from
gradients (prompts, tokens, rewards) goes over a group of its own, whose patience outlasts a generation and a measurement.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.weights import is_sharded

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(days=2)
"""How long a process waits for another. A process that dies is noticed at once by its launcher, not by this."""

OTHERS = {
    "ACCELERATE_USE_FSDP": "accelerate is told to divide the weights itself; launch plain processes (accelerate launch --multi_gpu, or "
    "torchrun), and set 'fsdp: true' in the method's section, which divides them by FSDP2",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed is not supported; launch plain processes with 'fsdp: true' in the method's section (FSDP2), "
    "or train with verl and the rewards of this package (docs/integrations/verl.md)",
}
"""What ``accelerate launch`` says in the environment when it is to divide the weights, and why it does not."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among the learner processes of a training."""

    rank: int = 0
    count: int = 1
    group: Any = None
    """``torch.distributed`` group (Gloo) for objects."""
    sharded: bool = False
    """Whether they divide weights, gradients and optimizer states, see :mod:`rsw_rewards.training.sharding`."""

    @property
    def first(self) -> bool:
        """Whether this is the process that makes rollouts and writes."""
        return self.rank == 0

    def gather(self, part: Any) -> list[Any]:
        """Every process's ``part`` in the order of ranks, in the first process; an empty list in the others."""
        if self.count == 1:
            return [part]
        import torch.distributed as dist

        parts: list[Any] | None = [None] * self.count if self.first else None
        dist.gather_object(part, parts, dst=0, group=self.group)
        return parts or []

    def scatter(self, parts: Sequence[Any] = ()) -> Any:
        """The part of this process among ``parts``, one per rank, which only the first process gives."""
        if self.count == 1:
            return parts[0]
        import torch.distributed as dist

        mine: list[Any] = [None]
        dist.scatter_object_list(mine, list(parts) if self.first else None, src=0, group=self.group)
        return mine[0]

    def broadcast(self, value: Any = None) -> Any:
        """What the first process gives, in every process; they wait for it."""
        return self.scatter([value] * self.count)

    def wait(self) -> None:
        """Return once every process has come here."""
        self.gather(None)
        self.broadcast()

    def own(self, places: np.ndarray) -> tuple[np.ndarray, int]:
        """This process's share of ``places``, one in turn for each, and how many of them count.

        All shares are equally long, because a pass of a sharded network takes all processes. The first place fills up what is lacking
        at the end of a share; it is to count for nothing there.

        >>> import numpy as np
        >>> Processes(1, 2).own(np.array([7, 8, 9]))
        (array([8, 7]), 1)
        """
        mine = places[self.rank :: self.count]
        lacking = -(-len(places) // self.count) - len(mine)
        return np.concatenate([mine, places[:1].repeat(lacking)]), len(mine)

    def add(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor`` (on the CPU) by its sum over the processes."""
        if self.count > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor, group=self.group)

    def same_start(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every process the first one's weights."""
        if self.count > 1:
            import torch.distributed as dist

            for parameter in parameters:
                dist.broadcast(parameter.data, src=0)

    def add_gradients(
        self, parameters: Sequence[torch.nn.Parameter], numbers: Mapping[str, float], largest: Sequence[str] = ()
    ) -> dict[str, float]:
        """Replace every gradient by its sum over the processes. A parameter without one counts as zero, unless none has one.

        Gradients of sharded parameters are means over the processes already.

        Args:
            parameters: of the same network in every process.
            numbers: what is to be logged of this process's rows.
            largest: those of ``numbers`` of which the largest counts, not the sum.

        Returns:
            ``numbers`` of all processes.
        """
        if self.count == 1:
            return dict(numbers)
        import torch
        import torch.distributed as dist

        plain = [parameter for parameter in parameters if not is_sharded(parameter)]
        for parameter in parameters:
            if is_sharded(parameter) and parameter.grad is not None:
                parameter.grad.mul_(self.count)
        reached = torch.tensor([float(parameter.grad is not None) for parameter in plain])
        self.add(reached)
        for parameter in (one for one, known in zip(plain, reached, strict=True) if known):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
        everybody = self.broadcast(self.gather(dict(numbers)))
        names = {name: None for part in everybody for name in part}
        found = {name: [part[name] for part in everybody if name in part] for name in names}
        return {name: max(values) if name in largest else sum(values) for name, values in found.items()}


ALONE = Processes()


def micro_batches(places: np.ndarray, size: int | None) -> list[np.ndarray]:
    """``places`` in portions of at most ``size``, all of them in one where that is None."""
    size = size or max(len(places), 1)
    return [places[start : start + size] for start in range(0, len(places), size)]


def launched() -> int:
    """How many processes a launcher started of this training."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() else 1


def join(on_cpu: bool, sharded: bool = False) -> Processes:
    """Join the other learner processes, if a launcher started several.

    Args:
        on_cpu: whether gradients are exchanged on CPUs (Gloo) instead of on this process's card (NCCL).
        sharded: whether the processes are to divide the weights.

    Raises:
        ConfigError: the launcher is to divide the weights by means of its own.
    """
    if launched() == 1:
        return ALONE
    for variable, why in OTHERS.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise ConfigError(why)
    import torch.distributed as dist
    from accelerate import PartialState

    PartialState(cpu=on_cpu)
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    # Ray's actors inherit the environment, and an engine in one of them would look for torchrun's store in its own group.
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    return Processes(dist.get_rank(), dist.get_world_size(), group, sharded)


def check_one_process(what: str) -> None:
    """Raise :class:`ConfigError` where a launcher started several times over ``what`` is done in one process."""
    if (count := launched()) > 1:
        raise ConfigError(f"{what} takes one process, but was started as {count} (WORLD_SIZE); start it once")
