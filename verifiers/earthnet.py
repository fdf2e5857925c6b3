"""EarthNetScore: forecasts of Sentinel-2 series by median deviation, trend, distribution and structure; the ``earthnet_score`` verifier.

All functions are those of the package ``earthnet`` 0.3.11, ``earthnet/parallel_score.py`` (Requena-Mesa et al., arXiv 2104.10066), with its odd cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import FeatureLookup, Frame, Metric, Numbers, Terms
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import declared_bands
from rsw_rewards.verifiers.forecast_case import NO_FUTURE, PerForecast

VALUE_POWER = 0.06649346971087526
SERIES_POWER = 0.10082047548620601
STRUCTURE_POWER = 10.31885115
"""Powers that spread the four scores, so that a usual deviation is worth 0.1."""
REGULAR = 0.5e-4
"""Added to the normal equations of a slope: the mean of what the package draws at random, between 0 and 1e-4."""
PIECE, LONGEST = 20, 40
"""Dates of a piece, in which a longer series than ``LONGEST`` is looked at."""
SCORES = ("mad", "ols", "emd", "ssim")
RED, NIR = 2, 3


def _score(distance: float) -> float:
    """1 less a distance, within [0, 1]; 1 where there is none, as minimum and maximum with NaN fall there."""
    return 1.0 if np.isnan(distance) else max(0.0, min(1.0, 1.0 - float(distance)))


def value_score(predicted: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float:
    """MAD: 1 less the median of ``|p - y|^0.066`` over what was seen; (H, W, C, T) float64 and bool."""
    distances = np.abs(predicted - target)[seen] ** VALUE_POWER
    return _score(np.median(distances) if distances.size else np.nan)


def _slopes(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """(N,) slope of each of N series over the dates that count, time running from 2 to 4 between the first and the last of them."""
    time = np.broadcast_to(np.linspace(1, 2, values.shape[1]), values.shape)
    first = np.where(counted, time, np.inf).min(1, keepdims=True)
    since = np.where(counted, time - first, 0.0)
    x = np.where(counted, 2 * (since / (since.max(1, keepdims=True) + 1e-8) + 1), 0.0)
    ones, y = counted.astype(np.float64), np.where(counted, values, 0.0)
    a, b, d = ((left * right).sum(1) + REGULAR for left, right in ((x, x), (x, ones), (ones, ones)))
    return ((d * (x * y).sum(1)) - (b * y.sum(1))) / (a * d - b * b)


def trend_score(predicted: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float:
    """OLS: 1 less the mean of the difference of slopes, to the power of 0.1; (H, W, T) NDVI.

    The forecast's slope is over all dates from the first seen to the last. Pixels seen fewer than twice count with a difference of 0.
    """
    length = predicted.shape[-1]
    if length > LONGEST:
        if length % PIECE:
            raise ValueError(f"a series of {length} dates; over {LONGEST} they must be a multiple of {PIECE}")
        length = PIECE
    given, true, known = (one.reshape(-1, length) for one in (predicted, target, seen))
    known = known & (known.sum(1, keepdims=True) >= 2)
    between = np.maximum.accumulate(known, axis=1) & np.maximum.accumulate(known[:, ::-1], axis=1)[:, ::-1]
    some = known.any(1)
    difference = np.zeros(len(known))
    difference[some] = np.abs(_slopes(true[some], known[some]) - _slopes(given[some], between[some])) / 2
    return _score(float((difference**SERIES_POWER).mean()))


def distribution_score(predicted: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float:
    """EMD: 1 less the mean over pixels seen at least twice of the earth mover's distance of all forecasts to what was seen, to the power of 0.1."""
    from scipy.stats import wasserstein_distance

    given, true, known = (one.reshape(-1, predicted.shape[-1]) for one in (predicted, target, seen))
    rows = np.flatnonzero(known.sum(1) > 1)
    distances = np.array([wasserstein_distance(given[row], true[row][known[row]]) for row in rows])
    return _score(float((distances**SERIES_POWER).mean()) if len(rows) else np.nan)


WINDOW = 7
"""Pixels a side of the window that structural similarity is measured in."""


def _similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two (H, W) planes, window 7, sample covariance, data range 2: scikit-image's of floats before 0.20."""
    from scipy.ndimage import uniform_filter

    window, span = WINDOW, 2.0
    correction = window**2 / (window**2 - 1)
    mean = [uniform_filter(one, window) for one in (first, second)]
    variance = [
        correction * (uniform_filter(one * one, window) - m * m) for one, m in zip((first, second), mean, strict=True)
    ]
    covariance = correction * (uniform_filter(first * second, window) - mean[0] * mean[1])
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    above = (2 * mean[0] * mean[1] + c1) * (2 * covariance + c2)
    below = (mean[0] ** 2 + mean[1] ** 2 + c1) * (variance[0] + variance[1] + c2)
    edge = window // 2
    return float((above / below)[edge:-edge, edge:-edge].mean())


def structure_score(predicted: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float | None:
    """SSIM: the mean similarity of planes of which more than 70 % were seen, to the power of 10.3; None where there is no such plane.

    What was not seen is taken from the forecast.
    """
    filled = np.where(seen, target, predicted)
    planes = [(c, t) for t in range(seen.shape[3]) for c in range(seen.shape[2]) if seen[..., c, t].mean() > 0.7]
    if not planes:
        return None
    found = [_similarity(filled[..., c, t], predicted[..., c, t]) for c, t in planes]
    return float(max(0.0, sum(found) / len(found)) ** STRUCTURE_POWER)


def index(bands: np.ndarray) -> np.ndarray:
    """(H, W, T) NDVI of (H, W, 4, T) reflectance."""
    return np.asarray((bands[:, :, NIR] - bands[:, :, RED]) / (bands[:, :, NIR] + bands[:, :, RED] + 1e-6))


def cube_scores(predicted: np.ndarray, target: np.ndarray, seen: np.ndarray) -> dict[str, float | None]:
    """The four scores of one cube.

    Args:
        predicted, target: (H, W, 4, T) float64 reflectance (blue, green, red, near infrared), cut to [0, 1]; a target of NaN is 0.
        seen: (H, W, T) bool, which dates of a pixel count.
    """
    given, true = np.clip(predicted, 0, 1), np.clip(np.nan_to_num(target, nan=0.0), 0, 1)
    every = np.repeat(seen[:, :, None], given.shape[2], axis=2)
    planes = every.copy()
    if (
        seen.shape[-1] <= LONGEST
    ):  # the package's trend writes into the mask of the first band, which its structure reads afterwards
        planes[:, :, 0] &= (seen.sum(-1) >= 2)[..., None]
    series = index(given), index(true), seen
    return {
        "mad": value_score(given, true, every),
        "ols": trend_score(*series),
        "emd": distribution_score(*series),
        "ssim": structure_score(given, true, planes),
    }


def harmonic(scores: Sequence[float | None]) -> float | None:
    """Harmonic mean with 1e-8 in each denominator, at most 1; scores of None and of exactly 0 are left out."""
    known = [score for score in scores if score]
    return min(1.0, len(known) / sum(1 / (score + 1e-8) for score in known)) if known else None


@dataclass(frozen=True)
class EarthNetScore(Metric):
    """``ens`` and its four parts: of several candidates the best counts, scores are averaged over cubes, then taken together."""

    keys: tuple[str, ...] = ("ens", *SCORES)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def compute(self, rows: Frame, stats: Terms, weight: np.ndarray, features: FeatureLookup | None = None) -> Numbers:
        best: dict[str, tuple[float, list[float | None], float]] = {}
        for name, raw, status, times in zip(rows["sample"], rows["raw"], rows["status"], weight, strict=True):
            if status not in ("ok", "invalid_output") or not times:
                continue
            found = [(raw or {}).get(key) for key in SCORES]
            whole = harmonic(found) or 0.0
            if name not in best or whole > best[name][0]:
                best[name] = (whole, found, float(times))
        means: list[float | None] = []
        for place in range(len(SCORES)):
            known = [(found[place], times) for _, found, times in best.values() if found[place] is not None]
            total = sum(times for _, times in known)
            means.append(sum(value * times for value, times in known if value is not None) / total if total else None)
        return dict(zip(self.keys, (harmonic(means), *means), strict=True))


def _stack(images: Sequence[ImageRef], what: str) -> np.ndarray:
    frames = [image.pixels(bands=declared_bands(image)) for image in images]
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] != 4 or frame.dtype.kind != "f":
            raise ImageError(f"a frame of the {what} must be (H, W, 4) of floats, not {frame.dtype} {frame.shape}")
    if min(frames[0].shape[:2]) < WINDOW:
        raise ImageError(f"a frame of the {what} must have {WINDOW} pixels a side at least")
    if len({frame.shape for frame in frames}) > 1:
        raise ImageError(f"the frames of the {what} have several sizes")
    return np.stack(frames, axis=-1).astype(np.float64)


class EarthNet(PerForecast[np.ndarray]):
    """EarthNetScore of a forecast series of four bands; it measures, and rewards nothing."""

    name = "earthnet_score"
    needs = frozenset({"output.images", "reference.images"})
    rewarding = False
    at_once = 1
    card = Card(
        summary="EarthNet score of a series of (H, W, 4) reflectance frames (blue, green, red, near infrared). A true "
        "pixel with NaN in any band was not observed.",
        range="ens, mad, ols, emd, ssim: [0, 1], 1 is perfect",
        transform="none; a single output has no value, so it cannot be a reward",
        source="earthnet 0.3.11 (PyPI) earthnet/parallel_score.py; arXiv 2104.10066",
        gaming="A cube without a clear date gets 1 except for ssim, and pixels observed once raise ols. Forecasts also "
        "count at dates without observations, so the truth gets less than 1.",
        cost="about two seconds a cube of 128 x 128 and 20 dates",
    )
    reported = (EarthNetScore(),)
    worst_facts = {"raw": dict.fromkeys(SCORES, 0.0)}

    def truth(self, sample: Sample) -> np.ndarray | Score:
        images: Sequence[ImageRef] = sample.reference.get("images") or ()
        return _stack(images, "true future") if images else NO_FUTURE

    def compare(self, truth: np.ndarray, output: Output) -> Score:
        given = _stack(output.images or (() if output.image is None else (output.image,)), "forecast")
        if given.shape != truth.shape:
            raise ImageError(f"the forecast has the shape {given.shape}, the true future {truth.shape}")
        seen = np.isfinite(truth).all(axis=2)
        if not np.isfinite(given[np.broadcast_to(seen[:, :, None], given.shape)]).all():
            raise ImageError("the forecast has no number where the truth was seen")
        if not np.isfinite(given).all():  # a truth as its own forecast: a pixel's mean stands where nothing was seen
            counted = np.isfinite(given)
            mean = np.where(counted, given, 0).sum(-1, keepdims=True) / np.maximum(counted.sum(-1, keepdims=True), 1)
            given = np.where(counted, given, mean)
        scores = cube_scores(given, truth, seen)
        return Score(None, raw={key: value for key, value in scores.items() if value is not None})
