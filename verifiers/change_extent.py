"""Whether a forecast visibly changes about as much of the image as the future does; the ``change_extent`` verifier, made as a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.detector_consistency import false_alarm_value
from rsw_rewards.verifiers.forecast_case import ForecastCase, PerForecast, read_case


def visible_change(image: np.ndarray, before: np.ndarray, levels: int) -> np.ndarray:
    """(H, W) bool, the pixels of 2 x 2 blocks in which every pixel differs from ``before`` by more than ``levels`` in a channel.

    Args:
        image: (H, W, C) uint8.
        before: (H, W, C) uint8.
        levels: grey levels, 0 .. 255.
    """
    from scipy.ndimage import binary_opening

    moved = np.abs(image.astype(np.int16) - before).max(axis=-1) > levels
    return np.asarray(binary_opening(moved, np.ones((2, 2), bool)), bool)


def extent_value(share: float, true: float, least: float) -> float:
    """How alike two shares of an image are, in [0, 1]: the smaller by the larger, so that 0 against something is 0.

    A ``true`` share below ``least`` is no change, and what the other has more is a false alarm: ``1 / (1 + 100 more)``.

    >>> extent_value(0.1, 0.2, 0.005), extent_value(0.0, 0.2, 0.005), extent_value(0.01, 0.0, 0.005)
    (0.5, 0.0, 0.5)
    """
    if true < least:
        return false_alarm_value(max(0.0, share - true))
    return min(share, true) / max(share, true)


@dataclass(frozen=True, slots=True, eq=False)
class ExtentTruth:
    """A sample made ready for its forecasts."""

    case: ForecastCase
    before: np.ndarray
    """(H, W, 3) uint8, the newest input."""
    counted: np.ndarray
    """(H, W) bool, pixels that count."""
    extent: float
    """Share of them that changes visibly in the true future."""


class ChangeExtent(PerForecast[ExtentTruth]):
    """Whether a forecast changes visibly about as much as the true future does."""

    name = "change_extent"

    class Config(NoConfig):
        """What counts as a visible change, and how little of it as none."""

        levels: int = Field(
            24, ge=1, le=255, description="grey levels by which a channel of a visibly changed pixel differs"
        )
        least: float = Field(
            0.005, gt=0.0, lt=1.0, description="share of the pixels below which the true future counts as unchanged"
        )

    card = Card(
        summary="Whether a forecast visibly changes as many pixels as the true future does. Made as a gate: a copy, "
        "or one changed by at most 24 grey levels, gets 0 if something changes.",
        range="raw.extent and raw.true_extent in [0, 1]; an invalid output gets 0",
        transform="the smaller share divided by the larger; in a sample without change 1 / (1 + 100 * share)",
        source="this project; docs/attacks.md has its effect on attacks and on forecasts of the shipped model",
        gaming="It does not check where the change is, or what it shows. Use it with weight 0, as the gate of a verifier that does.",
        cost="a tenth of a millisecond for 64 x 64",
    )

    def truth(self, sample: Sample) -> ExtentTruth | Score:
        case = read_case(self.context.bank, sample, future=True, before=True)
        before, future = case.picture(case.newest), case.picture(case.future)
        counted = case.counted(future)
        mask = case.change(future)
        extent = self._extent(future, before, counted if mask is None else counted & mask, counted)
        return ExtentTruth(case, before, counted, extent)

    def _extent(self, image: np.ndarray, before: np.ndarray, looked_at: np.ndarray, counted: np.ndarray) -> float:
        """The share of the pixels that count which are looked at and visibly changed."""
        return float((visible_change(image, before, self.config.levels) & looked_at).sum() / counted.sum())

    def compare(self, truth: ExtentTruth, output: Output) -> Score:
        image = np.where(truth.counted[..., None], truth.case.forecast_picture(output), truth.before)
        extent = self._extent(image, truth.before, truth.counted, truth.counted)
        raw: dict[str, Any] = {"extent": extent, "true_extent": truth.extent}
        return Score(extent_value(extent, truth.extent, self.config.least), raw=raw)
