"""Baselines that draw or point: copies, full and empty masks and maps, the whole image."""

from __future__ import annotations

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_rgb, read_size
from rsw_rewards.rollouts.baselines.base import Baseline, drawn_as, in_memory, is_raster, stored

FORECAST = frozenset({Task.FORECAST})
CHANGED, NO_DAMAGE = 255, 1


def size_of(sample: Sample) -> tuple[int, int]:
    """Height and width of what a sample asks for: of its first true picture, otherwise of its newest input image.

    Raises:
        ImageError: the picture cannot be read, or the sample has none.
    """
    for key in ("mask", "map_before", "buildings", "damage"):
        if isinstance(image := sample.reference.get(key), ImageRef):
            return read_size(image)
    if not sample.images:
        raise ImageError(f"sample {sample.id!r} has no image from which the size of an output follows")
    return read_size(sample.images[-1])


def newest(sample: Sample) -> ImageRef:
    """The input image that a forecast starts from; where only a text is given, the true future, for its size.

    Raises:
        ImageError: the sample has neither.
    """
    images = sample.images or sample.reference.get("images") or ()
    if not images:
        raise ImageError(f"sample {sample.id!r} has no image")
    return images[-1]


def before(sample: Sample) -> ImageRef:
    """The newest input image. Raises :class:`ImageError` where the sample has none, as a forecast from a text alone."""
    if not sample.images:
        raise ImageError(f"sample {sample.id!r} has no input image")
    return sample.images[-1]


def _full(sample: Sample, value: int) -> ImageRef:
    return in_memory(np.full(size_of(sample), value, np.uint8))


class CopyBefore(Baseline):
    """The newest input image as the forecast, as often as images are asked for: nothing changes."""

    name = "copy_before"
    tasks = FORECAST

    def answer(self, sample: Sample) -> Output:
        if (steps := len(sample.reference.get("images") or ())) > 1:
            return Output(sample.id, images=(before(sample),) * steps)
        shown = before(sample)
        # A raster goes as it is: its bands and numbers are what is copied, not the picture made of them.
        return Output(sample.id, image=shown if is_raster(sample, shown) else in_memory(read_rgb(shown)))


class BlurredCopy(Baseline):
    """The newest input image under a Gaussian blur of two pixels: what averaging over futures looks like."""

    name = "blurred_copy"
    tasks = FORECAST

    def answer(self, sample: Sample) -> Output:
        from scipy.ndimage import gaussian_filter

        shown = before(sample)
        pixels = stored(sample, shown)
        return Output(
            sample.id, image=drawn_as(shown, gaussian_filter(pixels.astype(np.float64), (2, 2, 0)), pixels.dtype)
        )


class Filled(Baseline):
    """A change mask, or a pair of semantic change maps, that is all changed or all unchanged.

    Where a mask has classes, all changed means the first class that is a change; of maps, the first class before and the
    second after.
    """

    tasks = frozenset({Task.CHANGE_MASK, Task.SEMANTIC_CHANGE})

    def __init__(self, changed: bool) -> None:
        self.changed = changed
        self.name = "all_changed" if changed else "all_unchanged"

    def answer(self, sample: Sample) -> Output:
        if sample.task is Task.SEMANTIC_CHANGE:
            before, after = (1, 2) if self.changed else (0, 0)
            return Output(sample.id, map_before=_full(sample, before), map_after=_full(sample, after))
        changed = 1 if "classes" in sample.reference else CHANGED
        return Output(sample.id, mask=_full(sample, changed if self.changed else 0))


class Swapped(Baseline):
    """The true semantic maps in the wrong order: right places, right classes, wrong direction of time."""

    name = "swapped"
    tasks = frozenset({Task.SEMANTIC_CHANGE})

    def answer(self, sample: Sample) -> Output:
        reference = sample.reference
        return Output(sample.id, map_before=reference["map_after"], map_after=reference["map_before"])


class NoDamage(Baseline):
    """Buildings everywhere, none of them damaged: the most common answer of damage assessment, without looking."""

    name = "no_damage"
    tasks = frozenset({Task.DAMAGE})

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, buildings=_full(sample, 1), damage=_full(sample, NO_DAMAGE))


class Nothing(Baseline):
    """An answer that is there and holds nothing: a mask or maps of zeros, no boxes."""

    name = "empty"
    tasks = frozenset({Task.CHANGE_MASK, Task.SEMANTIC_CHANGE, Task.DAMAGE, Task.GROUNDING})

    def answer(self, sample: Sample) -> Output:
        if sample.task is Task.CHANGE_MASK:
            return Output(sample.id, mask=_full(sample, 0))
        if sample.task is Task.SEMANTIC_CHANGE:
            return Output(sample.id, map_before=_full(sample, 0), map_after=_full(sample, 0))
        if sample.task is Task.DAMAGE:
            return Output(sample.id, buildings=_full(sample, 0), damage=_full(sample, 0))
        if "mask" in sample.reference:
            return Output(sample.id, mask=_full(sample, 0))
        return Output(sample.id, boxes=())


class WholeImage(Baseline):
    """The whole image, as a box or as a mask, wherever the thing referred to may be."""

    name = "whole_image"
    tasks = frozenset({Task.GROUNDING})

    def answer(self, sample: Sample) -> Output:
        if "mask" in sample.reference:
            return Output(sample.id, mask=_full(sample, CHANGED))
        height, width = map(float, size_of(sample))
        true = sample.reference.get("boxes") or [[0.0] * 4]
        if len(true[0]) == 8:
            return Output(sample.id, boxes=((0.0, 0.0, width, 0.0, width, height, 0.0, height),))
        return Output(sample.id, boxes=((0.0, 0.0, width, height),))
