"""What can produce outputs: the contract of every policy, trained or not."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.verifier import ALL_TASKS
from rsw_rewards.errors import ConfigError, RswError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Request:
    """One output to produce. Everything random about it follows from ``seed``.

    >>> request = rsw.Request(rsw.Sample("q1", "change_qa"), candidate=1)
    >>> request.sample.id, request.candidate, request.temperature
    ('q1', 1, 1.0)
    """

    sample: Sample
    candidate: int = 0
    seed: int = 0
    temperature: float = 1.0
    """0 is greedy decoding."""


def request_seed(run: int, step: int, sample: str, candidate: int) -> int:
    """The 63-bit seed of one rollout: the same work done again, by whichever actor, gives the same output."""
    digest = hashlib.sha256(f"{run}/{step}/{sample}/{candidate}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Policy(ABC):
    """Produces outputs for samples. Instances are cheap and picklable until :meth:`setup`, which loads weights.

    >>> class AlwaysYes(rsw.Policy):
    ...     name = "always_yes"
    ...
    ...     def generate(self, requests):
    ...         return [rsw.Output(request.sample.id, request.candidate, text="yes") for request in requests]
    >>> samples = [{"task": "change_qa", "reference": {"answers": [answer], "vocabulary": ["yes", "no"]}} for answer in ("yes", "no")]
    >>> rsw.evaluate("exact-qa", samples, policy=AlwaysYes()).metrics["accuracy"].value
    0.5
    """

    name: str
    tasks: frozenset[Task] = ALL_TASKS
    trainable: bool = False

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        """Called once per process before the first request."""

    @abstractmethod
    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """One output per request, in order.

        An output that the policy got wrong (truncated, unparsable) comes back with ``invalid`` set. Images are arrays
        (``ImageRef(array=..., sha256=...)``); whoever runs the policy decides where they are kept.
        """

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Take new weights; outputs carry ``version`` from now on. Only for trainable policies."""
        raise TypeError(f"the policy {self.name!r} has no weights to load")

    def describe(self) -> dict[str, Any]:
        """What a report says of the policy: name, source of its weights, settings."""
        return {"name": self.name}


def set_up(policy: Policy, device: str = "cpu", threads: int = 1) -> None:
    """:meth:`Policy.setup`, whose errors become a sentence. Raises :class:`RswError`."""
    try:
        policy.setup(device, threads)
    except RswError:
        raise
    except Exception as error:  # a setting of the wrong type, a device that is not there, weights of another model
        said = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"the policy {policy.name!r} cannot be set up on {device!r}: {type(error).__name__}: {said}"
        ) from error
