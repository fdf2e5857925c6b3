"""Baselines of forecasts that know other samples' futures: their mean, and one of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.rollouts.baselines.base import Baseline, drawn_as, stored, whole_future
from rsw_rewards.rollouts.baselines.pictures import newest

MEAN_OF = 256
"""Futures that the mean picture is taken of, evenly spread over the samples."""

_Kind = tuple[tuple[int, ...], str]
"""Shape and type of pixels."""


class MeanImage(Baseline):
    """The mean of all true futures of the sample's size: what the least squared error without looking would be."""

    name = "mean_image"
    tasks = frozenset({Task.FORECAST})

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        self._samples = [sample for sample in samples if sample.reference.get("images")]
        self._means: dict[_Kind, np.ndarray] | None = None

    def answer(self, sample: Sample) -> Output:
        if self._means is None:
            self._means = self._mean()
        shown = newest(sample)
        pixels = stored(sample, shown)
        if (key := (pixels.shape, pixels.dtype.str)) not in self._means:
            raise ImageError(f"no true future has the size of sample {sample.id!r}")
        return whole_future(sample, drawn_as(shown, self._means[key], pixels.dtype))

    def _mean(self) -> dict[_Kind, np.ndarray]:
        sums: dict[_Kind, tuple[np.ndarray, int]] = {}
        for sample in self._samples[:: max(1, len(self._samples) // MEAN_OF)]:
            try:
                pixels = stored(sample, sample.reference["images"][-1])
            except ImageError:
                continue
            key = pixels.shape, pixels.dtype.str
            total, count = sums.get(key, (np.zeros(pixels.shape), 0))
            sums[key] = (total + np.nan_to_num(pixels), count + 1)
        return {key: total / count for key, (total, count) in sums.items()}


class OtherFuture(Baseline):
    """The true future of a sample of another scene: a real picture of the wrong place."""

    name = "other_future"
    tasks = frozenset({Task.FORECAST})

    def __init__(self, samples: Sequence[Sample] = (), seed: int = 0) -> None:
        self._samples = [sample for sample in samples if sample.reference.get("images")]
        self.seed = seed

    def answer(self, sample: Sample) -> Output:
        chance = random.Random(f"{self.seed}/{sample.id}")
        for _ in range(50):
            other = chance.choice(self._samples) if self._samples else sample
            if other.scene != sample.scene:
                return whole_future(sample, other.reference["images"][-1])
        raise ImageError("there is no sample of another scene")
