"""Replica: one copy of a policy, which makes outputs whose images can travel apart from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output
from rsw_rewards.extras import has
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request, outputs_of, set_up
from rsw_rewards.rollouts.weights import unpack_weights

_IMAGE_FIELDS = tuple(item.name for item in fields(Output) if "ImageRef" in str(item.type))


class Replica:
    """One copy of the policy, in an actor or in this process; a :class:`rsw_rewards.engine.workers.Worker`."""

    def setup(self, policy: Policy, device: str, threads: int) -> None:
        """Load the policy. Raises :class:`RswError`."""
        self.policy, self.version = policy, 0
        set_up(policy, device, threads)

    def update(self, packed: Mapping[str, Any], version: int) -> None:
        """Take weights out of the object store; what is read there is shared and read-only, so it is copied."""
        self.policy.load_weights(unpack_weights(packed), version)
        self.version = version

    def made(self, requests: Sequence[Request], version: int) -> list[Output]:
        """Outputs of requests. Raises when the weights are not those asked for."""
        if self.version != version:
            raise RuntimeError(f"this replica holds version {self.version} of the weights, not {version}")
        return [
            replace(
                map_images(_sane(output), _hashed),
                sample_id=request.sample.id,
                candidate=request.candidate,
                seed=request.seed,
                policy_version=version,
            )
            for request, output in zip(requests, outputs_of(self.policy, requests), strict=True)
        ]

    def work(self, requests: Sequence[Request], version: int) -> tuple[list[Output], list[np.ndarray]]:
        """The same with images as indices into the second list, so that their pixels can travel apart."""
        pixels: list[np.ndarray] = []

        def apart(image: ImageRef) -> ImageRef:
            if image.array is None:
                return image
            pixels.append(image.array)
            return replace(image, array=None, index=len(pixels) - 1)

        return [map_images(output, apart) for output in self.made(requests, version)], pixels


def _sane(output: Output) -> Output:
    """The output, or why it is none: tokens sampled from what is no distribution would be scored like any others."""
    if output.tokens is None or np.isfinite(output.tokens.logprobs).all():
        return output
    why = "the policy's probabilities are not numbers, so its weights or logits are not finite; go back to an earlier checkpoint"
    return Output(output.sample_id, output.candidate, lost=why)


def _hashed(image: ImageRef) -> ImageRef:
    """An image whose pixels are at hand, with the hash of its content."""
    if image.array is None or image.sha256:
        return image
    return replace(image, sha256=content_hash(image.array))


def with_refs(output: Output, pixels: Any) -> Output:
    """An output of a replica with its images in Ray's store, where ``pixels`` refers to the list of them."""
    return map_images(output, lambda image: image if image.path is not None else replace(image, ref=pixels))


def map_images(output: Output, change: Callable[[ImageRef], ImageRef], but: str = "") -> Output:
    """An output with every image changed, but those of one field."""
    changed: dict[str, Any] = {}
    for name in _IMAGE_FIELDS:
        value = getattr(output, name) if name != but else None
        if isinstance(value, ImageRef):
            changed[name] = change(value)
        elif value is not None:
            changed[name] = tuple(change(image) for image in value)
    return replace(output, **changed) if changed else output


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many torch threads inside, as many as before afterwards: this process has other work as well."""
    if not has("torch"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
