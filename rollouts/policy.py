"""What can produce outputs: the contract of every policy, trained or not."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rsw_rewards.core.image_values import describe
from rsw_rewards.core.plugins import raised, user_code
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.core.verifier import ALL_TASKS
from rsw_rewards.errors import ConfigError, InputError, RswError
from rsw_rewards.io.in_memory import as_output

if TYPE_CHECKING:
    import torch

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Request:
    """One output to generate. All its random numbers follow from ``seed``.

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

    def missing(self) -> str | None:
        """What :meth:`setup` will not find on this machine, as a clause; None where nothing is known to be missing. Loads nothing."""
        return None

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        """Called once per process before the first request."""

    @abstractmethod
    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """One output per request, in order: an :class:`Output`, or the answer itself (a text, an image, a mask, boxes).

        An output names its request's sample, or none. One of another sample is a mistake that stops the run, as is a list of
        another length. Where this raises, each sample is asked alone, and one at which it raises again has its outputs lost.

        An output that the policy got wrong (truncated, unparsable) comes back with ``invalid`` set. Images are arrays
        (``ImageRef(array=..., sha256=...)``); whoever runs the policy decides where they are kept.
        """

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Take new weights; outputs carry ``version`` from now on. Only for trainable policies."""
        raise TypeError(f"the policy {self.name!r} has no weights to load")

    def describe(self) -> dict[str, Any]:
        """What a report says of the policy: name, source of its weights, settings."""
        return {"name": self.name}


_PLACE = re.compile(r"\{(prompt|vocabulary)\}")


def request_text(template: str, sample: Sample) -> str:
    """A template with the sample's prompt in the place of ``{prompt}``, and its closed answers, if any, in that of ``{vocabulary}``.

    >>> request_text("{prompt} Answer with {vocabulary}.", rsw.Sample("q", "change_qa", prompt="wet?", reference={"vocabulary": ["yes", "no"]}))
    'wet? Answer with yes, no.'
    """
    words = {"prompt": sample.prompt, "vocabulary": ", ".join(map(str, sample.reference.get("vocabulary") or ()))}
    return _PLACE.sub(lambda place: words[place[1]], template)


def after_setup(part: Part | None) -> Part:
    """What a policy has only after :meth:`Policy.setup`. Raises ``RuntimeError`` before."""
    if part is None:
        raise RuntimeError("call setup() first")
    return part


def set_up(policy: Policy, device: str = "cpu", threads: int = 1) -> None:
    """:meth:`Policy.setup`, whose errors become a sentence. Raises :class:`RswError`."""
    with user_code(f"the policy {policy.name!r} cannot be set up on {device!r}:"):
        policy.setup(
            device, threads
        )  # a setting of the wrong type, a device that is not there, weights of another model


def outputs_of(policy: Policy, requests: Sequence[Request]) -> list[Output]:
    """One output per request, in order. A sample at which the policy raises costs its own outputs, which are lost, and no others.

    Raises:
        ConfigError: a mistake in the policy's code: other than one output per request, what is no output, or one of another sample.
        RswError: what the policy itself raised to stop the run.

    >>> from rsw_rewards.rollouts.policy import Request, outputs_of
    >>> class Yes(rsw.Policy):
    ...     name = "yes"
    ...
    ...     def generate(self, requests):
    ...         return ["yes" for request in requests]
    >>> outputs_of(Yes(), [Request(rsw.Sample("q0", "change_qa"))])[0].text
    'yes'
    """
    try:
        given = policy.generate(requests)
    except Exception as error:
        if isinstance(error, RswError) and not isinstance(error, InputError):
            raise
        names = list(dict.fromkeys(request.sample.id for request in requests))
        if len(names) == 1:
            why = str(error) if isinstance(error, InputError) else f"the policy {policy.name!r} raised {raised(error)}"
            return [Output(request.sample.id, request.candidate, lost=why) for request in requests]
        alone = {name: iter(outputs_of(policy, [r for r in requests if r.sample.id == name])) for name in names}
        return [next(alone[request.sample.id]) for request in requests]
    if not isinstance(given, list | tuple):
        raise ConfigError(
            f"the policy {policy.name!r} must give a list with one output per request, not {describe(given)}"
        )
    if len(given) != len(requests):
        raise ConfigError(f"the policy {policy.name!r} gave {len(given)} outputs for {len(requests)} requests")
    return [_checked(policy, request, value) for request, value in zip(requests, given, strict=True)]


def in_runs(
    requests: Sequence[Request],
    make: Callable[[Sequence[Request], int], list[Output]],
    alike: Callable[[Request], Any] = lambda request: request.temperature,
) -> list[Output]:
    """Outputs of requests in their order, those that can be made in one go together: equally many per sample, sample by sample.

    Args:
        requests: of any samples.
        make: gives the outputs of some requests, and is told how many are of each sample.
        alike: what requests that are made together have in common.
    """
    by_sample: dict[Any, list[int]] = {}
    for place, request in enumerate(requests):
        by_sample.setdefault((request.sample.id, alike(request)), []).append(place)
    runs: dict[Any, list[int]] = {}
    for (_, common), places in by_sample.items():
        runs.setdefault((len(places), common), []).extend(places)
    outputs: dict[int, Output] = {}
    for (count, _), places in runs.items():
        outputs |= zip(places, make([requests[place] for place in places], count), strict=True)
    return [outputs[place] for place in range(len(requests))]


def _checked(policy: Policy, request: Request, value: Any) -> Output:
    """What a policy gave for a request, as an output. Raises :class:`ConfigError`."""
    wrong = f"the policy {policy.name!r}, asked for the sample {request.sample.id!r}"
    try:  # what an Output lacks, and what its images are worth, is judged when it is scored
        output = value if isinstance(value, Output) else as_output(value, request.sample)
    except InputError as error:
        raise ConfigError(f"{wrong}: {error}") from error
    if output.sample_id not in ("", request.sample.id):
        raise ConfigError(f"{wrong}: the output is of the sample {output.sample_id!r}, not of {request.sample.id!r}")
    if output.candidate not in (0, request.candidate):
        raise ConfigError(f"{wrong}: the output is candidate {output.candidate}, not {request.candidate}")
    if not isinstance(output.tokens, TokenTrace | None):
        raise ConfigError(f"{wrong}: 'tokens' must be a TokenTrace, not {describe(output.tokens)}")
    return output if output.sample_id else replace(output, sample_id=request.sample.id)
