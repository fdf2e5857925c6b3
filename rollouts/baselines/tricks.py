"""Outputs that have pleased careless verifiers, for the degenerate-policy suite of ``rsw validate``; no row for a table."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.io.images import read_rgb
from rsw_rewards.rollouts.baselines.base import Baseline, drawn_as, in_memory, is_raster, stored
from rsw_rewards.rollouts.baselines.pictures import newest, size_of
from rsw_rewards.rollouts.baselines.texts import ANSWERS, CAPTIONS, AllLabels
from rsw_rewards.verifiers.bands import read_units

_PICTURES = frozenset({Task.FORECAST, Task.CHANGE_MASK, Task.SEMANTIC_CHANGE, Task.DAMAGE, Task.GROUNDING})


class Letter(Baseline):
    """One letter, which stands in most answers: what a search for substrings takes for right."""

    name = "letter"
    tasks = ANSWERS | CAPTIONS

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text="s")


class Echo(Baseline):
    """The question given back; it names the things that are asked about."""

    name = "echo"
    tasks = ANSWERS | CAPTIONS

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text=sample.prompt)


class Hedge(AllLabels):
    """All answers in one sentence: one of them is right."""

    name = "hedge"

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        super().__init__(samples, separator=" or ")


class EveryTag(AllLabels):
    """An answer tag for each of all answers: a parser that takes the one it likes finds it."""

    name = "every_tag"

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        super().__init__(samples, separator="</answer><answer>")

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text=f"<answer>{super().answer(sample).text}</answer>")


class Repeat(Baseline):
    """The most common words of change captions over and over: what counts of n-grams without a limit would take for fluency."""

    name = "repeat"
    tasks = CAPTIONS

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text="a road and some houses are built " * 20)


class Noise(Baseline):
    """Random pixels, or a random box, drawn from the sample's id."""

    name = "noise"
    tasks = _PICTURES

    @staticmethod
    def _picture(sample: Sample, chance: np.random.Generator) -> ImageRef:
        shown = newest(sample)
        if not is_raster(sample, shown):
            return in_memory(chance.integers(0, 256, read_rgb(shown).shape, np.uint8))
        pixels = stored(sample, shown)
        limits = read_units(sample.metadata, pixels.dtype)
        low, high = np.array(limits.low), np.array(limits.high)
        if shown.stretch is not None and sample.metadata.get("valid_range") is None:
            low, high = (np.array(side) for side in zip(*shown.stretch, strict=True))
        return drawn_as(shown, low + (high - low) * chance.random(pixels.shape), pixels.dtype)

    def answer(self, sample: Sample) -> Output:
        chance = np.random.default_rng(zlib.crc32(sample.id.encode()))
        if sample.task is Task.FORECAST:
            drawn = [self._picture(sample, chance) for _ in sample.reference.get("images") or (0,)]
            return Output(sample.id, images=tuple(drawn)) if len(drawn) > 1 else Output(sample.id, image=drawn[0])
        height, width = size_of(sample)

        def classes(count: int) -> np.ndarray:
            return chance.integers(0, count, (height, width), np.uint8)

        if sample.task is Task.SEMANTIC_CHANGE:
            return Output(sample.id, map_before=in_memory(classes(7)), map_after=in_memory(classes(7)))
        if sample.task is Task.DAMAGE:
            return Output(sample.id, buildings=in_memory(classes(2)), damage=in_memory(classes(5)))
        if sample.task is Task.CHANGE_MASK or "mask" in sample.reference:
            return Output(sample.id, mask=in_memory(classes(2) * (1 if "classes" in sample.reference else 255)))
        rng = random.Random(sample.id)
        left, right = sorted(rng.uniform(0, width) for _ in range(2))
        top, bottom = sorted(rng.uniform(0, height) for _ in range(2))
        return Output(sample.id, boxes=((left, top, right, bottom),))
