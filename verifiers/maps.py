"""Masks and class maps as truth and as prediction: read, checked against each other, and what makes either unusable.

Pixels that do not count are those outside ``reference.valid`` and those of a true map that hold its ``nodata`` value. They are
never looked at in a prediction. ``nodata`` of a prediction means nothing: a model must answer for every pixel that counts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.image_values import levels_of
from rsw_rewards.core.metric import Frame, SumMetric
from rsw_rewards.core.per_sample import PerSample, Unscored
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score, ScoreTable
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.io.images import Decoded, read_class_map, read_index, read_marked, read_mask


@dataclass(frozen=True, slots=True)
class MapTruth:
    """The true maps of a sample, of one size."""

    maps: tuple[np.ndarray, ...]
    """(H, W) bool or uint8 each; pixels that do not count hold anything."""
    valid: np.ndarray | None
    """(H, W) bool, the pixels that count; None where all do. At least one does."""

    def counted(self, marked: np.ndarray) -> np.ndarray:
        """(H, W) bool: what is marked, where pixels count."""
        return marked if self.valid is None else marked & self.valid


def in_levels(image: ImageRef, levels: Sequence[int] | None) -> ImageRef:
    """The image with the ``levels`` of its reference, where its own entry names none. Raises :class:`InputError`."""
    return image if levels is None or image.levels is not None else replace(image, levels=levels_of(levels, "levels"))


def read_truth(sample: Sample, keys: Sequence[str], read: Callable[[ImageRef], Decoded]) -> MapTruth:
    """The maps that ``keys`` of the reference name, with the pixels that count. Raises :class:`Unscored` where there is none."""
    reference = sample.reference
    for key in keys:
        if not isinstance(reference.get(key), ImageRef):
            raise Unscored(Score.error(f"sample {sample.id!r} has no 'reference.{key}'"))
    try:
        decoded = [read(reference[key]) for key in keys]
        valid = read_mask(reference["valid"]) if isinstance(reference.get("valid"), ImageRef) else None
    except InputError as error:
        raise Unscored(Score.error(f"the truth of sample {sample.id!r} cannot be read: {error}")) from error
    maps = tuple(pixels for pixels, _ in decoded)
    sizes = dict.fromkeys(size_of(pixels) for pixels in (*maps, *(() if valid is None else (valid,))))
    if len(sizes) > 1:
        raise Unscored(
            Score.error(f"the true maps and valid pixels of sample {sample.id!r} differ in size: {', '.join(sizes)}")
        )
    for _, data in decoded:
        if data is not None:
            valid = data if valid is None else valid & data
    if maps[0].size == 0 or (valid is not None and not valid.any()):
        raise Unscored(Score.not_applicable("the sample has no pixel that counts"))
    return MapTruth(maps, None if valid is None or valid.all() else valid)


def read_class_truth(
    sample: Sample, keys: Sequence[str], classes: int, levels: Sequence[int] | None = None
) -> MapTruth:
    """:func:`read_truth` of class maps, as uint8 indices below ``classes`` where they count."""
    truth = read_truth(sample, keys, lambda image: read_class_map(in_levels(image, levels)))
    for key, pixels in zip(keys, truth.maps, strict=True):
        if (odd := _odd_value(pixels, truth.valid, classes)) is not None:
            raise Unscored(
                Score.error(
                    f"'reference.{key}' of sample {sample.id!r} holds the value {odd}; classes are 0 .. {classes - 1} "
                    f"(say 'nodata' in the reference for pixels without a label)"
                )
            )
    return MapTruth(tuple(pixels.astype(np.uint8, copy=False) for pixels in truth.maps), truth.valid)


def fitted(pixels: np.ndarray, truth: MapTruth, what: str) -> np.ndarray:
    """A predicted map that has the size of the true one. Raises :class:`ImageError` where it has not."""
    if pixels.shape != truth.maps[0].shape:
        raise ImageError(f"the {what} has {size_of(pixels)} pixels, the true one {size_of(truth.maps[0])}")
    return pixels


def read_classes(image: ImageRef | None, truth: MapTruth, classes: int, what: str) -> np.ndarray:
    """A predicted map of class indices as (H, W) uint8, below ``classes`` where pixels count.

    Raises:
        ImageError: missing, unreadable, of another size than the truth, or with a value that is no class.
    """
    if image is None:
        raise ImageError(f"no {what} in the output")
    return as_classes(fitted(read_index(image), truth, what), truth, classes, what)


def as_classes(pixels: np.ndarray, truth: MapTruth, classes: int, what: str) -> np.ndarray:
    """Predicted class indices as (H, W) uint8. Raises :class:`ImageError` for one that is no class, where pixels count."""
    if (odd := _odd_value(pixels, truth.valid, classes)) is not None:
        raise ImageError(f"the {what} holds the value {odd}; classes are 0 .. {classes - 1}")
    return pixels.astype(np.uint8, copy=False)


def predicted_mask(image: ImageRef | None, truth: MapTruth, what: str) -> np.ndarray:
    """A predicted mask as (H, W) bool, which answers for every pixel that counts.

    Raises:
        ImageError: missing, unreadable, of another size than the truth, or without data where pixels count.
    """
    if image is None:
        raise ImageError(f"no {what} in the output")
    marked, data = read_marked(image)
    fitted(marked, truth, what)
    if data is not None and not (data if truth.valid is None else data | ~truth.valid).all():
        raise ImageError(f"the {what} has no data (its 'nodata' value) in pixels that count")
    return marked


def _odd_value(pixels: np.ndarray, valid: np.ndarray | None, classes: int) -> int | None:
    """A value that is no class among the pixels that count."""
    if pixels.dtype == bool:
        return None
    counted = pixels if valid is None else pixels * valid
    high, low = int(counted.max(initial=0)), int(counted.min(initial=0))
    return high if high >= classes else (low if low < 0 else None)


def size_of(pixels: np.ndarray) -> str:
    """Width and height in words."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


class MapVerifier(PerSample[MapTruth]):
    """What verifiers of maps share: an output that cannot be used is wrong everywhere."""

    @abstractmethod
    def worst(self, truth: MapTruth, reason: str) -> Score:
        """The score of an output that cannot be used: wrong in every pixel, or it would improve summed metrics by its absence."""


@dataclass(frozen=True)
class ExplainedMetric(SumMetric):
    """A metric of sums that says in words why a number is undefined."""

    why: Callable[[Mapping[str, np.ndarray]], Mapping[str, str]] = lambda sums: {}
    """Key -> reason, for the keys that have no number under these sums."""

    def notes(self, rows: Frame) -> dict[str, str]:
        """Key -> why it cannot be computed from these rows."""
        return dict(self.why({name: stat.sum(axis=0) for name, stat in ScoreTable(rows).stats().items()}))
