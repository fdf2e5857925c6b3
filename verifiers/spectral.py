"""Forecasts in more than three bands: whether their indices move as those of the true future, and whether their numbers are possible.

What a sample says of its bands, and which of its pixels count, is described in :mod:`rsw_rewards.verifiers.bands`. In
``metadata.expected``, ``{"ndvi": "down", "ndbi": "up"}`` names the indices that a text is about; without it, the classes of land
cover that ``reference.text`` lets increase or decrease do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Numbers, SumMetric, Sums
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.data.raster_questions import WORDINGS
from rsw_rewards.data.spectral import INDICES, index_map
from rsw_rewards.errors import ImageError
from rsw_rewards.verifiers.bands import Units
from rsw_rewards.verifiers.confusion import ratio
from rsw_rewards.verifiers.forecast_case import PerForecast
from rsw_rewards.verifiers.rasters import Rasters, read_rasters

NAMES = tuple(INDICES)
DIRECTIONS: Mapping[str, int] = {"up": 1, "down": -1}
CLASS_INDICES: Mapping[str, tuple[str, ...]] = {
    "vegetation": ("ndvi",),
    "water": ("ndwi", "mndwi"),
    "built_up": ("ndbi",),
}
"""Class of land cover -> the indices that rise with it."""


def movement_agreement(moved: np.ndarray, wanted: np.ndarray) -> float:
    """``2 sum m w / (sum m^2 + sum w^2)`` in [-1, 1] of (n,) movements of an index, pixel by pixel; ``wanted`` is not 0 everywhere.

    1 if and only if every pixel moves as it should, 0 for a copy, -1 for the opposite. A movement ``c`` times as large gives
    ``2 c / (1 + c^2)``, so that too much costs what too little does.
    """
    return float(2.0 * (moved * wanted).sum() / (np.square(moved).sum() + np.square(wanted).sum()))


def stillness(error: float, least: float) -> float:
    """Value of a mean index that is off by ``error`` where it should stay: ``1 / (1 + error / least)``."""
    return 1.0 / (1.0 + error / least)


def expected_of(sample: Sample) -> dict[str, int]:
    """Index -> 1 (up) or -1 (down), as the sample's metadata or else its text says; empty where neither speaks of one.

    Raises:
        ImageError: ``metadata.expected`` is no such table.
    """
    said = sample.metadata.get("expected")
    if said is not None:
        if not isinstance(said, Mapping) or any(k not in INDICES or v not in DIRECTIONS for k, v in said.items()):
            raise ImageError(
                f"metadata.expected is {str(said)[:80]!r}; it must give up or down for some of {', '.join(NAMES)}"
            )
        return {name: DIRECTIONS[way] for name, way in said.items()}
    text = sample.reference.get("text")
    return expected_of_text(text) if isinstance(text, str) else {}


def expected_of_text(text: str) -> dict[str, int]:
    """What sentences such as "vegetation decreased buildings increased" say of indices; ways that contradict each other cancel."""
    found: dict[str, set[int]] = {}
    for words in WORDINGS.values():
        for name, indices in CLASS_INDICES.items():
            spoken = re.escape(words[name].spoken) if name in words else ""
            for match in re.finditer(rf"\b{spoken} (increased|decreased)\b", text) if spoken else ():
                for index in indices:
                    found.setdefault(index, set()).add(1 if match[1] == "increased" else -1)
    return {index: ways.pop() for index, ways in found.items() if len(ways) == 1}


def defined(values: np.ndarray) -> np.ndarray:
    """Bool: index values that are numbers in [-1, 1]. Negative reflectance gives others."""
    return np.isfinite(values) & (np.abs(values) <= 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """How one index of the true future moves over the pixels it is asked about."""

    pixels: np.ndarray
    """(H, W) bool; at least one is True."""
    before: np.ndarray
    """(n,) float64, the index of the input there."""
    wanted: np.ndarray
    """(n,) float64, true future less input."""

    @property
    def mean(self) -> float:
        return float(self.wanted.mean())

    def of(self, index: np.ndarray) -> np.ndarray:
        """(n,) movement of an (H, W) index of a forecast; where it is not defined, as far in the wrong direction as it can be."""
        values = index[self.pixels]
        return np.where(defined(values), values, np.where(self.wanted > 0, -1.0, 1.0)) - self.before


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A sample made ready: what is asked of the indices of its forecasts."""

    rasters: Rasters
    moving: Mapping[str, Movement]
    """Indices that should move; where empty, all of ``still`` should stay."""
    still: Mapping[str, Movement]


def _shares(sums: Sums) -> Numbers:
    asked, right = (np.asarray(sums.get(key, np.zeros(len(NAMES)))) for key in ("asked", "right"))
    every = {f"spectral_direction/{name}": ratio(right[k], asked[k]) for k, name in enumerate(NAMES)}
    return {"spectral_direction": ratio(right.sum(), asked.sum()), **every}


class SpectralDirection(PerForecast[Asked]):
    """Whether the vegetation, water and built-up indices of a forecast move as those of the true future do."""

    name = "spectral_direction"

    class Config(NoConfig):
        """Which indices are looked at, and from when on one has moved."""

        indices: tuple[Literal["ndvi", "ndwi", "mndwi", "ndbi"], ...] | None = Field(
            None, min_length=1, description="some of ndvi, ndwi, mndwi, ndbi; by default all that the bands allow"
        )
        region: Literal["inside", "all"] = Field(
            "inside",
            description="where indices are compared: inside the change mask (all where there is none), or everywhere",
        )
        min_change: float = Field(0.02, gt=0.0, le=2.0, description="mean movement of an index that counts as one")

    card = Card(
        summary=(
            "Whether NDVI, NDWI, MNDWI and NDBI change from the input to the forecast, inside the change mask, as they "
            "change from the input to the true future."
        ),
        range=(
            "spectral_direction: share of expected changes with the right sign; spectral_agreement in [-1, 1], 1 = "
            "every pixel changes as expected, 0 = a copy."
        ),
        transform="max(0, agreement): 0 for a copy or the wrong direction, 0.8 for half or twice the change, 1 if perfect.",
        source=(
            "agreement = 2 sum m w / (sum m^2 + sum w^2) over pixels, mean of the indices; indices as in "
            "rsw_rewards.data.spectral."
        ),
        gaming=(
            "One colour with the right index inside the mask gets 1: texture and the area outside are not checked. Use "
            "it together with change_consistency."
        ),
        cost="1 ms for 64 x 64 x 6 on a CPU",
    )
    reported = (
        SumMetric(tuple(_shares({})), _shares, bounds=(0.0, 1.0)),
        MeanValue("spectral_agreement", "agreement", invalid=-1.0, bounds=(-1.0, 1.0)),
    )

    def truth(self, sample: Sample) -> Asked | Score:
        rasters = read_rasters(self.context.bank, sample)
        names = rasters.units.names
        if names is None:
            return Score.not_applicable("the sample does not name its bands (metadata.bands)")
        wanted = self.config.indices or NAMES
        able = [name for name in wanted if {INDICES[name].first, INDICES[name].second} <= set(names)]
        if not able:
            return Score.not_applicable(f"no index can be computed from the bands {', '.join(names)}")
        said = expected_of(sample)
        region = rasters.valid
        if self.config.region == "inside" and rasters.mask is not None and (rasters.mask & region).any():
            region = rasters.mask & region
        found = self._movements(rasters, region, able)
        if not found:
            return Score.not_applicable(f"{', '.join(able)} cannot be computed at any pixel that counts")
        moving = {name: move for name, move in found.items() if abs(move.mean) >= self.config.min_change}
        if said.keys() & found.keys():
            moving = {name: move for name, move in moving.items() if said.get(name) == np.sign(move.mean)}
            if not moving:
                return Score.not_applicable("the true future moves no index the way the sample says")
        return Asked(rasters, moving, {} if moving else found)

    @staticmethod
    def _movements(rasters: Rasters, region: np.ndarray, able: Sequence[str]) -> dict[str, Movement]:
        before, future = (rasters.units.reflectance(pixels) for pixels in (rasters.before, rasters.future))
        found = {}
        for name in able:
            first, last = index_map(name, before), index_map(name, future)
            pixels = region & defined(first) & defined(last)
            if pixels.any():
                found[name] = Movement(pixels, first[pixels], last[pixels] - first[pixels])
        return found

    def compare(self, truth: Asked, output: Output) -> Score:
        bands = truth.rasters.units.reflectance(truth.rasters.forecast(output))
        with np.errstate(invalid="ignore", over="ignore"):
            moved = {name: move.of(index_map(name, bands)) for name, move in (truth.moving or truth.still).items()}
        raw = {name: float(values.mean()) for name, values in moved.items()}
        least = self.config.min_change
        if not truth.moving:
            errors = [abs(raw[name] - move.mean) for name, move in truth.still.items()]
            value = float(np.mean([stillness(error, least) for error in errors]))
            return Score(value, raw=raw, stats=self._stats(truth, frozenset()))
        agreement = float(
            np.mean([movement_agreement(moved[name], move.wanted) for name, move in truth.moving.items()])
        )
        right = {name for name, move in truth.moving.items() if raw[name] * np.sign(move.mean) >= least}
        return Score(
            min(1.0, max(0.0, agreement)), raw={**raw, "agreement": agreement}, stats=self._stats(truth, right)
        )

    def worst(self, truth: Asked, reason: str) -> Score:
        return Score.invalid(reason, raw={"agreement": -1.0}, stats=self._stats(truth, frozenset()))

    @staticmethod
    def _stats(truth: Asked, right: frozenset[str] | set[str]) -> dict[str, np.ndarray]:
        return {
            "asked": np.array([name in truth.moving for name in NAMES], dtype=np.float64),
            "right": np.array([name in right for name in NAMES], dtype=np.float64),
        }


def possible(pixels: np.ndarray, units: Units) -> np.ndarray:
    """(H, W) bool: pixels that are finite and within the sensor's range in every band, and whose indices lie in [-1, 1].

    Args:
        pixels: (H, W, C) as stored.
        units: what they mean. Indices are looked at where bands are named; one is not defined where both its bands are 0, which
            is dark and possible.
    """
    within: np.ndarray = (np.isfinite(pixels) & (pixels >= units.low) & (pixels <= units.high)).all(axis=-1)
    if units.names is None:
        return within
    bands = units.reflectance(pixels)
    for index in INDICES.values():
        if {index.first, index.second} <= bands.keys():
            # first - second lies between -(first + second) and first + second only where neither is negative.
            within = within & ~((bands[index.first] < 0) | (bands[index.second] < 0))
    return within


class PhysicalRange(PerForecast[tuple[Rasters, np.ndarray]]):
    """The share of a forecast's pixels that the sensor could have measured."""

    name = "physical_range"
    card = Card(
        summary=(
            "Share of the pixels of a forecast that are finite and within the sensor's range in every band, "
            "with normalised differences in [-1, 1]."
        ),
        range="raw.physical_range in [0, 1], 1 = clean; an invalid output counts as 0",
        transform="none: 1 if all values are possible, so as a component of a rubric it is a penalty",
        source=(
            "range = metadata.valid_range in stored numbers (a name of the CF conventions); without it "
            "reflectance in [0, 1] for floats and all that the type can hold for integers."
        ),
        gaming="Every image within the range passes, even a copy or a black one. Use it to exclude impossible values, not "
        "to rank forecasts. Integers without a declared range always pass",
        cost="0.3 ms for 64 x 64 x 6 on a CPU",
    )
    reported = (MeanValue("physical_range", "physical_range", bounds=(0.0, 1.0)),)

    def truth(self, sample: Sample) -> tuple[Rasters, np.ndarray] | Score:
        rasters = read_rasters(self.context.bank, sample)
        counted = rasters.valid & possible(rasters.future, rasters.units)
        if not counted.any():
            low, high = rasters.units.low, rasters.units.high
            return Score.not_applicable(
                f"no pixel of the true future is within {low:g} .. {high:g}; check metadata.valid_range"
            )
        return rasters, counted

    def compare(self, truth: tuple[Rasters, np.ndarray], output: Output) -> Score:
        rasters, counted = truth
        fine = possible(rasters.forecast(output), rasters.units)[counted]
        share = float(fine.mean())
        reason = "" if fine.all() else f"{int((~fine).sum())} of {fine.size} pixels are out of range or not finite"
        return Score(share, raw={"physical_range": share}, reason=reason)
