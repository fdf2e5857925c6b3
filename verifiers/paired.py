"""A forecast held against the true future, pixel by pixel: SSIM, PSNR, L1, and the gain over copying the input.

Errors are averaged over the pixels of a region. Multiplying both images by a mask and averaging over the full frame would
shrink the error with the region's area.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from rsw_rewards.contracts import Batch, Card, MeanValue, Metric, NoConfig, SumMetric, Verifier, register
from rsw_rewards.features import FeatureBank
from rsw_rewards.images import ImageError, ImageRef
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scores import Score

Region = Literal["all", "inside", "outside"]
Distance = Literal["mse", "l1"]

MIN_CHANGE: Mapping[Distance, float] = {"mse": 0.003, "l1": 0.03}
"""Least error of copying that a gain is divided by, pixels in [0, 1]: about what sensor noise alone makes of an unchanged scene."""

PSNR_CEILING_DB = 100.0
"""PSNR of equal images, which would be infinite: a mean over images must stay a number."""

SSIM_RADIUS = 5
"""Half width of the 11-pixel Gaussian window of Wang et al. 2004."""


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


def error_map(first: np.ndarray, second: np.ndarray, distance: Distance = "mse") -> np.ndarray:
    """Squared or absolute difference of two (H, W, 3) uint8 images in units of [0, 1], averaged over channels: (H, W) float64."""
    difference = (first.astype(np.float64) - second.astype(np.float64)) / 255.0
    return (np.square(difference) if distance == "mse" else np.abs(difference)).mean(axis=-1)


def region_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the (H, W) float64 values where the bool weights are True; NaN for an empty region."""
    chosen = values[weights]
    return float(chosen.mean()) if chosen.size else math.nan


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error in units of [0, 1], at most :data:`PSNR_CEILING_DB`."""
    return min(PSNR_CEILING_DB, -10.0 * math.log10(mse)) if mse > 0.0 else PSNR_CEILING_DB


def ssim_map(first: np.ndarray, second: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity around every pixel of two (H, W, 3) uint8 images, averaged over channels: (H, W) float64.

    Wang, Bovik, Sheikh and Simoncelli 2004: 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 255,
    population moments; borders are mirrored. Its mean without the outer 5 pixels is the usual SSIM.

    Args:
        valid: (H, W) bool. Local moments are taken over valid pixels alone, so that a hole does not colour its surroundings.
    """
    from scipy.ndimage import correlate1d

    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window /= window.sum()

    def local(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, window, axis=0, mode="reflect"), window, axis=1, mode="reflect")

    if valid is None or valid.all():
        mean = local
    else:
        present = valid.astype(np.float64)[..., None]
        share = np.maximum(local(present), 1e-12)

        def mean(values: np.ndarray) -> np.ndarray:
            return local(values * present) / share

    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x = mean(x * x) - mean_x * mean_x
    variance_y = mean(y * y) - mean_y * mean_y
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2.0 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(axis=-1)


def interior(shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: pixels whose SSIM window lies inside the image."""
    inner = np.zeros(shape, dtype=bool)
    inner[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS] = True
    return inner


def gain_over_copy(error: float, copy_error: float, floor: float = 0.0) -> float:
    """``1 - error / max(copy_error, floor)``: 1 is perfect, 0 as good as copying the input, negative is worse."""
    return 1.0 - error / max(copy_error, floor)


def gain_to_value(gain: float) -> float:
    """A gain in (-inf, 1] as ``1 / (2 - gain)`` in (0, 1]: copying gives 0.5, and the slope never vanishes."""
    return 1.0 / (2.0 - gain)


@dataclass(frozen=True, slots=True)
class Pair:
    """What a forecast is held against, decoded. All arrays share height and width."""

    forecast: np.ndarray
    """(H, W, 3) uint8."""
    future: np.ndarray
    """(H, W, 3) uint8, the true future."""
    before: np.ndarray | None
    """(H, W, 3) uint8, the newest image the model was shown; None where it was not asked for."""
    valid: np.ndarray
    """(H, W) bool, pixels that count: not masked out by ``reference.valid``, no nodata in the future or the input."""
    mask: np.ndarray | None
    """(H, W) bool, the reference change mask, if there is one."""


def read_pair(bank: FeatureBank, sample: Sample, output: Output, before: bool = False) -> Pair | Score:
    """The decoded images of a forecast, or the score that stands in for one that cannot be compared.

    Of a series, the last frame is compared: the last of the output with the last of the reference.
    The sample is looked at before the output, so that a missing truth is never the policy's fault.
    """
    images: Sequence[ImageRef] = sample.reference.get("images") or ()
    if not images:
        return Score.not_applicable("the sample has no true future image (reference.images)")
    if before and not sample.images:
        return Score.not_applicable("the sample has no input image")
    try:
        future = bank.rgb(images[-1])
        valid = _present(images[-1], future)
        shown = bank.rgb(sample.images[-1]) if before else None
        if shown is not None:
            _same_size("the input image", shown, future)
            valid &= _present(sample.images[-1], shown)
        if (counted := sample.reference.get("valid")) is not None:
            _same_size("reference.valid", bank.mask(counted), future)
            valid &= bank.mask(counted)
        mask = None
        if (changed := sample.reference.get("mask")) is not None:
            mask = bank.mask(changed)
            _same_size("reference.mask", mask, future)
    except ImageError as error:
        return Score.error(str(error))
    if output.forecast is None:
        return Score.invalid("the output holds no image")
    try:
        forecast = bank.rgb(output.forecast)
    except ImageError as error:
        return Score.invalid(str(error))
    if forecast.shape != future.shape:
        return Score.invalid(f"the forecast is {_size(forecast)} pixels, the true future {_size(future)}")
    return Pair(forecast, future, shown, valid, mask)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _same_size(what: str, image: np.ndarray, future: np.ndarray) -> None:
    if image.shape[:2] != future.shape[:2]:
        raise ImageError(f"{what} is {_size(image)} pixels, the true future {_size(future)}")


def _present(image: ImageRef, pixels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of which not every channel holds the image's nodata value."""
    if image.nodata is None:
        return np.ones(pixels.shape[:2], dtype=bool)
    return (pixels != image.nodata).any(axis=-1)


class PairedConfig(NoConfig):
    """Where a forecast is compared with the true future."""

    region: Region = Field("all", description="all pixels, or only those inside or outside the reference change mask")
    band: int = Field(1, ge=0, description="pixels around the mask that count neither as inside nor as outside")


class Paired(Verifier):
    """Base of the verifiers that hold a forecast against the true future over a region."""

    tasks = frozenset({Task.FORECAST})
    needs = frozenset({"output.image", "reference.images"})
    Config: ClassVar[type[PairedConfig]] = PairedConfig
    reads_before = False
    bounds: ClassVar[tuple[float, float] | None] = None
    """Range that the mean cannot leave."""
    worst = 0.0
    """What an invalid output counts as in the mean that :meth:`metrics` reports."""

    def score(self, batch: Batch) -> list[Score]:
        return [self._one(sample, output) for sample, output in zip(batch.samples, batch.outputs, strict=True)]

    def _one(self, sample: Sample, output: Output) -> Score:
        pair = read_pair(self.context.bank, sample, output, before=self.reads_before)
        region = self.config.region
        if isinstance(pair, Score):
            return pair
        if region != "all" and pair.mask is None:
            return Score.not_applicable(f"the sample has no change mask to be {region} of (reference.mask)")
        weights = self._restrict(region_weights(pair.mask, pair.valid, region, self.config.band))
        if not weights.any():
            return Score.not_applicable(f"no pixel counts in the region {region!r}")
        return self._compare(pair, weights)

    def _restrict(self, weights: np.ndarray) -> np.ndarray:
        return weights

    @abstractmethod
    def _compare(self, pair: Pair, weights: np.ndarray) -> Score:
        """The score of a forecast over the pixels of ``weights``, (H, W) bool with at least one True."""

    @property
    def key(self) -> str:
        """The metric's key: the verifier's name, with its region unless that is ``all``."""
        return self.name if self.config.region == "all" else f"{self.name}_{self.config.region}"

    def metrics(self) -> Sequence[Metric]:
        return (MeanValue(self.key, self.name, self.worst, self.bounds),)


@register
class Ssim(Paired):
    """Structural similarity of the forecast to the true future."""

    name = "ssim"
    bounds = (-1.0, 1.0)
    card = Card(
        summary="Structural similarity (11 x 11 Gaussian window, RGB) of the forecast to the true future, as the mean over a region.",
        range="[-1, 1], 1 = equal; an invalid output counts as 0 in the mean",
        transform="(ssim + 1) / 2",
        source="Wang, Bovik, Sheikh, Simoncelli 2004; the region 'all' leaves out the outer 5 pixels, as "
        "the authors' code and scikit-image do (torchmetrics counts a mirrored border as well)",
        gaming="copying the input scores high wherever little changes, and blur is forgiven in flat areas: report it beside "
        "gain_over_copy, or use region 'inside'",
        cost="2 ms for 64 x 64 on a CPU",
    )

    def _restrict(self, weights: np.ndarray) -> np.ndarray:
        return weights & interior(weights.shape) if self.config.region == "all" else weights  # type: ignore[arg-type]

    def _compare(self, pair: Pair, weights: np.ndarray) -> Score:
        ssim = region_mean(ssim_map(pair.forecast, pair.future, pair.valid), weights)
        return Score(min(1.0, max(0.0, (ssim + 1.0) / 2.0)), raw={"ssim": ssim})


class PsnrConfig(PairedConfig):
    """Where PSNR is taken and how it becomes a value."""

    scale: float = Field(0.1, gt=0.0, description="root mean squared error (in units of [0, 1]) that is worth 0.5")


@register
class Psnr(Paired):
    """Peak signal-to-noise ratio of the forecast to the true future."""

    name = "psnr"
    Config = PsnrConfig
    card = Card(
        summary="Peak signal-to-noise ratio of the forecast to the true future over a region; the mean of images is reported.",
        range=f"dB, at most {PSNR_CEILING_DB:g} (equal images); an invalid output counts as 0 dB",
        transform="1 / (1 + rmse / scale): 0.5 at 20 dB with the default scale 0.1, 1 for equal images",
        source="-10 log10(MSE), pixels in [0, 1], MSE over the pixels of the region and the three channels",
        gaming="copying the input, or the blurred mean of possible futures, scores high: report it beside gain_over_copy",
        cost="0.1 ms for 64 x 64 on a CPU",
    )

    def _compare(self, pair: Pair, weights: np.ndarray) -> Score:
        mse = region_mean(error_map(pair.forecast, pair.future), weights)
        return Score(1.0 / (1.0 + math.sqrt(mse) / self.config.scale), raw={"psnr": psnr(mse), "mse": mse})


@register
class L1(Paired):
    """Mean absolute difference of the forecast to the true future."""

    name = "l1"
    bounds = (0.0, 1.0)
    worst = 1.0
    card = Card(
        summary="Mean absolute difference of the forecast to the true future over a region.",
        range="[0, 1], 0 = equal, pixels in [0, 1]; an invalid output counts as 1",
        transform="1 - l1",
        source="mean over the pixels of the region and the three channels",
        gaming="copying the input is nearly perfect wherever little changes: report it beside gain_over_copy",
        cost="0.1 ms for 64 x 64 on a CPU",
    )

    def _compare(self, pair: Pair, weights: np.ndarray) -> Score:
        difference = region_mean(error_map(pair.forecast, pair.future, "l1"), weights)
        return Score(1.0 - difference, raw={"l1": difference})


class GainConfig(PairedConfig):
    """How the gain over copying is measured."""

    distance: Distance = Field("mse", description="mse or l1")
    min_change: float | None = Field(
        None,
        gt=0.0,
        description="least error of copying that the gain is divided by, pixels in [0, 1]; default 0.003 for mse, 0.03 for l1",
    )

    @property
    def floor(self) -> float:
        """``min_change``, or its default for the distance."""
        return self.min_change if self.min_change is not None else MIN_CHANGE[self.distance]


def _gain_of_sums(sums: Mapping[str, np.ndarray]) -> float | None:
    if "copy_error" not in sums or not float(sums["copy_error"]) > 0.0:
        return None
    return gain_over_copy(float(sums["error"]), float(sums["copy_error"]))


@register
class GainOverCopy(Paired):
    """How much closer the forecast comes to the true future than a copy of the input does."""

    name = "gain_over_copy"
    needs = frozenset({"output.image", "reference.images", "sample.images"})
    Config = GainConfig
    reads_before = True
    card = Card(
        summary="1 - d(forecast, future) / d(input, future): what the forecast gains over copying the newest input image.",
        range="(-inf, 1]: 1 = perfect, 0 = as good as copying, negative = worse than copying",
        transform="1 / (2 - gain): copying a changed scene 0.5, perfect 1, and the slope never vanishes",
        source="a skill score against persistence; d is the mean squared (or absolute) error over the region, pixels in [0, 1]. "
        "The reported metric is a ratio of sums, 1 - sum d(forecast, future) / sum d(input, future), over rows with a valid output: "
        "read it beside valid_rate",
        gaming="copying earns nothing. In a sample where nothing changes the ratio has no meaning, so its denominator is at least "
        "min_change; such a sample is still worth more for a copy than for an image that invents change. "
        "The mean of possible futures (blur) gains under mse: watch ssim or a Frechet distance",
        cost="0.2 ms for 64 x 64 on a CPU",
    )

    def _compare(self, pair: Pair, weights: np.ndarray) -> Score:
        assert pair.before is not None
        error = region_mean(error_map(pair.forecast, pair.future, self.config.distance), weights)
        copy_error = region_mean(error_map(pair.before, pair.future, self.config.distance), weights)
        gain = gain_over_copy(error, copy_error, self.config.floor)
        return Score(
            gain_to_value(gain),
            raw={"gain": gain, "error": error, "copy_error": copy_error},
            stats={"error": np.float64(error), "copy_error": np.float64(copy_error)},  # type: ignore[dict-item]
        )

    def metrics(self) -> Sequence[Metric]:
        key = self.key if self.config.distance == "mse" else f"{self.key}_{self.config.distance}"
        return (SumMetric((key,), lambda sums: {key: _gain_of_sums(sums)}),)
