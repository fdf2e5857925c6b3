"""Where a forecast is held against the true future: the regions that means are taken over, and registration.

Errors are averaged over the pixels of a region. Multiplying both images by a mask and averaging over the full frame would
shrink the error with the region's area: by 10 log10(1 / share), 17 dB for a mask of a fiftieth of the picture.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import Field

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


def steadied(image: np.ndarray, before: np.ndarray, levels: int) -> np.ndarray:
    """An (H, W, C) image with the pixels of ``before`` where no channel differs from it by more than ``levels``.

    >>> before = np.array([[[10, 10, 10], [10, 10, 10]]], np.uint8)
    >>> steadied(before + np.array([[[3, 0, 0], [0, 90, 0]]], np.uint8), before, 12).tolist()
    [[[10, 10, 10], [10, 100, 10]]]
    """
    if not levels:
        return image
    moved = np.abs(image.astype(np.int16) - before).max(axis=-1) > levels
    return np.where(moved[..., None], image, before)


def ignore_levels(network: str, also: str = "") -> Any:
    """The option of a verifier that shows :func:`steadied` images to a network."""
    return Field(
        0,
        ge=0,
        le=64,
        description="pixels whose channels differ from the input by at most so many grey levels are shown to the "
        f"{network} as the input has them, in forecast and true future: a perturbation that no one sees moves nothing{also}",
    )
