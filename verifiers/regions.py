"""Where a forecast is held against the true future: reading the pictures, the regions that means are taken over, registration.

Errors are averaged over the pixels of a region. Multiplying both images by a mask and averaging over the full frame would
shrink the error with the region's area: by 10 log10(1 / share), 17 dB for a mask of a fiftieth of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rsw_rewards.core.records import ImageRef, Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.shown import counted, covered, forecast_shown, in_bands, lacking_bands, one_colour

Region = Literal["all", "inside", "outside"]

MAX_SHIFT = 3
"""Pixels of misregistration that may be tolerated at most: further, a building moved to another place would be forgiven."""


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """The (H, W) bool mask grown by ``radius`` pixels in all eight directions (a square of side ``2 radius + 1``)."""
    grown = mask
    for axis in (0, 1):
        source, grown = grown, grown.copy()
        for shift in range(1, min(radius, mask.shape[axis] - 1) + 1):
            ahead = [slice(None), slice(None)]
            behind = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(shift, None), slice(None, -shift)
            grown[tuple(ahead)] |= source[tuple(behind)]
            grown[tuple(behind)] |= source[tuple(ahead)]
    return grown


def region_weights(mask: np.ndarray | None, valid: np.ndarray, region: Region, band: int = 1) -> np.ndarray:
    """The pixels that a region's mean is taken over.

    Args:
        mask: (H, W) bool, where something changes; may be None for the region ``all``.
        valid: (H, W) bool, pixels that count at all.
        region: ``all``, ``inside`` the mask, or ``outside`` it.
        band: width in pixels of the ring around the mask that belongs to neither side, because masks are drawn and images
            registered to about a pixel. The inside keeps its edge, so that a road two pixels wide is not lost.

    Returns:
        (H, W) bool.
    """
    if region == "all":
        return valid
    if mask is None:
        raise ValueError(f"the region {region!r} needs a mask")
    return valid & (mask if region == "inside" else ~dilate(mask, band))


def region_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the (H, W) float64 values where the bool weights are True; NaN for an empty region."""
    chosen = values[weights]
    return float(chosen.mean()) if chosen.size else math.nan


@dataclass(frozen=True, slots=True)
class Truth:
    """What a sample says of the future, decoded. All arrays share height and width."""

    future: np.ndarray
    """(H, W, 3) uint8, the true future; one colour where no pixel counts."""
    before: np.ndarray | None
    """(H, W, 3) uint8, the newest image the model was shown, likewise; None where it was not asked for."""
    valid: np.ndarray
    """(H, W) bool, pixels that count: see :mod:`rsw_rewards.verifiers.shown`."""
    mask: np.ndarray | None
    """(H, W) bool, the reference change mask, if there is one."""
    source: ImageRef
    """The true future, which says how a raster is shown."""
    bands: tuple[int, ...] | None = None
    """The bands that an encoder reads in place of those shown."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a forecast is held against, decoded. All arrays share height and width; see :class:`Truth`."""

    forecast: np.ndarray
    """(H, W, 3) uint8."""
    future: np.ndarray
    before: np.ndarray | None
    valid: np.ndarray
    mask: np.ndarray | None


def read_future(
    bank: FeatureBank, sample: Sample, before: bool = False, bands: tuple[int, ...] | None = None
) -> Truth | Score:
    """The true future of a sample, or the score of a sample that has none; of a series, its last frame.

    Args:
        bank: what decodes.
        sample: a forecast to make.
        before: read the newest input image as well.
        bands: three bands of a raster to read in place of those shown; a sample without them is not applicable.
    """
    images: Sequence[ImageRef] = sample.reference.get("images") or ()
    if not images:
        return Score.not_applicable("the sample has no true future image (reference.images)")
    if before and not sample.images:
        return Score.not_applicable("the sample has no input image")
    try:
        if (lacks := lacking_bands(images[-1], bands)) is not None:
            return lacks
        future = bank.rgb(in_bands(images[-1], bands))
        shown = bank.rgb(in_bands(sample.images[-1], bands)) if before else None
        if shown is not None:
            _same_size("the input image", shown, future)
        valid = counted(bank, sample, [images[-1], *sample.images[-1:]], future.shape[:2])
        mask = None
        if (changed := sample.reference.get("mask")) is not None:
            mask = bank.mask(changed)
            _same_size("reference.mask", mask, future)
    except ImageError as error:
        return Score.error(str(error))
    if valid.any() and not valid.all():
        # What lies there must move no number, not even through a network that sees farther than a pixel.
        colour = one_colour(future, valid)
        future, shown = covered(future, valid, colour), None if shown is None else covered(shown, valid, colour)
    return Truth(future, shown, valid, mask, images[-1], bands)


def read_forecast(bank: FeatureBank, output: Output, truth: Truth) -> np.ndarray:
    """The forecast image of an output, (H, W, 3) uint8 of the future's size; of a series, its last frame.

    Raises:
        ImageError: there is none, it cannot be read or shown as the future is, or it has another size.
    """
    if output.forecast is None:
        raise ImageError("the output holds no image")
    return bank.rgb(forecast_shown(bank, output.forecast, truth.source, truth.valid, truth.bands))


def read_pair(bank: FeatureBank, sample: Sample, output: Output, before: bool = False) -> Pair | Score:
    """The decoded images of a forecast, or the score that stands in for one that cannot be compared.

    The sample is looked at before the output, so that a missing truth is never the policy's fault.
    """
    truth = read_future(bank, sample, before)
    if isinstance(truth, Score):
        return truth
    try:
        forecast = read_forecast(bank, output, truth)
    except ImageError as error:
        return Score.invalid(str(error))
    return Pair(forecast, truth.future, truth.before, truth.valid, truth.mask)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _same_size(what: str, image: np.ndarray, future: np.ndarray) -> None:
    if image.shape[:2] != future.shape[:2]:
        raise ImageError(f"{what} is {_size(image)} pixels, the true future {_size(future)}")


def inset(values: np.ndarray, shift: int) -> np.ndarray:
    """The (H, W, ...) array without its outer ``shift`` pixels: what every shift by as much still overlaps."""
    return values[shift : values.shape[0] - shift, shift : values.shape[1] - shift]


def aligned(image: np.ndarray, future: np.ndarray, valid: np.ndarray, shift: int) -> np.ndarray:
    """The window of an image that fits the future best, among all shifts by whole pixels up to ``shift``.

    Every shift is judged on the same pixels, so that none gains by leaving some out. Of equally good ones the smallest is taken.

    Args:
        image: (H, W, 3) uint8.
        future: (H - 2 shift, W - 2 shift, 3) uint8, the future without its outer pixels (:func:`inset`).
        valid: (H - 2 shift, W - 2 shift) bool, pixels on which the squared error is summed.
        shift: pixels, 0 .. :data:`MAX_SHIFT`.

    Returns:
        A view of the future's shape.
    """
    if shift == 0:
        return image
    height, width = valid.shape
    wide, true = image.astype(np.int16), future.astype(np.int16)
    steps = range(-shift, shift + 1)
    best, least = (0, 0), math.inf
    for down, right in sorted(
        ((y, x) for y in steps for x in steps), key=lambda step: (step[0] ** 2 + step[1] ** 2, step)
    ):
        top, left = shift + down, shift + right
        difference = wide[top : top + height, left : left + width] - true
        error = int(np.square(difference, dtype=np.int32).sum(axis=-1)[valid].sum(dtype=np.int64))
        if error < least:
            best, least = (top, left), error
    return image[best[0] : best[0] + height, best[1] : best[1] + width]
