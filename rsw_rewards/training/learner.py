"""What learns from one generation at a time, and all that PPO and Flow-GRPO have in common.

A step is one generation and everything learnt from it, so every checkpoint lies on the boundary of a generation. What is random in a step
follows from the run's seed and the step's number: a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.rollouts.weights import trained_weights, whole
from rsw_rewards.training.processes import Processes
from rsw_rewards.training.sharding import load_optimizer

NORMS = ("grad_norm", "critic_grad_norm")
"""Logged norms of the gradients of the optimizer's groups of weights."""


class Learner(ABC):
    """A policy, what learns beside it, and their optimizer.

    Args:
        policy: after ``setup``; its present weights are the reference of the KL penalty.
        config: the method's section.
        seed: of all that is random.
        processes: among which the rows of a pass are divided. All must be given the same generations.
    """

    learns: ClassVar[str]
    """What learns, for messages."""
    rates: ClassVar[str]
    """The keys of the learning rates, for messages."""
    policy: Any
    config: Any
    model: Any
    """The network, which rollouts are made with."""
    optimizer: torch.optim.Optimizer

    def __init__(self, policy: Any, config: Any, seed: int, processes: Processes) -> None:
        self.policy, self.config, self.seed, self.processes = policy, config, seed, processes
        self.beside: dict[str, Any] = {}
        """What else a checkpoint keeps, by name; each has a ``state_dict`` of its own."""

    @abstractmethod
    def update(
        self, samples: Sequence[Sample], outputs: Sequence[Output], given: Sequence[float | None], step: int
    ) -> dict[str, float | None]:
        """Learn from one generation. Rows that were lost or have no reward are left out; without any, nothing is learnt.

        Returns:
            The numbers of the step for the log.

        Raises:
            RunStopped: a loss or gradient is not finite.
        """

    def minibatches(self, count: int, step: int, epoch: int) -> list[np.ndarray]:
        """The places of ``count`` rows in the order in which a pass learns from them, an optimizer step each."""
        order = np.random.default_rng([self.seed, step, epoch]).permutation(count)
        return [places for places in np.array_split(order, self.config.minibatches) if len(places)]

    def learn(self, count: int, step: int, optimize: Callable[[np.ndarray], dict[str, float]]) -> dict[str, float]:
        """All passes over ``count`` rows; returns the means of what ``optimize`` gives of each minibatch."""
        parts = [
            optimize(places) for epoch in range(self.config.epochs) for places in self.minibatches(count, step, epoch)
        ]
        return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}

    def take_step(self, totals: Mapping[str, float], step: int, largest: Sequence[str] = ()) -> dict[str, float]:
        """An optimizer step along the gradients of all processes; returns their numbers, see :meth:`Processes.add_gradients`.

        Raises:
            RunStopped: the loss or a gradient is not finite.
        """
        groups = [group["params"] for group in self.optimizer.param_groups]
        found = self.processes.add_gradients([weight for group in groups for weight in group], totals, largest)
        # Apart, so that a critic that is far off does not shorten the policy's step.
        norms = dict(zip(NORMS, groups, strict=False))
        for name, weights in norms.items():
            found[name] = float(torch.nn.utils.clip_grad_norm_(weights, self.config.max_grad_norm))
        if not all(np.isfinite(found[name]) for name in ("loss", *norms)):
            raise RunStopped(
                f"step {step + 1}: the loss or its gradient is not finite ({found}); lower {self.rates} and go on with --resume from the"
                " last checkpoint"
            )
        self.optimizer.step()
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps. All random numbers derive from the step number, and the reference is the policy that a run starts from.

        Every process must ask; where weights are divided, the first one gets them whole.
        """
        beside = {name: whole(part.state_dict()) for name, part in self.beside.items()}
        return {"policy": trained_weights(self.model), "optimizer": whole(self.optimizer.state_dict()), **beside}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`. Raises :class:`ConfigError` where it is that of other networks."""
        try:
            self.policy.load_weights(state["policy"], 0)
            for name, part in self.beside.items():
                part.load_state_dict(state[name])
            load_optimizer(self.optimizer, state["optimizer"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--resume: the checkpoint belongs to another {self.learns}: {' '.join(str(error).split())[:200]}"
            ) from error
