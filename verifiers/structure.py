"""Structural similarity of a forecast to the true future, at one scale (SSIM) and at several (MS-SSIM)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from rsw_rewards.verifiers.paired_base import Likeness, PairedConfig, PairedTruth, paired_card
from rsw_rewards.verifiers.regions import region_mean

SSIM_RADIUS = 5
"""Half width of the 11-pixel Gaussian window of Wang et al. 2004."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, the finest first (Wang, Simoncelli and Bovik 2003)."""

C1, C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2


def _local_mean(valid: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """The mean under the Gaussian window around every pixel of (..., H, W) float64 arrays, over valid pixels alone."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window /= window.sum()

    def local(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, window, axis=-2, mode="reflect"), window, axis=-1, mode="reflect")

    if valid is None or valid.all():
        return local
    present = valid.astype(np.float64)
    share = np.maximum(local(present), 1e-12)
    return lambda values: local(values * present) / share


def ssim_terms(x: np.ndarray, y: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of luminance, and of contrast and structure together, around every pixel: two (C, H, W) float64 arrays.

    Args:
        x: (C, H, W) float64 in [0, 255].
        y: likewise.
        valid: (H, W) bool. Local moments are taken over valid pixels alone, so that a hole does not colour its surroundings.
    """
    mean = _local_mean(valid)
    mean_x, mean_y = mean(x), mean(y)
    squares = mean_x * mean_x + mean_y * mean_y
    product = mean_x * mean_y
    variances = mean(x * x + y * y) - squares
    covariance = mean(x * y) - product
    return (2.0 * product + C1) / (squares + C1), (2.0 * covariance + C2) / (variances + C2)


def _planes(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> contiguous (C, H, W) float64."""
    return np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float64)


def ssim_map(first: np.ndarray, second: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity around every pixel of two (H, W, 3) uint8 images, averaged over channels: (H, W) float64.

    Wang, Bovik, Sheikh and Simoncelli 2004: 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 255,
    population moments; borders are mirrored. Its mean without the outer 5 pixels is the usual SSIM.

    Args:
        valid: (H, W) bool, pixels that local moments are taken over.
    """
    luminance, structure = ssim_terms(_planes(first), _planes(second), valid)
    return (luminance * structure).mean(axis=0)


def interior(shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: pixels whose SSIM window lies inside the image."""
    inner = np.zeros(shape, dtype=bool)
    inner[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS] = True
    return inner


def halved(values: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 blocks of a (..., H, W) float64 array; an odd last row or column is left out, as average pooling does."""
    even = values[..., : values.shape[-2] // 2 * 2, : values.shape[-1] // 2 * 2]
    return 0.25 * (even[..., ::2, ::2] + even[..., 1::2, ::2] + even[..., ::2, 1::2] + even[..., 1::2, 1::2])


def scale_weights(weights: np.ndarray, scales: int, inner: bool) -> list[np.ndarray]:
    """How much every pixel of every scale counts, the finest first: the share of it that the region covers.

    Args:
        weights: (H, W) bool, the pixels of a region.
        scales: how many scales.
        inner: count only pixels whose window lies inside the image.

    Returns:
        (H / 2^j, W / 2^j) float64 arrays; one may be zero throughout, where the scale is too small.
    """
    shares = [weights.astype(np.float64)]
    while len(shares) < scales:
        shares.append(halved(shares[-1]))
    return [share * interior(share.shape) for share in shares] if inner else shares


def _coarser(
    x: np.ndarray, y: np.ndarray, present: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Both images and the pixels that count at half the size."""
    if present is None:
        return halved(x), halved(y), None
    covered = np.maximum(halved(present), 1e-12)
    return halved(x * present) / covered, halved(y * present) / covered, (covered > 1e-12).astype(np.float64)


def ms_ssim(first: np.ndarray, second: np.ndarray, shares: list[np.ndarray], valid: np.ndarray | None = None) -> float:
    """Multi-scale structural similarity of two (H, W, 3) uint8 images, in [0, 1].

    Wang, Simoncelli and Bovik 2003: images are halved by 2 x 2 means; contrast and structure of every scale, with luminance at
    the coarsest alone, are averaged and multiplied with the exponents of :data:`SCALE_WEIGHTS`, those of as many scales as there
    are brought to sum 1. A negative mean counts as 0.

    Args:
        shares: from :func:`scale_weights`, none of them zero throughout.
        valid: (H, W) bool, pixels that count: the others enter neither local moments nor the halved images.
    """
    exponents = np.array(SCALE_WEIGHTS[: len(shares)])
    if len(shares) < len(SCALE_WEIGHTS):  # the published five sum to 1.0001 and are left so
        exponents /= exponents.sum()
    x, y = _planes(first), _planes(second)
    present = None if valid is None or valid.all() else valid.astype(np.float64)
    result = 1.0
    for scale, (share, exponent) in enumerate(zip(shares, exponents, strict=True)):
        if scale:
            x, y, present = _coarser(x, y, present)
        luminance, structure = ssim_terms(x, y, None if present is None else present > 0.0)
        likeness = (luminance * structure if scale == len(shares) - 1 else structure).mean(axis=0)
        mean = float((likeness * share).sum() / share.sum())
        result *= max(0.0, mean) ** float(exponent)
    return result


class Ssim(Likeness):
    """Structural similarity of the forecast to the true future."""

    name = "ssim"
    bounds = (-1.0, 1.0)
    worst_number = -1.0
    floor = 0.08
    card = paired_card(
        summary="Structural similarity (11 x 11 Gaussian window, RGB) of the forecast to the true future, as the mean over the pixels that `region` chooses.",
        range="[-1, 1], 1 = equal; an invalid output counts as -1. Its distance is 1 - ssim; min_change is 0.08",
        transform="(ssim + 1) / 2",
        source="Wang, Bovik, Sheikh and Simoncelli 2004; equal to scikit-image with gaussian_weights and sigma 1.5",
        gaming=(
            "A copy of the input is nearly perfect if little changes: report it beside gain_over_copy, or inside the "
            "mask."
        ),
        cost="35 ms for 256 x 256 on a CPU",
    )

    def restrict(self, weights: np.ndarray) -> np.ndarray:
        return weights & interior(weights.shape) if self.config.region == "all" else weights

    def number(self, truth: PairedTruth, image: np.ndarray) -> float:
        return region_mean(ssim_map(image, truth.future, truth.valid), truth.weights)


class MsSsim(Likeness):
    """Multi-scale structural similarity of the forecast to the true future."""

    name = "ms_ssim"
    bounds = (0.0, 1.0)
    worst_number = 0.0
    floor = 0.025

    class Config(PairedConfig):
        """Over how many scales."""

        scales: int = Field(
            5, ge=1, le=5, description="scales, each half as large; the smallest must still hold an 11-pixel window"
        )

    card = paired_card(
        summary="Structural similarity at five scales (RGB), each the mean over the pixels that `region` chooses.",
        range="[0, 1], 1 = equal; an invalid output counts as 0. Its distance is 1 - ms_ssim; min_change is 0.025",
        transform="none",
        source=(
            "Wang, Simoncelli and Bovik 2003, exponents 0.0448, 0.2856, 0.3001, 0.2363, 0.1333 (those of "
            "fewer scales brought to sum 1)"
        ),
        gaming="It gives little weight to fine texture, so the blurred mean of possible futures gets more than from ssim",
        cost="45 ms for 256 x 256 on a CPU",
    )

    @property
    def stem(self) -> str:
        scales = self.config.scales
        return self.name if scales == len(SCALE_WEIGHTS) else f"{self.name}_{scales}scales"

    def refuse(self, truth: PairedTruth) -> str:
        height, width = truth.weights.shape
        least = (2 * SSIM_RADIUS + 1) << (self.config.scales - 1)
        if min(height, width) < least:
            fits = int(math.log2(min(height, width) / (2 * SSIM_RADIUS + 1))) + 1 if min(height, width) > 10 else 0
            advice = f"set scales: {fits}" if fits else "it is too small for one"
            return f"{width} x {height} pixels are too few for {self.config.scales} scales (at least {least}); {advice}"
        if not all(share.any() for share in self._shares(truth)):
            return f"no pixel counts in the region {self.config.region!r} at {self.config.scales} scales"
        return ""

    def _shares(self, truth: PairedTruth) -> list[np.ndarray]:
        return scale_weights(truth.weights, self.config.scales, inner=self.config.region == "all")

    def number(self, truth: PairedTruth, image: np.ndarray) -> float:
        return ms_ssim(image, truth.future, self._shares(truth), truth.valid)
