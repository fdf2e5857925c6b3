"""Intervals over scenes and paired differences: how far a number would move if other places had been looked at.

Tiles of one scene are not independent, so scenes are left out or swapped, never rows. ``docs/statistics.md`` has the measured
coverage of the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from rsw_rewards.core.metric import AdditiveMetric, Bounds, FeatureLookup, Metric, Numbers
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.intervals import (
    Interval,
    deal,
    score_interval,
    sign_flip_p,
    spread,
    student_interval,
    student_p,
    unseen_interval,
)

PARTS = 1000
"""Most parts that scenes are dealt into; more would cost time and tell nothing new."""
SET_PARTS = 25
"""The same for set-level distances, which are computed anew for every part."""

COUNTED = (Status.OK, Status.INVALID_OUTPUT)
"""Rows that a metric is taken over; failed scores and those that do not apply are no evidence either way."""

NO_VALID_OUTPUT = "no output was valid, which gives no interval"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval over scenes."""

    value: float | None
    ci95: tuple[float, float] | None
    n_scenes: int
    reason: str = ""
    """Why there is no value, or no interval."""
    p_value: float | None = None
    """Of a paired difference: how probable one of this size is where the runs do not differ. See :func:`paired_difference`."""


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


@dataclass(frozen=True, slots=True)
class Summed:
    """Numbers that are a function of sums over scenes."""

    sums: np.ndarray
    """(scenes, width) float64."""
    numbers: Callable[[np.ndarray], Numbers]
    """From the (width,) sums of all scenes."""

    def __call__(self, weight: np.ndarray) -> Numbers:
        """The numbers under a multiplicity per scene, (scenes,) float64."""
        return self.numbers(weight @ self.sums)

    def merged(self, part: np.ndarray) -> Summed:
        """The same with the sums of parts, (scenes,) part numbers, in place of those of scenes."""
        return self if len(part) == part.max() + 1 else replace(self, sums=_sum_by(part, self.sums))

    def left_out(self, part: np.ndarray) -> list[Numbers]:
        """The numbers without each part."""
        sums = self.merged(part).sums
        # Sums from both ends rather than a subtraction from the total, which would leave rounding where nothing is left.
        none = np.zeros((1, sums.shape[1]))
        before = np.concatenate([none, np.cumsum(sums[:-1], axis=0)])
        after = np.concatenate([np.cumsum(sums[:0:-1], axis=0)[::-1], none])
        return [self.numbers(rest) for rest in before + after]


@dataclass(frozen=True, slots=True)
class SetLevel:
    """Numbers of a set as a whole, which a repeated row would change: computed anew without each part."""

    numbers: Callable[[np.ndarray], Numbers]
    """From (scenes,) float64 weights, 0 or 1."""
    without: Callable[[np.ndarray], list[Numbers] | None] = lambda part: None
    """The metric's own way to the numbers without each part, where it knows a faster one than computing them anew. An empty list
    says that it gives none."""

    def __call__(self, weight: np.ndarray) -> Numbers:
        return self.numbers(weight)

    def left_out(self, part: np.ndarray) -> list[Numbers]:
        """The numbers without each part."""
        if (found := self.without(part)) is not None:
            return found
        return [self.numbers((part != out).astype(np.float64)) for out in range(int(part.max()) + 1)]


Statistic = Summed | SetLevel


def statistic(metric: Metric, rows: Rows, features: FeatureLookup | None = None) -> Statistic:
    """The metric as a function of scenes; additive metrics are summed per scene once."""
    if not isinstance(metric, AdditiveMetric):
        return SetLevel(
            lambda weight: metric.compute(rows.frame, rows.stats, weight[rows.scene], features),
            lambda part: metric.left_out(rows.frame, rows.stats, part[rows.scene], features),
        )
    layout, (sums,) = _scene_sums(metric, (rows,))
    return Summed(sums, lambda total: dict(metric.from_sums(layout(total))))


Layout = Callable[[np.ndarray], dict[str, np.ndarray]]
"""The terms of a metric, by name and in their shapes, from (width,) sums."""


def _scene_sums(metric: AdditiveMetric, sides: Sequence[Rows]) -> tuple[Layout, list[np.ndarray]]:
    """Sums per scene, (scenes, width) float64, with the terms of all sides in the same columns; zeros for a term that a side lacks."""
    found = [metric.terms(rows.frame, rows.stats) for rows in sides]
    shapes: dict[str, tuple[int, ...]] = {}
    for terms in found:
        for name, term in terms.items():
            if shapes.setdefault(name, term.shape[1:]) != term.shape[1:]:
                raise InputError(
                    f"the two runs count {name} in arrays of the shapes {shapes[name]} and {term.shape[1:]}, so their verifiers"
                    " were configured differently; evaluate both in the same way"
                )
    places: dict[str, tuple[slice, tuple[int, ...]]] = {}
    width = 0
    for name, shape in shapes.items():
        places[name] = (slice(width, width + int(np.prod(shape))), shape)
        width = places[name][0].stop
    sums = []
    for rows, terms in zip(sides, found, strict=True):
        matrix = np.zeros((len(rows.scenes), width))
        for name, term in terms.items():
            matrix[:, places[name][0]] = _sum_by(rows.scene, term.reshape(len(term), -1))
        sums.append(matrix)
    return lambda total: {name: total[place].reshape(shape) for name, (place, shape) in places.items()}, sums


def _sum_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(groups, width) sums of the (rows, width) values of each group 0, 1, .. of which every one has rows."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[order], starts, axis=0, dtype=np.float64))


def estimates(
    metric: Metric, table: ScoreTable, features: FeatureLookup | None = None, intervals: bool = True
) -> dict[str, Estimate]:
    """Every number of a metric over the rows of one verifier, with its 95 % interval over scenes.

    With two ``bounds`` the score interval (:func:`rsw_rewards.evaluation.intervals.score_interval`), else Student's t, on a
    logarithmic scale with one bound; both from the jackknife's standard error and with degrees of freedom that fall where a few scenes
    decide. One scene at a time is left out up to :data:`PARTS` scenes, above that one of as many parts; one of :data:`SET_PARTS` parts for metrics that are not
    sums (set-level distances). Nothing is resampled: an image that stands twice makes such a distance larger.

    No interval, but a reason, where no output was valid, for one scene, for a number that only one scene defines, and for one without two
    bounds on which all scenes agree exactly. None at all without ``intervals``.
    """
    rows = Rows.of(table)
    if not len(rows.frame):
        return {key: Estimate(None, None, 0, "no row could be scored") for key in metric.keys}
    of, n_scenes = statistic(metric, rows, features), len(rows.scenes)
    if not intervals:
        return values_alone(of, metric.keys, n_scenes)
    if not any_valid(rows.frame):
        return values_alone(of, metric.keys, n_scenes, NO_VALID_OUTPUT)
    return interval_estimates(of, metric.keys, n_scenes, bounds_of(metric))


def any_valid(frame: pd.DataFrame) -> bool:
    """Whether any row of a score table is that of a valid output."""
    return bool((frame["status"] == Status.OK).any())


def bounds_of(metric: Metric) -> dict[str, Bounds]:
    """The ranges that a metric declares, by key; one pair is that of all keys."""
    declared = metric.bounds
    return dict(declared) if isinstance(declared, Mapping) else dict.fromkeys(metric.keys, declared) if declared else {}


def mean_estimate(values: np.ndarray, scenes: Sequence[str], bounds: Bounds | None = None) -> Estimate:
    """The mean of one value per sample, with its interval over scenes.

    Args:
        values: (samples,) float64.
        scenes: the scene of each.
        bounds: range of the values.
    """
    if not len(values):
        return Estimate(None, None, 0, "no row could be scored")
    codes, names = pd.factorize(np.asarray(scenes))
    sums = _sum_by(codes, np.stack([values, np.ones(len(values))], axis=1))
    of = Summed(sums, lambda total: {"mean": float(total[0] / total[1])})
    return interval_estimates(of, ("mean",), len(names), {"mean": bounds} if bounds else {})["mean"]


def paired_difference(
    metric: Metric,
    before: ScoreTable,
    after: ScoreTable,
    features: FeatureLookup | None = None,
    p_values: bool = True,
) -> dict[str, Estimate]:
    """``after - before`` of every number of a metric, over the outputs that count in both tables; scenes are left out together.

    An output whose score failed on one side is left out on both, or the difference would be one of samples, not of runs. Where
    neither side has a valid output, there is neither an interval nor a p-value; one side alone may have collapsed, which is found.
    The p-value is that of swapping the runs scene by scene (:func:`rsw_rewards.evaluation.intervals.sign_flip_p`); for metrics
    that are not sums, that of Student's t, as the interval. Swapping takes seconds; without ``p_values`` it is left out.

    Raises:
        InputError: the two sides were scored with statistics of different shapes.
    """
    frames = [_counted_outputs(table) for table in (before, after)]
    keys = ["scene", "sample", "candidate"]
    both = frames[0][[*keys, "row"]].merge(frames[1][[*keys, "row"]], on=keys)
    if both.empty:
        return {key: Estimate(None, None, 0, "the two runs have no scored output in common") for key in metric.keys}
    sides = [
        Rows.of(ScoreTable(frame.iloc[both[row].to_numpy()]))
        for frame, row in zip(frames, ("row_x", "row_y"), strict=True)
    ]
    n_scenes = len(sides[0].scenes)
    empty = not any(any_valid(rows.frame) for rows in sides)
    bounds = {key: (low - high, high - low) for key, (low, high) in bounds_of(metric).items()}
    if not isinstance(metric, AdditiveMetric):
        first, second = (statistic(metric, rows, features) for rows in sides)
        apart = SetLevel(lambda weight: _minus(second(weight), first(weight), metric.keys))
        if empty:
            return values_alone(apart, metric.keys, n_scenes, NO_VALID_OUTPUT)
        return interval_estimates(apart, metric.keys, n_scenes, bounds, paired=True)
    additive = metric
    layout, (low, high) = _scene_sums(additive, sides)
    width = low.shape[1]

    def difference(total_before: np.ndarray, total_after: np.ndarray) -> Numbers:
        before, after = (additive.from_sums(layout(total)) for total in (total_before, total_after))
        return _minus(after, before, metric.keys)

    of = Summed(np.concatenate([low, high], axis=1), lambda total: difference(total[:width], total[width:]))
    if empty:
        return values_alone(of, metric.keys, n_scenes, NO_VALID_OUTPUT)
    found = interval_estimates(of, metric.keys, n_scenes, bounds, paired=True)
    if not p_values:
        return found
    sums = of.merged(deal(n_scenes, PARTS)).sums
    swapped = sign_flip_p(sums[:, :width], sums[:, width:], lambda *totals: list(difference(*totals).values()))
    return {key: replace(found[key], p_value=p) for key, p in zip(metric.keys, swapped, strict=True)}


def _counted_outputs(table: ScoreTable) -> pd.DataFrame:
    """The counted rows, with their place in ``row``."""
    frame = table.frame[table.frame["status"].isin(COUNTED)]
    return frame.assign(row=np.arange(len(frame)))


def _minus(high: Mapping[str, float | None], low: Mapping[str, float | None], keys: Sequence[str]) -> Numbers:
    out: Numbers = {}
    for key in keys:
        first, second = high.get(key), low.get(key)
        out[key] = None if first is None or second is None else first - second
    return out


def values_alone(of: Statistic, keys: Sequence[str], n_scenes: int, reason: str = "") -> dict[str, Estimate]:
    """Numbers without intervals, with the reason why they have none."""
    values = of(np.ones(n_scenes))
    undefined = "nothing that the metric counts is among these rows"
    return {
        key: Estimate(value := values.get(key), None, n_scenes, undefined if value is None else reason) for key in keys
    }


def interval_estimates(
    of: Statistic, keys: Sequence[str], n_scenes: int, bounds: Mapping[str, Bounds], paired: bool = False
) -> dict[str, Estimate]:
    """Numbers with their intervals, from what a metric is without each part of the scenes.

    Args:
        of: the numbers as a function of scenes.
        keys: the numbers.
        n_scenes: how many scenes there are.
        bounds: ranges of the numbers that have one.
        paired: they are differences. Their bounds are far off, so the interval is taken on the plain scale; sets get a p-value.
    """
    values = of(np.ones(n_scenes))
    if n_scenes == 1:
        return {key: Estimate(values.get(key), None, 1, "one scene gives no interval") for key in keys}
    left_out = of.left_out(deal(n_scenes, PARTS if isinstance(of, Summed) else SET_PARTS))
    out = {}
    for key in keys:
        value = values.get(key)
        if value is None:
            out[key] = Estimate(None, None, n_scenes, "nothing that the metric counts is among these rows")
            continue
        if not left_out:
            out[key] = Estimate(value, None, n_scenes, "no interval is computed for it")
            continue
        replicates = np.array([numbers.get(key) for numbers in left_out], dtype=np.float64)
        if not np.isfinite(replicates).all() or not np.isfinite(value):
            out[key] = Estimate(
                value, None, n_scenes, "it is undefined without one of the scenes, which gives no interval"
            )
            continue
        error, freedom = spread(replicates)
        p = student_p(value, error, freedom) if paired and isinstance(of, SetLevel) else None
        limits = bounds.get(key)
        between = limits is not None and bool(np.isfinite(limits).all())
        interval: Interval | None = None
        if limits is not None and between and not paired:
            scenes = n_scenes if error > 0 else _support(of, key, n_scenes)
            interval = score_interval(value, replicates, scenes, limits)
        elif error > 0:
            interval = student_interval(value, error, freedom, limits)
        elif limits is not None and between:
            interval = unseen_interval(value, _support(of, key, n_scenes), limits)
        reason = "" if interval else "every scene has the same score, so no interval can be estimated"
        out[key] = Estimate(value, interval, n_scenes, reason, p)
    return out


def _support(of: Statistic, key: str, n_scenes: int) -> int:
    """About how many scenes a number rests on: those on which it is defined by themselves. A class may be seen in few of them."""
    if isinstance(of, SetLevel):
        return n_scenes
    alone = of.sums[:: max(1, n_scenes // PARTS)]
    defined = sum(of.numbers(sums).get(key) is not None for sums in alone)
    return max(1, round(n_scenes * defined / len(alone)))
