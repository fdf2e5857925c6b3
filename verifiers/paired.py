"""A forecast held against the true future, pixel by pixel: PSNR, L1, MSE, and the gain over copying the input.

Structural similarity is in :mod:`rsw_rewards.verifiers.structure`, LPIPS in :mod:`rsw_rewards.verifiers.perceptual`, features of
an encoder in :mod:`rsw_rewards.verifiers.encoder_similarity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from rsw_rewards.verifiers.paired_base import (
    Paired,
    PairedConfig,
    PairedTruth,
    gain_over_copy,
    gain_to_value,
    paired_card,
)
from rsw_rewards.verifiers.regions import region_mean, region_weights

__all__ = [
    "MIN_CHANGE", "Distance", "error_map", "gain_over_copy", "gain_to_value", "psnr", "region_mean",
    "region_weights",
]  # fmt: skip

Distance = Literal["mse", "l1"]

MIN_CHANGE: Mapping[Distance, float] = {"mse": 0.003, "l1": 0.03}
"""Least error of copying that a gain is divided by, pixels in [0, 1]: about what sensor noise alone makes of an unchanged scene."""

PSNR_CEILING_DB = 100.0
"""PSNR of equal images, which would be infinite: a mean over images must stay a number."""


def error_map(first: np.ndarray, second: np.ndarray, distance: Distance = "mse") -> np.ndarray:
    """Squared or absolute difference of two (H, W, 3) uint8 images in units of [0, 1], averaged over channels: (H, W) float64."""
    difference = (first.astype(np.float64) - second.astype(np.float64)) / 255.0
    return (np.square(difference) if distance == "mse" else np.abs(difference)).mean(axis=-1)


def farthest(future: np.ndarray) -> np.ndarray:
    """The uint8 image that no other is farther from than a uint8 future."""
    return np.where(future > 127, 0, 255).astype(np.uint8)


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error in units of [0, 1], at most :data:`PSNR_CEILING_DB`."""
    return min(PSNR_CEILING_DB, -10.0 * math.log10(mse)) if mse > 0.0 else PSNR_CEILING_DB


class PixelError(Paired):
    """Base of the verifiers whose number is a mean error of pixels."""

    error: ClassVar[Distance] = "mse"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def kind(self) -> Distance:
        """Squared or absolute error."""
        return self.error

    def default_floor(self) -> float:
        return MIN_CHANGE[self.kind()]

    def number(self, truth: PairedTruth, image: np.ndarray) -> float:
        return region_mean(error_map(image, truth.future, self.kind()), truth.weights)

    def worst_sums(self, truth: PairedTruth) -> dict[str, Any]:
        return self.sums(self.number(truth, farthest(truth.future)), self.number(truth, self.copy(truth)))


class Psnr(PixelError):
    """Peak signal-to-noise ratio of the forecast to the true future."""

    name = "psnr"
    worst_number = 0.0
    bounds = (0.0, PSNR_CEILING_DB)
    gain_bounds = (-PSNR_CEILING_DB, PSNR_CEILING_DB)

    class Config(PairedConfig):
        """Where PSNR is taken and how it becomes a value."""

        scale: float = Field(0.1, gt=0.0, description="root mean squared error (in units of [0, 1]) that is worth 0.5")

    card = paired_card(
        summary="Peak signal-to-noise ratio of the forecast to the true future over the pixels that `region` chooses; the mean of images is reported.",
        range=f"dB, at most {PSNR_CEILING_DB:g} (equal images); an invalid output counts as 0 dB. With gain: dB above a copy",
        transform="1 / (1 + rmse / scale): 0.5 at 20 dB with the default scale 0.1, 1 for equal images",
        source="-10 log10(MSE), pixels in [0, 1], MSE over the pixels of the region and the three channels",
        gaming="Copies of the input, and the blurred mean of possible futures, get high values: report it beside "
        "gain_over_copy",
        cost="3 ms for 256 x 256 on a CPU",
    )

    def worth(self, number: float) -> float:
        return 1.0 / (1.0 + math.sqrt(number) / self.config.scale)

    def raw(self, number: float) -> dict[str, float]:
        return {"psnr": psnr(number), "mse": number}

    def gain(self, number: float, copied: float) -> float:
        return psnr(number) - psnr(max(copied, self.least_change()))

    def sums(self, number: float, copied: float) -> dict[str, Any]:
        return {"gained": np.float64(self.gain(number, copied)), "possible": np.float64(1.0)}


class L1(PixelError):
    """Mean absolute difference of the forecast to the true future."""

    name = "l1"
    error = "l1"
    card = paired_card(
        summary="Mean absolute difference of the forecast to the true future over the pixels that `region` chooses.",
        range="[0, 1], 0 = equal, pixels in [0, 1]; an invalid output counts as 1",
        transform="1 - l1",
        source="mean over the pixels of the region and the three channels",
        gaming="copying the input is nearly perfect wherever little changes: report it beside gain_over_copy",
        cost="3 ms for 256 x 256 on a CPU",
    )


class Mse(PixelError):
    """Mean squared difference of the forecast to the true future."""

    name = "mse"
    card = paired_card(
        summary="Mean squared difference of the forecast to the true future over the pixels that `region` chooses.",
        range="[0, 1], 0 = equal, pixels in [0, 1]; an invalid output counts as 1",
        transform="1 - sqrt(mse): a squared error alone would leave all forecasts within a few hundredths of 1",
        source="mean over the pixels of the region and the three channels",
        gaming="Copies of the input, and the blurred mean of possible futures, get high values: report it beside "
        "gain_over_copy",
        cost="3 ms for 256 x 256 on a CPU",
    )

    def worth(self, number: float) -> float:
        return 1.0 - math.sqrt(number)


class GainOverCopy(PixelError):
    """How much closer the forecast comes to the true future than a copy of the input does."""

    name = "gain_over_copy"
    needs = frozenset({"output.image", "reference.images", "sample.images"})

    class Config(PairedConfig):
        """How the gain over copying is measured."""

        distance: Distance = Field("mse", description="mse or l1")
        gain: Literal[True] = Field(True, description="always the gain")

    card = paired_card(
        summary="1 - d(forecast, future) / d(input, future): what the forecast gains over copying the newest input image.",
        range="(-inf, 1]: 1 = perfect, 0 = as good as copying, negative = worse than copying",
        transform="as every gain; the slope never vanishes",
        source=(
            "a skill score against persistence; d is the mean squared (or absolute) error over the region, "
            "pixels in [0, 1]."
        ),
        gaming="copying earns nothing.",
        cost="6 ms for 256 x 256 on a CPU",
    )

    def kind(self) -> Distance:
        return "l1" if self.config.distance == "l1" else "mse"

    @property
    def stem(self) -> str:
        return "over_copy"  # after the prefix of all gains

    @property
    def key(self) -> str:
        return super().key if self.config.distance == "mse" else f"{super().key}_{self.config.distance}"

    def raw(self, number: float) -> dict[str, float]:
        return {}
