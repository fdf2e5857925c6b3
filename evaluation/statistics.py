"""Intervals over scenes and paired differences: how far a number would move if other places had been looked at.

Tiles of one scene are not independent, so scenes are left out or swapped, never rows. ``docs/statistics.md`` has the measured
coverage of the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

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

    def to_json(self, **counts: int) -> dict[str, Any]:
        """Value, interval and reason as plain values, with ``counts`` of what else they are taken over."""
        interval = None if self.ci95 is None else list(self.ci95)
        reason = {"reason": self.reason} if self.reason else {}
        return {"value": self.value, "ci95": interval, **counts, "n_scenes": self.n_scenes, **reason}


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one verifier that count, with what metrics read from them."""

    frame: pd.DataFrame
    stats: Mapping[str, np.ndarray]
    scene: np.ndarray
    """(rows,) scene number of each row, 0 .. n_scenes - 1, into ``scenes``."""
    scenes: np.ndarray
    any_valid: bool
    """Whether any row is that of a valid output."""

    @classmethod
    def of(cls, table: ScoreTable) -> Rows:
        """The counted rows of a table that holds one verifier."""
        frame = table.frame[table.frame["status"].isin(COUNTED)].reset_index(drop=True)
        codes, names = pd.factorize(frame["scene"])
        any_valid = bool((frame["status"] == Status.OK).any())
        return cls(frame, ScoreTable(frame).stats(), codes, np.asarray(names), any_valid)


@dataclass(frozen=True, slots=True)
class Summed:
    """Numbers that are a function of sums over scenes."""

    sums: np.ndarray
    """(scenes, width) float64."""
    numbers: Callable[[np.ndarray], Numbers]
    """From the (width,) sums of all scenes."""
    most_parts: ClassVar[int] = PARTS

    def __call__(self, weight: np.ndarray) -> Numbers:
        """The numbers under a multiplicity per scene, (scenes,) float64."""
        return self.numbers(weight @ self.sums)

    def left_out(self, part: np.ndarray) -> list[Numbers]:
        """The numbers without each part, from the (scenes,) parts of the scenes."""
        sums = _sum_by(part, self.sums)
        # Sums from both ends rather than a subtraction from the total, which would leave rounding where nothing is left.
        none = np.zeros((1, sums.shape[1]))
        before = np.concatenate([none, np.cumsum(sums[:-1], axis=0)])
        after = np.concatenate([np.cumsum(sums[:0:-1], axis=0)[::-1], none])
        return [self.numbers(rest) for rest in before + after]

    def support(self, key: str) -> int:
        """About how many scenes a number rests on: those on which it is defined by themselves. A class may be seen in few of them."""
        n_scenes = len(self.sums)
        alone = self.sums[:: max(1, n_scenes // PARTS)]
        defined = sum(self.numbers(sums).get(key) is not None for sums in alone)
        return max(1, round(n_scenes * defined / len(alone)))


@dataclass(frozen=True, slots=True)
class SetLevel:
    """Numbers of a set as a whole, which a repeated row would change: computed anew without each part."""

    numbers: Callable[[np.ndarray], Numbers]
    """From (scenes,) float64 weights, 0 or 1."""
    without: Callable[[np.ndarray], list[Numbers] | None] = lambda part: None
    """The metric's own way to the numbers without each part, where it knows a faster one than computing them anew. An empty list
    says that it gives none."""
    most_parts: ClassVar[int] = SET_PARTS

    def __call__(self, weight: np.ndarray) -> Numbers:
        return self.numbers(weight)

    def left_out(self, part: np.ndarray) -> list[Numbers]:
        """The numbers without each part, from the (scenes,) parts of the scenes."""
        if (found := self.without(part)) is not None:
            return found
        return [self.numbers((part != out).astype(np.float64)) for out in range(int(part.max()) + 1)]


Statistic = Summed | SetLevel


def statistic(metric: Metric, *sides: Rows, features: FeatureLookup | None = None) -> Statistic:
    """The numbers of a metric as a function of scenes; with two sides, those of the second less those of the first.

    Raises:
        InputError: the two sides were scored with statistics of different shapes.
    """
    if isinstance(metric, AdditiveMetric):
        return _summed(metric, sides)
    alone = [_set_level(metric, rows, features) for rows in sides]
    if len(alone) == 1:
        return alone[0]
    before, after = alone
    return SetLevel(lambda weight: _minus(after(weight), before(weight), metric.keys))


def _set_level(metric: Metric, rows: Rows, features: FeatureLookup | None) -> SetLevel:
    return SetLevel(
        lambda weight: metric.compute(rows.frame, rows.stats, weight[rows.scene], features),
        lambda part: metric.left_out(rows.frame, rows.stats, part[rows.scene], features),
    )


def _summed(metric: AdditiveMetric, sides: Sequence[Rows]) -> Summed:
    """The terms of an additive metric, summed per scene once. All sides have the same columns, zeros for a term that one lacks."""
    found = [metric.terms(rows.frame, rows.stats) for rows in sides]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, term in ((name, term) for terms in found for name, term in terms.items()):
        if shapes.setdefault(name, term.shape[1:]) != term.shape[1:]:
            raise InputError(
                f"the two runs count {name} in arrays of the shapes {shapes[name]} and {term.shape[1:]}, so their verifiers"
                " were configured differently; evaluate both in the same way"
            )
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes.values())])
    columns = {name: slice(*ends[place : place + 2]) for place, name in enumerate(shapes)}
    sums = np.zeros((len(sides[0].scenes), len(sides), ends[-1]))
    for side, (rows, terms) in enumerate(zip(sides, found, strict=True)):
        for name, term in terms.items():
            sums[:, side, columns[name]] = _sum_by(rows.scene, term.reshape(len(term), -1))

    def numbers(total: np.ndarray) -> Numbers:
        of_sides = [
            metric.from_sums({name: own[columns[name]].reshape(shape) for name, shape in shapes.items()})
            for own in total.reshape(len(sides), -1)
        ]
        return dict(of_sides[0]) if len(sides) == 1 else _minus(of_sides[1], of_sides[0], metric.keys)

    return Summed(sums.reshape(len(sums), -1), numbers)


def _sum_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(groups, width) sums of the (rows, width) values of each group 0, 1, .. of which every one has rows."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[order], starts, axis=0, dtype=np.float64))


def _minus(high: Mapping[str, float | None], low: Mapping[str, float | None], keys: Sequence[str]) -> Numbers:
    out: Numbers = {}
    for key in keys:
        first, second = high.get(key), low.get(key)
        out[key] = None if first is None or second is None else first - second
    return out


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
    of = statistic(metric, rows, features=features)
    alone = None if intervals and rows.any_valid else NO_VALID_OUTPUT if intervals else ""
    return interval_estimates(of, metric.keys, len(rows.scenes), bounds_of(metric), alone=alone)


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
    frames = [table.frame[table.frame["status"].isin(COUNTED)] for table in (before, after)]
    keys = ["scene", "sample", "candidate"]
    places = [frame[keys].assign(row=np.arange(len(frame))) for frame in frames]
    both = places[0].merge(places[1], on=keys)
    if both.empty:
        return {key: Estimate(None, None, 0, "the two runs have no scored output in common") for key in metric.keys}
    shared = (frame.iloc[both[row]] for frame, row in zip(frames, ("row_x", "row_y"), strict=True))
    sides = [Rows.of(ScoreTable(frame)) for frame in shared]
    of, n_scenes = statistic(metric, *sides, features=features), len(sides[0].scenes)
    bounds = {key: (low - high, high - low) for key, (low, high) in bounds_of(metric).items()}
    alone = None if any(rows.any_valid for rows in sides) else NO_VALID_OUTPUT
    found = interval_estimates(of, metric.keys, n_scenes, bounds, paired=True, alone=alone)
    if alone is not None or not p_values or isinstance(of, SetLevel):
        return found
    sums = _sum_by(deal(n_scenes, PARTS), of.sums)
    first, second = np.hsplit(sums, 2)
    swapped = sign_flip_p(first, second, lambda *totals: list(of.numbers(np.concatenate(totals)).values()))
    return {key: replace(found[key], p_value=p) for key, p in zip(metric.keys, swapped, strict=True)}


def interval_estimates(
    of: Statistic,
    keys: Sequence[str],
    n_scenes: int,
    bounds: Mapping[str, Bounds],
    paired: bool = False,
    alone: str | None = None,
) -> dict[str, Estimate]:
    """Numbers with their intervals, from what a metric is without each part of the scenes.

    Args:
        of: what gives the numbers.
        keys: their names.
        n_scenes: how many scenes there are.
        bounds: their ranges, by key.
        paired: whether they are differences of two runs; those of sets get a p-value.
        alone: why there is to be no interval.
    """
    values = of(np.ones(n_scenes))
    if alone is None and n_scenes == 1:
        return {key: Estimate(values.get(key), None, 1, "one scene gives no interval") for key in keys}
    left_out = of.left_out(deal(n_scenes, of.most_parts)) if alone is None else []
    out = {}
    for key in keys:
        value = values.get(key)
        if value is None:
            out[key] = Estimate(None, None, n_scenes, "nothing that the metric counts is among these rows")
        elif not left_out:
            out[key] = Estimate(value, None, n_scenes, "no interval is computed for it" if alone is None else alone)
        else:
            replicates = np.array([numbers.get(key) for numbers in left_out], dtype=np.float64)
            out[key] = _with_interval(of, key, value, replicates, n_scenes, bounds.get(key), paired)
    return out


def _with_interval(
    of: Statistic,
    key: str,
    value: float,
    replicates: np.ndarray,
    n_scenes: int,
    limits: Bounds | None,
    paired: bool,
) -> Estimate:
    """A number with the interval that its replicates, (parts,) float64 without each part, give it."""
    if not np.isfinite(replicates).all() or not np.isfinite(value):
        undefined = "it is undefined without one of the scenes, which gives no interval"
        return Estimate(value, None, n_scenes, undefined)
    error, freedom = spread(replicates)
    support = of.support(key) if isinstance(of, Summed) and error == 0 else n_scenes
    between = limits if limits is not None and np.isfinite(limits).all() else None
    interval: Interval | None = None
    if between is not None and not paired:
        interval = score_interval(value, replicates, support, between)
    elif error > 0:
        interval = student_interval(value, error, freedom, limits)
    elif between is not None:
        interval = unseen_interval(value, support, between)
    reason = "" if interval else "every scene has the same score, so no interval can be estimated"
    p = student_p(value, error, freedom) if paired and isinstance(of, SetLevel) else None
    return Estimate(value, interval, n_scenes, reason, p)
