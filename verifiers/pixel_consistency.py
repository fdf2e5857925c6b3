"""Whether a forecast changes what should change and keeps the rest, by its pixels; the ``change_consistency`` verifier.

Which pixels count: those that ``reference.valid`` names, that hold data in the input and in the true future, and that are not
under ``reference.clouds``. An empty change mask leaves preservation alone, a mask over everything fulfilment alone, and a sample
in which no pixel counts is not applicable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Numbers, SumMetric, Sums
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.forecast_case import NOTHING_COUNTS, ForecastCase, PerForecast, read_case
from rsw_rewards.verifiers.paired import MIN_CHANGE, Distance, error_map, farthest, gain_over_copy
from rsw_rewards.verifiers.regions import (
    MAX_SHIFT,
    Region,
    aligned,
    dilate,
    inset,
    region_mean,
    region_weights,
)

REGIONS: tuple[Region, Region] = ("inside", "outside")

COPY_FULFILMENT = 0.25
"""What the value of :func:`change_consistency` gives a copy of the input in a sample where something changes."""


def preservation(error: float, copy_error: float, floor: float) -> float:
    """How well the pixels outside the change are kept, in (0, 1]: ``1 / (1 + max(0, e - c) / max(c, floor))``.

    ``e`` is the forecast's error against the true future there and ``c`` that of the input itself, which holds the shift of
    light and season between the dates. 1 = no worse than leaving the pixels alone, 0.5 = twice as far off.
    """
    return 1.0 / (1.0 + max(0.0, error - copy_error) / max(copy_error, floor))


def fulfilment_value(gain: float) -> float:
    """A gain over copying in (-inf, 1] as ``1 / (1 + 3 (1 - gain))`` in (0, 1]: perfect 1, a copy 0.25, never flat."""
    return 1.0 / (1.0 + (1.0 / COPY_FULFILMENT - 1.0) * (1.0 - gain))


def change_consistency(fulfilled: float | None, kept: float | None) -> float:
    """The two parts in one value in [0, 1]: the product of :func:`fulfilment_value` and preservation, of those there are.

    A product, because each part alone can be had for nothing: preservation by copying, fulfilment by repainting everything.
    """
    value = 1.0 if fulfilled is None else fulfilment_value(fulfilled)
    return value if kept is None else value * kept


@dataclass(frozen=True, slots=True, eq=False)
class ChangeTruth:
    """A sample made ready for its forecasts."""

    case: ForecastCase
    future: np.ndarray
    """(H, W, 3) uint8."""
    inside: np.ndarray
    """(h, w) bool, pixels that count inside the change; the size is the future's less the tolerated shift on every side."""
    outside: np.ndarray
    """(h, w) bool, pixels that count outside it and its band."""
    copied: np.ndarray
    """(h, w) float64, error of the input."""


def _fulfilment_of_sums(sums: Sums) -> Numbers:
    copied = float(sums.get("inside_copy_error", 0.0))
    return {"fulfilment": gain_over_copy(float(sums["inside_error"]), copied) if copied > 0.0 else None}


class ChangeConsistency(PerForecast[ChangeTruth]):
    """Fulfilment inside the true change mask and preservation outside it, by the pixels."""

    name = "change_consistency"

    class Config(NoConfig):
        """How the two regions are compared."""

        band: int = Field(1, ge=0, description="pixels around the mask that count neither as inside nor as outside")
        distance: Distance = Field("mse", description="mse or l1")
        min_change: float | None = Field(
            None,
            gt=0.0,
            description="least error of copying that is divided by, pixels in [0, 1]; 0.003 for mse, 0.03 for l1",
        )
        shift: int = Field(0, ge=0, le=MAX_SHIFT, description="pixels of misregistration that are tolerated")

        @property
        def floor(self) -> float:
            """``min_change``, or its default for the distance."""
            return self.min_change if self.min_change is not None else MIN_CHANGE[self.distance]

    card = Card(
        summary=(
            "Fulfilment: inside the true change mask, how much closer the forecast is to the true future than the "
            "input is. Preservation: how well the rest was kept."
        ),
        range=("fulfilment in (-inf, 1], 1 = perfect, 0 = copied; preservation in (0, 1], 1 = no worse than copied."),
        transform="1 / (1 + 3 (1 - fulfilment)) * preservation; with an empty mask only preservation, with a full one only "
        "fulfilment. A copy of a changed scene gets 0.25",
        source=(
            "region means after literature on image editing: fulfilment inside the change mask, preservation outside."
        ),
        gaming=(
            "A copy has no fulfilment; repainting everything loses preservation. Outside of the mask the true future "
            "counts, so a change of light is neither punished nor needed."
        ),
        cost="about 1 ms for 64 x 64 on a CPU; with shift: 1 four times that",
    )
    reported = (
        SumMetric(("fulfilment",), _fulfilment_of_sums, bounds=(-math.inf, 1.0)),
        MeanValue("preservation", "preservation", bounds=(0.0, 1.0)),
    )

    def truth(self, sample: Sample) -> ChangeTruth | Score:
        if sample.reference.get("mask") is None:
            return Score.not_applicable("the sample has no change mask (reference.mask)")
        case = read_case(self.context.bank, sample, future=True, before=True)
        before, future = case.picture(case.newest), case.picture(case.future)
        mask, valid, shift = case.change(future), case.counted(future), self.config.shift
        if shift and not valid.all():
            valid = ~dilate(~valid, shift)  # a shift may bring in pixels from where none counts
        inside, outside = (inset(region_weights(mask, valid, region, self.config.band), shift) for region in REGIONS)
        if not (inside.any() or outside.any()):
            return NOTHING_COUNTS
        return ChangeTruth(case, future, inside, outside, self._error(before, future, inside | outside))

    def _error(self, picture: np.ndarray, future: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """(h, w) float64 error of an (H, W, 3) picture at the place where it fits best."""
        shift = self.config.shift
        true = inset(future, shift)
        return error_map(aligned(picture, true, counted, shift), true, self.config.distance)

    def compare(self, truth: ChangeTruth, output: Output) -> Score:
        raw, stats = self._numbers(truth, truth.case.forecast_picture(output))
        value = change_consistency(raw.get("fulfilment"), raw.get("preservation"))
        return Score(value, raw=raw, stats=stats)

    def _numbers(self, truth: ChangeTruth, forecast: np.ndarray) -> tuple[dict[str, float], dict[str, Any]]:
        """``raw`` and ``stats`` of an (H, W, 3) uint8 picture."""
        floor, inside, outside = self.config.floor, truth.inside, truth.outside
        wanted = self._error(forecast, truth.future, inside | outside)
        raw: dict[str, float] = {}
        stats = {"inside_error": np.zeros(()), "inside_copy_error": np.zeros(())}
        if inside.any():
            error, copy_error = region_mean(wanted, inside), region_mean(truth.copied, inside)
            raw["fulfilment"] = gain_over_copy(error, copy_error, floor)
            stats = {"inside_error": np.array(error), "inside_copy_error": np.array(copy_error)}
        if outside.any():
            raw["preservation"] = preservation(region_mean(wanted, outside), region_mean(truth.copied, outside), floor)
        return raw, stats

    def worst(self, truth: ChangeTruth, reason: str) -> Score:
        return Score.invalid(reason, stats=self._numbers(truth, farthest(truth.future))[1])
