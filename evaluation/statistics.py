"""Intervals over scenes and paired differences: how far a number would move if other places had been looked at.

Tiles of one scene are not independent, so scenes are resampled, never rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rsw_rewards.contracts import AdditiveMetric, FeatureLookup, Metric
from rsw_rewards.scores import ScoreTable, Status

RESAMPLES = 2000
FEW_SCENES = 30
"""Below this number a percentile bootstrap covers too little (81 to 90 % where 95 % is meant); jackknife-t is used instead."""
GROUPS = 25
"""Parts that scenes are dealt into for the jackknife of set-level distances."""
_SEED = 20_260_101

COUNTED = (Status.OK, Status.INVALID_OUTPUT)
"""Rows that a metric is taken over; failed scores and those that do not apply are no evidence either way."""

Numbers = dict[str, "float | None"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval over scenes."""

    value: float | None
    ci95: tuple[float, float] | None
    n_scenes: int
    reason: str = ""
    """Why there is no value, or no interval."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one verifier that count, with what metrics read from them."""

    frame: pd.DataFrame
    stats: Mapping[str, np.ndarray]
    scene: np.ndarray
    """(rows,) scene number of each row, 0 .. n_scenes - 1, into ``scenes``."""
    scenes: np.ndarray

    @classmethod
    def of(cls, table: ScoreTable) -> Rows:
        """The counted rows of a table that holds one verifier."""
        frame = table.frame[table.frame["status"].isin(COUNTED)].reset_index(drop=True)
        codes, names = pd.factorize(frame["scene"])
        return cls(frame, ScoreTable(frame).stats(), codes, np.asarray(names))


Statistic = Callable[[np.ndarray], Numbers]
"""Numbers under a weight per scene: (scenes,) float64 multiplicities."""


def statistic(metric: Metric, rows: Rows, features: FeatureLookup | None = None) -> Statistic:
    """The metric as a function of scene weights; additive metrics are summed per scene once."""
    if not isinstance(metric, AdditiveMetric):
        return lambda weight: metric.compute(rows.frame, rows.stats, weight[rows.scene], features)
    additive = metric
    places: dict[str, tuple[slice, tuple[int, ...]]] = {}
    columns: list[np.ndarray] = []
    width = 0
    for name, term in additive.terms(rows.frame, rows.stats).items():
        per_scene = np.zeros((len(rows.scenes), *term.shape[1:]))
        np.add.at(per_scene, rows.scene, term)
        columns.append(per_scene.reshape(len(rows.scenes), -1))
        places[name] = (slice(width, width + columns[-1].shape[1]), per_scene.shape[1:])
        width += columns[-1].shape[1]
    # Side by side, so that a resample costs one product, however many sums a metric reads.
    matrix = np.concatenate(columns, axis=1) if columns else np.zeros((len(rows.scenes), 0))

    def numbers(weight: np.ndarray) -> Numbers:
        sums = weight @ matrix
        return dict(additive.from_sums({name: sums[place].reshape(shape) for name, (place, shape) in places.items()}))

    return numbers


def estimates(metric: Metric, table: ScoreTable, features: FeatureLookup | None = None) -> dict[str, Estimate]:
    """Every number of a metric over the rows of one verifier, with its interval.

    At 30 scenes and more: percentile bootstrap over scenes. Below: Student's t around the number with the jackknife's standard
    error. Metrics that are not sums (set-level distances): delete-a-group jackknife, since an image that stands twice in a
    resample makes such a distance larger. One scene gives no interval.
    """
    rows = Rows.of(table)
    if not len(rows.frame):
        return {key: Estimate(None, None, 0, "no row could be scored") for key in metric.keys}
    return _estimates(statistic(metric, rows, features), metric, len(rows.scenes), bounded=True)


def paired_difference(
    metric: Metric, before: ScoreTable, after: ScoreTable, features: FeatureLookup | None = None
) -> dict[str, Estimate]:
    """``after - before`` of every number of a metric, over the outputs that count in both tables; scenes are resampled together.

    An output whose score failed on one side is left out on both, or the difference would be one of samples, not of runs.
    """
    frames = [_keyed(table) for table in (before, after)]
    both = set(frames[0].index) & set(frames[1].index)
    if not both:
        return {key: Estimate(None, None, 0, "the two runs have no scored output in common") for key in metric.keys}
    frames = [frame[frame.index.isin(both)].reset_index(drop=True) for frame in frames]
    common = sorted(set(frames[0]["scene"]))
    sides = []
    for frame in frames:
        codes = pd.Categorical(frame["scene"], categories=common).codes.astype(np.int64)
        sides.append(statistic(metric, Rows(frame, ScoreTable(frame).stats(), codes, np.asarray(common)), features))

    def difference(weight: np.ndarray) -> Numbers:
        low, high = sides[0](weight), sides[1](weight)
        return {key: _minus(high.get(key), low.get(key)) for key in metric.keys}

    return _estimates(difference, metric, len(common), bounded=False)


def _keyed(table: ScoreTable) -> pd.DataFrame:
    """The counted rows under their scene, sample and candidate."""
    frame = table.frame[table.frame["status"].isin(COUNTED)]
    return frame.set_index(pd.MultiIndex.from_frame(frame[["scene", "sample", "candidate"]]))


def _minus(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else high - low


def _estimates(of: Statistic, metric: Metric, n_scenes: int, bounded: bool) -> dict[str, Estimate]:
    values = of(np.ones(n_scenes))
    if n_scenes == 1:
        return {key: Estimate(values.get(key), None, 1, "one scene gives no interval") for key in metric.keys}
    if not isinstance(metric, AdditiveMetric):
        intervals = _jackknife(of, metric.keys, values, n_scenes, min(GROUPS, n_scenes))
    elif n_scenes < FEW_SCENES:
        intervals = _jackknife(of, metric.keys, values, n_scenes, n_scenes)
    else:
        intervals = _bootstrap(of, metric.keys, n_scenes)
    out = {}
    bounds: tuple[float, float] | None = getattr(metric, "bounds", None) if bounded else None
    for key in metric.keys:
        value, interval = values.get(key), intervals.get(key)
        if interval is not None and bounds is not None:
            interval = (max(bounds[0], interval[0]), min(bounds[1], interval[1]))
        reason = "" if value is not None else "it is undefined over these rows"
        if value is not None and interval is None:
            reason = "it is undefined on most resamples of the scenes"
        out[key] = Estimate(value, interval if value is not None else None, n_scenes, reason)
    return out


def _bootstrap(of: Statistic, keys: tuple[str, ...], n_scenes: int) -> dict[str, tuple[float, float] | None]:
    generator = np.random.default_rng(_SEED)
    drawn: dict[str, list[float]] = {key: [] for key in keys}
    for _ in range(RESAMPLES):
        weight = np.bincount(generator.integers(0, n_scenes, n_scenes), minlength=n_scenes).astype(np.float64)
        for key, value in of(weight).items():
            if value is not None and key in drawn:
                drawn[key].append(value)
    return {key: _percentiles(values) for key, values in drawn.items()}


def _percentiles(values: list[float]) -> tuple[float, float] | None:
    """The middle 95 % of the resamples; None where more than one in ten of them was undefined."""
    if len(values) < 0.9 * RESAMPLES:
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _jackknife(
    of: Statistic, keys: tuple[str, ...], values: Numbers, n_scenes: int, groups: int
) -> dict[str, tuple[float, float] | None]:
    """Student's t with the standard error of the (delete-a-group) jackknife, Efron and Tibshirani 1993, chapter 11."""
    from scipy.stats import t

    member = np.random.default_rng(_SEED).permutation(n_scenes) % groups
    left_out = [of((member != group).astype(np.float64)) for group in range(groups)]
    out: dict[str, tuple[float, float] | None] = {}
    for key in keys:
        replicates = np.array([numbers.get(key) for numbers in left_out], dtype=np.float64)
        value = values.get(key)
        if value is None or np.isnan(replicates).any():
            out[key] = None
            continue
        error = np.sqrt((groups - 1) / groups * ((replicates - replicates.mean()) ** 2).sum())
        half = float(t.ppf(0.975, groups - 1) * error)
        out[key] = (value - half, value + half)
    return out
