"""Series of a spectral index (NDVI) held against what was observed: Nash-Sutcliffe efficiency per pixel, and plain errors.

Frames are (H, W) arrays in the index's own unit, float, with NaN (or the frame's ``nodata``) where a cloud hid the ground. Such
pixels are left out of every number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import declared_bands, read_data
from rsw_rewards.verifiers.answer_metrics import VALID_RATE, quotients, share
from rsw_rewards.verifiers.bands import check_numbers
from rsw_rewards.verifiers.forecast_case import NO_FUTURE, PerForecast, masked_in

LEAST_SPREAD = 1e-6
"""Variance of the observations of a pixel below which it says nothing: there is no course to follow."""


def read_index_values(image: ImageRef) -> np.ndarray:
    """(H, W) float64 values of one frame, NaN where there is none or where a GeoTIFF's own mask says so.

    Raises :class:`ImageError` for anything but one band.
    """
    pixels = image.pixels(bands=declared_bands(image))
    if pixels.ndim != 2 or pixels.dtype.kind not in "fiu":
        raise ImageError(f"{image.path or 'a frame'} must hold one band of numbers, not {pixels.dtype} {pixels.shape}")
    values = pixels.astype(np.float64)
    if image.nodata is not None:
        values[pixels == image.nodata] = np.nan
    if (data := read_data(image)) is not None:
        values[~data] = np.nan
    return values


def nnse(observed: np.ndarray, predicted: np.ndarray, least: int = 3) -> np.ndarray:
    """Normalised Nash-Sutcliffe efficiency of every pixel, (H, W) float64 in (0, 1]; NaN where too little was observed.

    ``NSE = 1 - sum (o - p)^2 / sum (o - mean o)^2`` over the frames in which the pixel was observed (Nash and Sutcliffe 1970) and
    ``NNSE = 1 / (2 - NSE)``: 1 is perfect, 0.5 as good as the pixel's own mean over the horizon, which no forecast knows. Used for
    vegetation by GreenEarthNet (arXiv 2303.16198).

    Args:
        observed: (T, H, W), NaN where not observed.
        predicted: (T, H, W).
        least: observed frames that a pixel must have.
    """
    seen = np.isfinite(observed)
    count = seen.sum(0)
    safe = np.maximum(count, 1)
    mean = np.where(seen, observed, 0.0).sum(0) / safe
    spread = (np.where(seen, observed - mean, 0.0) ** 2).sum(0)
    error = (np.where(seen, observed - predicted, 0.0) ** 2).sum(0)
    usable = (count >= least) & (spread / safe > LEAST_SPREAD)
    ratio = np.divide(error, spread, out=np.zeros_like(error), where=usable)
    return np.where(usable, 1.0 / (1.0 + ratio), np.nan)


def _numbers(sums: Sums) -> Numbers:
    absolute, squared, signed = (share(sums, name, "values") for name in ("absolute", "squared", "signed"))
    return {"mae": absolute, "rmse": None if squared is None else squared**0.5, "bias": signed}


class IndexSeries(PerForecast[np.ndarray]):
    """How well a forecast series of an index follows what was observed."""

    name = "index_series"
    needs = frozenset({"output.images", "reference.images"})
    card = Card(
        summary="Compares every frame of a forecast series of NDVI (or another index) with the observed one, pixel by pixel.",
        range="nnse: (0, 1], 0.5 = as good as each pixel's mean over the horizon; mae, rmse, bias: the index's unit",
        transform="none: the value is the sample's mean nnse",
        source="Nash and Sutcliffe 1970; normalised and averaged over pixels as in GreenEarthNet (arXiv 2303.16198)",
        gaming=("If little changes, the baselines persistence and climatology have a high nnse: compare with both."),
        cost="milliseconds for 20 frames of 64 x 64",
    )

    class Config(NoConfig):
        """Configuration of ``index_series``."""

        least: int = Field(3, ge=2, description="observed frames that a pixel must have to enter nnse")

    reported = (
        quotients({"nnse": ("nnse", "pixels")}),
        SumMetric(("mae", "rmse"), _numbers, bounds=(0.0, float("inf"))),
        SumMetric(("bias",), _numbers),
        VALID_RATE,
    )

    def truth(self, sample: Sample) -> np.ndarray | Score:
        """(T, H, W) float64, NaN where a pixel does not count."""
        images: Sequence[ImageRef] = sample.reference.get("images") or ()
        if not images:
            return NO_FUTURE
        frames = [read_index_values(image) for image in images]
        if len({frame.shape for frame in frames}) > 1:
            raise ImageError("the frames of its true future have several sizes")
        observed = np.stack(frames)
        observed[:, ~masked_in(self.context.bank, sample, observed.shape[1:])] = np.nan
        if not np.isfinite(observed).any():
            return Score.not_applicable("no pixel of the future was observed")
        if not np.isfinite(nnse(observed, observed, self.config.least)).any():
            return Score.not_applicable(
                f"no pixel of the future was observed {self.config.least} times or changed; a horizon of fewer frames needs a smaller"
                " 'least'"
            )
        return observed

    def compare(self, truth: np.ndarray, output: Output) -> Score:
        observed = truth
        made = output.images or (() if output.image is None else (output.image,))
        if len(made) != len(observed):
            raise ImageError(f"the forecast has {len(made)} frames, the true future {len(observed)}")
        frames = [read_index_values(image) for image in made]
        if any(frame.shape != observed.shape[1:] for frame in frames):
            sizes = " x ".join(map(str, observed.shape[1:]))
            raise ImageError(f"the frames of the forecast must have {sizes} pixels")
        predicted = np.stack(frames)
        seen = np.isfinite(observed)
        if missing := int((seen & ~np.isfinite(predicted)).sum()):
            raise ImageError(f"the forecast has no number at {missing} pixels that were observed")
        check_numbers(predicted, observed, seen)
        efficiency = nnse(observed, predicted, self.config.least)
        miss = predicted[seen] - observed[seen]
        pixels = int(np.isfinite(efficiency).sum())
        stats = {
            "nnse": np.nansum(efficiency), "pixels": pixels, "values": miss.size, "valid": 1.0,
            "absolute": np.abs(miss).sum(), "squared": np.square(miss).sum(), "signed": miss.sum(),
        }  # fmt: skip
        raw = {"mae": float(np.abs(miss).mean()), "bias": float(miss.mean()), "nnse": float(stats["nnse"]) / pixels}
        return Score(raw["nnse"], raw=raw, stats={key: np.asarray(value, np.float64) for key, value in stats.items()})

    def worst(self, truth: np.ndarray, reason: str) -> Score:
        """No efficiency at any pixel that could have one."""
        pixels = int(np.isfinite(nnse(truth, truth, self.config.least)).sum())
        return Score.invalid(
            reason, raw={"nnse": 0.0}, stats={"nnse": np.zeros(()), "pixels": np.asarray(float(pixels))}
        )
