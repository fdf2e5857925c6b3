"""GreenEarthNet's vegetation score: forecasts of NDVI by efficiency, correlation, error and bias over vegetated pixels; the ``greenearthnet_score`` verifier.

All definitions are those of ``eval.py`` in github.com/vitusbenson/greenearthnet@a032963 (Benson et al., arXiv 2303.16198), with its filter of pixels and its means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import ImageError
from rsw_rewards.verifiers.answer_metrics import VALID_RATE
from rsw_rewards.verifiers.forecast_case import NO_FUTURE, PerForecast
from rsw_rewards.verifiers.index_series import read_index_values

COVERS = {0: "unlabelled", 10: "forest", 20: "shrub", 30: "grass", 40: "crop"}
"""ESA WorldCover's codes below 41, which count, and what they are called."""
LEAD = 5
"""Frames of one lead time; four of them have an error of their own."""
MEASURES = ("nnse", "R2", "rmse", "biasabs", *(f"rmse/{start}_{start + LEAD}" for start in range(0, 4 * LEAD, LEAD)))
LEAST_TARGET, LEAST_CONTEXT, LEAST_SPREAD = 10, 3, 0.1
"""Dates seen of the future and of the past, and standard deviation of NDVI, that a pixel must have."""
UNSEEN = 0.5
"""NDVI that a forecast without a number counts as."""


class Truth(NamedTuple):
    """What a sample says, read once."""

    target: np.ndarray
    """(T, H, W) float64 NDVI of the future, NaN where there is no number."""
    counted: np.ndarray
    """(T, H, W) bool, the dates of a pixel that are not masked; a few of them may have no number."""
    covers: np.ndarray
    """(H, W) codes of :data:`COVERS` where a pixel is kept, -1 elsewhere."""


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(...) mean over the first axis of what is counted; NaN where nothing is."""
    count = where.sum(0)
    total = np.where(where, values, 0.0).sum(0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def pixel_measures(truth: Truth, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Each of :data:`MEASURES` of every pixel, (H, W) float64, NaN where it is undefined.

    Args:
        truth: of one cube.
        predicted: (T, H, W) float64 NDVI, within [-1, 1] and finite.
    """
    target, seen = np.nan_to_num(truth.target), np.isfinite(truth.target)
    error = (target - predicted) ** 2
    mean = _mean(target, seen)
    spread = np.where(seen, (target - mean) ** 2, 0.0).sum(0)
    ratio = np.divide(np.where(seen, error, 0.0).sum(0), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    centred = predicted - _mean(predicted, seen)
    own = np.where(seen, centred**2, 0.0).sum(0)
    steady = np.where(seen, predicted, -np.inf).max(0) <= np.where(seen, predicted, np.inf).min(0)
    common = np.where(seen, centred * (target - mean), 0.0).sum(0)
    usable = (spread > 0) & (own > 0) & ~steady
    leads = {
        f"rmse/{start}_{start + LEAD}": _mean(error[start : start + LEAD], seen[start : start + LEAD]) ** 0.5
        for start in range(0, 4 * LEAD, LEAD)
    }
    return {
        "nnse": 1 / (1 + ratio),
        "R2": np.divide(common**2, own * spread, out=np.full(spread.shape, np.nan), where=usable),
        "rmse": _mean(error, seen) ** 0.5,
        "biasabs": np.abs(mean - _mean(predicted, truth.counted)),
        **leads,
    }


def kept(context: np.ndarray, target: np.ndarray, counted: np.ndarray, covers: np.ndarray) -> np.ndarray:
    """(H, W) bool, the pixels that count: vegetated, never below 0, seen often enough, and changing.

    Args:
        context, target: (T, H, W) NDVI, NaN where there is no number, infinite in ``context`` where it is not masked all the same.
        counted: (T, H, W) bool, what is not masked in the target.
        covers: (H, W) codes of ESA WorldCover.
    """
    seen = np.isfinite(target)
    with np.errstate(invalid="ignore"):
        deviation = _mean((np.nan_to_num(target) - _mean(np.nan_to_num(target), seen)) ** 2, seen) ** 0.5
    lowest = np.where(np.isfinite(np.concatenate([context, target])), np.concatenate([context, target]), np.inf).min(0)
    often = (counted.sum(0) >= LEAST_TARGET) & ((~np.isnan(context)).sum(0) >= LEAST_CONTEXT)
    return (covers < 41) & (lowest > 0) & np.isfinite(lowest) & often & (deviation > LEAST_SPREAD)


def _over_cubes(sums: Sums, place: int) -> np.ndarray:
    """(covers,) mean over cubes of one of :data:`MEASURES`, NaN for a land cover without any."""
    total, count = sums["total"][:, place], sums["count"][:, place]
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _number(values: np.ndarray, efficiency: bool) -> float | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    mean = float(known.mean())
    return mean if not efficiency else 2 - 1 / mean if mean > 0 else None


def _all(sums: Sums) -> Numbers:
    found: dict[str, float | None] = {}
    for place, name in enumerate(MEASURES):
        means = _over_cubes(sums, place) if "total" in sums else np.full(len(COVERS), np.nan)
        key = "nse" if name == "nnse" else name
        found[key] = _number(means, name == "nnse")
        if name == "nnse":
            found["nnse"] = _number(means, False)
        if not name.startswith("rmse/"):
            for code, (_, cover) in enumerate(COVERS.items()):
                found[f"{key}/{cover}"] = _number(means[code : code + 1], name == "nnse")
    return found


KEYS = tuple(_all({}))
RANGES = {"nse": (-np.inf, 1.0), "nnse": (0.0, 1.0), "R2": (0.0, 1.0), "rmse": (0.0, 2.0), "biasabs": (0.0, 2.0)}


class GreenEarthNet(PerForecast[Truth]):
    """GreenEarthNet's score of a forecast series of NDVI; it measures, and rewards nothing."""

    name = "greenearthnet_score"
    needs = frozenset({"output.images", "reference.images", "reference.land_cover"})
    rewarding = False
    card = Card(
        summary="GreenEarthNet's score of a series of (H, W) NDVI frames: NaN for masked pixels, infinite for others without a value. reference.land_cover has ESA WorldCover's codes.",
        range="nse: up to 1; nnse, R2: [0, 1]; rmse, biasabs: [0, 2]",
        transform="none; a single output has no value, so it cannot be a reward",
        source="vitusbenson/greenearthnet@a032963 eval.py; arXiv 2303.16198",
        gaming="A NaN in a forecast counts as an NDVI of 0.5. A pixel whose forecast is constant has no R2, and is left out of that mean.",
        cost="about 50 ms for 20 frames of 128 x 128",
    )
    reported = (SumMetric(KEYS, _all, bounds={key: RANGES[key.split("/")[0]] for key in KEYS}), VALID_RATE)

    def truth(self, sample: Sample) -> Truth | Score:
        images: Sequence[ImageRef] = sample.reference.get("images") or ()
        if not images:
            return NO_FUTURE
        land = sample.reference.get("land_cover")
        if not isinstance(land, ImageRef):
            raise ImageError("it lacks reference.land_cover, the codes of ESA WorldCover")
        covers = land.pixels().astype(np.float64)
        raw = _stack(images)
        context = _stack(sample.images) if sample.images else np.empty((0, *raw.shape[1:]))
        if covers.shape != raw.shape[1:] or context.shape[1:] != raw.shape[1:]:
            raise ImageError("its frames and its land cover have several sizes")
        counted, target = ~np.isnan(raw), np.clip(np.where(np.isfinite(raw), raw, np.nan), -1, 1)
        keep = kept(np.clip(context, -1, np.inf), target, counted, covers)
        if unknown := sorted(set(covers[keep].tolist()) - set(COVERS)):
            raise ImageError(
                f"its land cover holds {unknown[0]:g}; below 41 ESA WorldCover has {', '.join(map(str, COVERS))}"
            )
        if not keep.any():
            return Score.not_applicable("no pixel is vegetated, seen often enough and changing")
        return Truth(target, counted, np.where(keep, covers, -1).astype(np.int64))

    def compare(self, truth: Truth, output: Output) -> Score:
        made = output.images or (() if output.image is None else (output.image,))
        predicted = _stack(made) if made else np.empty(0)
        if predicted.shape != truth.target.shape:
            raise ImageError(f"the forecast has the shape {predicted.shape}, the true future {truth.target.shape}")
        predicted = np.where(np.isnan(predicted), UNSEEN, np.clip(predicted, -1, 1))
        measured = pixel_measures(truth, predicted)
        total, count = np.zeros((len(COVERS), len(MEASURES))), np.zeros((len(COVERS), len(MEASURES)))
        for code, cover in enumerate(COVERS):
            here = truth.covers == cover
            for place, name in enumerate(MEASURES):
                values = measured[name][here]
                if (known := values[np.isfinite(values)]).size:
                    total[code, place], count[code, place] = known.mean(), 1.0
        stats = {"total": total, "count": count, "valid": np.ones(())}
        numbers = {key: value for key, value in _all(stats).items() if value is not None}
        return Score(None, raw=numbers, stats=stats)

    def worst(self, truth: Truth, reason: str) -> Score:
        """No efficiency and no correlation in any land cover that the cube has; errors and bias are left out."""
        count = np.zeros((len(COVERS), len(MEASURES)))
        count[:, :2] = np.array([[(truth.covers == cover).any()] * 2 for cover in COVERS])
        return Score.invalid(reason, raw={"nnse": 0.0}, stats={"total": np.zeros(count.shape), "count": count})


def _stack(images: Sequence[ImageRef]) -> np.ndarray:
    frames = [read_index_values(image) for image in images]
    if len({frame.shape for frame in frames}) > 1:
        raise ImageError("the frames of a series have several sizes")
    return np.stack(frames)
