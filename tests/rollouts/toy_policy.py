"""A policy without a network, for tests: everything it makes follows from the seed and one weight; faults on demand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request


class ToyPolicy(Policy):
    """``fault`` is ``kill``, ``raise`` or ``hang``; it strikes while fewer than ``times`` files lie in ``marks``."""

    name = "toy"
    trainable = True

    def __init__(self, fault: str | None = None, marks: Path | None = None, times: int = 1) -> None:
        self.fault, self.marks, self.times = fault, marks, times
        self.weight = 0.0

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        self.weight = float(weights["w"])

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        self._fault()
        return [self._one(request) for request in requests]

    def _fault(self) -> None:
        if self.fault is None or self.marks is None:
            return
        struck = len(list(self.marks.iterdir()))
        if struck >= self.times:
            return
        (self.marks / f"{struck}-{os.getpid()}").touch()
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(600)
        raise ValueError("the toy policy was told to fail")

    def _one(self, request: Request) -> Output:
        rng = np.random.default_rng(request.seed)
        tokens = TokenTrace((1, 2), (int(rng.integers(3, 9)), 0), (-1.0, 0.0))
        if request.sample.task is Task.FORECAST:
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = ImageRef(array=pixels, sha256=content_hash(pixels))
            return Output(request.sample.id, image=image, tokens=tokens)
        return Output(request.sample.id, text=f"{rng.integers(100)} {self.weight}", tokens=tokens)


def toy_samples(count: int = 6) -> list[Sample]:
    """Forecasts and questions in turn, their images in memory."""
    rng = np.random.default_rng(0)
    images = [ImageRef(array=rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(2)]
    return [
        Sample(f"s{n}", Task.FORECAST, (images[0],), "draw", {"images": [images[1]]}, scene=f"scene{n}")
        if n % 2
        else Sample(
            f"s{n}", Task.CHANGE_QA, tuple(images), "how many?", {"answers": ["1"]}, scene=f"scene{n}", kind="count"
        )
        for n in range(count)
    ]
