"""The base of the verifiers that hold a forecast against the true future: regions, gains over a copy, matched colours, shifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Metric, SumMetric, Sums
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import ImageError
from rsw_rewards.verifiers.forecast_case import ForecastCase, PerForecast, read_case
from rsw_rewards.verifiers.illumination import MIN_PIXELS, Match, matched
from rsw_rewards.verifiers.regions import (
    MAX_SHIFT,
    Region,
    aligned,
    dilate,
    inset,
    region_weights,
)


def gain_over_copy(error: float, copy_error: float, floor: float = 0.0) -> float:
    """``1 - error / max(copy_error, floor)``: 1 is perfect, 0 as good as copying the input, negative is worse."""
    return 1.0 - error / max(copy_error, floor)


def gain_to_value(gain: float) -> float:
    """A gain in (-inf, 1] as ``1 / (2 - gain)`` in (0, 1]: copying gives 0.5, and the slope never vanishes."""
    return 1.0 / (2.0 - gain)


@dataclass(frozen=True, slots=True, eq=False)
class PairedTruth:
    """A sample made ready for its forecasts. Sizes (h, w) are those of the true future, (H, W), less the tolerated shift."""

    case: ForecastCase
    whole: np.ndarray
    """(H, W, 3) uint8, the true future."""
    still: np.ndarray
    """(H, W) bool, pixels outside the change, on which colours are matched."""
    future: np.ndarray
    """(h, w, 3) uint8, the part of the true future that forecasts are compared with."""
    valid: np.ndarray
    """(h, w) bool, pixels that count."""
    weights: np.ndarray
    """(h, w) bool, the pixels that the mean is taken over; at least one is True."""

    def filled(self, image: np.ndarray) -> np.ndarray:
        """The image with the truth where no pixel counts, for networks that see farther than a pixel."""
        return image if self.valid.all() else np.where(self.valid[..., None], image, self.future)


class PairedConfig(NoConfig):
    """What is compared of a forecast and the true future, and whether with a copy of the input beside it."""

    region: Region = Field("all", description="all pixels, or only those inside or outside the reference change mask")
    band: int = Field(1, ge=0, description="pixels around the mask that count neither as inside nor as outside")
    gain: bool = Field(
        False, description="what is gained over copying the newest input image, in place of the number itself"
    )
    min_change: float | None = Field(
        None, gt=0.0, description="least distance of a copy that a gain is divided by; each verifier has its default"
    )
    match: Match = Field(
        "none",
        description="first bring the whole forecast to the colours of the true future, fitted on pixels outside the mask: none, moments or histogram",
    )
    shift: int = Field(0, ge=0, le=MAX_SHIFT, description="pixels of misregistration that are tolerated")


def paired_card(transform: str, **others: str) -> Card:
    """The card of a paired verifier, with what all of them share."""
    return Card(transform=f"{transform}; with gain: 1 / (2 - gain), so a copy gets 0.5", **others)


def _gain_of_sums(sums: Sums) -> float | None:
    possible = float(sums.get("possible", 0.0))  # of likenesses it may round below 0
    return float(sums["gained"]) / possible if possible > 0.0 else None


class Paired(PerForecast[PairedTruth]):
    """Base of the verifiers that hold a forecast against the true future over a region.

    A metric says what its number is (:meth:`number`) and what it is worth (:meth:`worth`); a number that is no distance also
    says how far from equal it is (:meth:`distance`). Regions, gains, matched colours and shifts come from here.
    """

    Config: ClassVar[type[PairedConfig]] = PairedConfig
    bounds: ClassVar[tuple[float, float] | None] = None
    """Range that the mean cannot leave."""
    gain_bounds: ClassVar[tuple[float, float] | None] = (-math.inf, 1.0)
    """Range that the gain over copying cannot leave."""
    worst_number: ClassVar[float] = 1.0
    """The number of an invalid output: what no picture is worse than."""
    floor: ClassVar[float]
    """Default of ``min_change``: about the distance of a copy in a scene where nothing but noise differs."""

    def number(self, truth: PairedTruth, image: np.ndarray) -> float:
        """The natural metric of an (h, w, 3) uint8 image, of the size of ``truth.future``."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither number nor numbers")

    def numbers(self, truths: Sequence[PairedTruth], images: Sequence[np.ndarray]) -> list[float]:
        """The natural metric of every image; override it in place of :meth:`number` where a network looks at many at once."""
        return [self.number(*pair) for pair in zip(truths, images, strict=True)]

    def worth(self, number: float) -> float:
        """The metric as a value in [0, 1], higher is better."""
        return 1.0 - number

    def distance(self, number: float) -> float:
        """The metric as a distance, 0 = equal."""
        return number

    def raw(self, number: float) -> dict[str, float]:
        """The metric in its units, by name."""
        return {self.unit: number}

    def restrict(self, weights: np.ndarray) -> np.ndarray:
        """The pixels of a region that the metric can use, (H, W) bool."""
        return weights

    def refuse(self, truth: PairedTruth) -> str:
        """Why a sample does not suit the metric, in words; empty where it does."""
        return ""

    def default_floor(self) -> float:
        """Least distance of a copy that a gain is divided by, where the configuration names none."""
        return self.floor

    def least_change(self) -> float:
        """Least distance of a copy that a gain is divided by."""
        return self.default_floor() if self.config.min_change is None else float(self.config.min_change)

    @property
    def unit(self) -> str:
        """The metric's name in ``raw``."""
        return self.name

    @property
    def stem(self) -> str:
        """The metric's key without its region and preparation."""
        return self.name

    @property
    def bands(self) -> tuple[int, ...] | None:
        """The bands of a raster that are compared, where they are not those shown as red, green and blue."""
        return None

    @property
    def key(self) -> str:
        """The metric's key: ``[gain_]<name>[_<region>][_<match>][_shift<n>]``."""
        config = self.config
        region = "" if config.region == "all" else f"_{config.region}"
        match = "" if config.match == "none" else f"_{config.match}"
        shift = f"_shift{config.shift}" if config.shift else ""
        return f"{'gain_' if self.config.gain else ''}{self.stem}{region}{match}{shift}"

    def metrics(self) -> Sequence[Metric]:
        key = self.key
        if self.config.gain:
            return (SumMetric((key,), lambda sums: {key: _gain_of_sums(sums)}, self.gain_bounds),)
        return (MeanValue(key, self.unit, self.worst_number, self.bounds),)

    def truth(self, sample: Sample) -> PairedTruth | Score:
        config = self.config
        case = read_case(self.context.bank, sample, self.bands, future=True, before=self.config.gain)
        future = case.picture(case.future)
        mask, counted = case.change(future), case.counted(future)
        if config.region != "all" and mask is None:
            return Score.not_applicable(f"the sample has no change mask to be {config.region} of (reference.mask)")
        valid = ~dilate(~counted, config.shift) if config.shift and not counted.all() else counted
        weights = inset(region_weights(mask, valid, config.region, config.band), config.shift)
        weights = self.restrict(weights) if weights.size else weights
        if not weights.any():
            return Score.not_applicable(f"no pixel counts in the region {config.region!r}")
        still = counted
        if config.match != "none":
            still = still if mask is None else still & ~dilate(mask, config.band)
            if still.sum() < MIN_PIXELS:
                few = f"fewer than {MIN_PIXELS} pixels lie outside the change, too few to match colours on"
                return Score.not_applicable(few)
        truth = PairedTruth(case, future, still, inset(future, config.shift), inset(valid, config.shift), weights)
        return Score.not_applicable(why) if (why := self.refuse(truth)) else truth

    def compare(self, truth: PairedTruth, output: Output) -> np.ndarray:
        image = self._placed(truth, truth.case.forecast_picture(output))
        if image is None:
            raise ImageError("the forecast is nearly one colour outside the change, so its colours match nothing")
        return image

    def rate(self, truths: Sequence[PairedTruth], compared: Sequence[np.ndarray]) -> list[Score]:
        places = {truth: self.copy(truth) for truth in truths} if self.config.gain else {}
        found = self.numbers([*truths, *places], [*compared, *places.values()])
        copied = dict(zip(places, found[len(truths) :], strict=True))
        return [self._scored(*pair) for pair in zip(found, map(copied.get, truths), strict=False)]

    def copy(self, truth: PairedTruth) -> np.ndarray:
        """The newest input as a forecast is compared."""
        before = truth.case.picture(truth.case.newest)
        image = self._placed(truth, before)
        # A black or clouded input cannot be matched; that is nobody's fault, and it is copied as it is.
        return aligned(before, truth.future, truth.valid, self.config.shift) if image is None else image

    def _placed(self, truth: PairedTruth, image: np.ndarray) -> np.ndarray | None:
        """(h, w, 3) uint8 of an (H, W, 3) image, its colours matched, shifted and cut as configured; None if they match nothing."""
        coloured = matched(image, truth.whole, truth.still, self.config.match)
        return None if coloured is None else aligned(coloured, truth.future, truth.valid, self.config.shift)

    def _scored(self, number: float, copied: float | None) -> Score:
        if not math.isfinite(number) or (copied is not None and not math.isfinite(copied)):
            return Score.error(f"{self.name} is not a finite number for this picture")
        raw = self.raw(number)
        if copied is None:
            return Score(min(1.0, max(0.0, self.worth(number))), raw=raw)
        error, copy_error = self.distance(number), self.distance(copied)
        gain = gain_over_copy(error, copy_error, self.least_change())
        raw |= {"gain": self.gain(number, copied), "error": error, "copy_error": copy_error}
        return Score(min(1.0, gain_to_value(gain)), raw=raw, stats=self.sums(number, copied))

    def gain(self, number: float, copied: float) -> float:
        """The gain over a copy, in its unit."""
        return gain_over_copy(self.distance(number), self.distance(copied), self.least_change())

    def sums(self, number: float, copied: float) -> dict[str, Any]:
        """``gained`` and ``possible``, whose ratio of sums over rows is the gain of them all."""
        copy_error = self.distance(copied)
        return {"gained": np.float64(copy_error - self.distance(number)), "possible": np.float64(copy_error)}

    def worst_sums(self, truth: PairedTruth) -> dict[str, Any]:
        """:meth:`sums` of an output that cannot be used; those of the worst number there is."""
        if self.needs & {
            "encoder",
            "network",
        }:  # known without them; the copy's part is left out, which would only soften it
            return {"gained": np.float64(-self.distance(self.worst_number)), "possible": np.float64(0.0)}
        return self.sums(self.worst_number, self.number(truth, self.copy(truth)))

    def worst(self, truth: PairedTruth, reason: str) -> Score:
        return Score.invalid(reason, stats=self.worst_sums(truth) if self.config.gain else {})


class Likeness(Paired):
    """Base of the paired verifiers whose number is largest for equal images: it is worth its place within its bounds."""

    bounds: ClassVar[tuple[float, float]]

    def worth(self, number: float) -> float:
        low, high = self.bounds
        return (number - low) / (high - low)

    def distance(self, number: float) -> float:
        return 1.0 - number
