"""A policy whose pictures are large enough for Ray's object store, and which takes its time; for tests of several nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request


class LargePictures(Policy):
    """Draws noise that follows from seed and weights; ``seconds`` per output."""

    name = "large-pictures"
    trainable = True

    def __init__(self, side: int, seconds: float = 0.0) -> None:
        self.side, self.seconds = side, seconds
        self.weight = 0

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        self.weight = int(weights["w"])

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        time.sleep(self.seconds * len(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Output:
        rng = np.random.default_rng([request.seed, self.weight])
        pixels = rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return Output(request.sample.id, image=ImageRef(array=pixels, sha256=content_hash(pixels)))
