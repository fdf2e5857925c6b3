"""Metrics: numbers of a protocol as pure functions of score rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Metric(Protocol):
    """A number of a protocol, as a pure function of score rows."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the numbers it gives, as they stand in ``summary.json``."""
        ...

    def compute(
        self, rows: pd.DataFrame, stats: Mapping[str, np.ndarray], weight: np.ndarray, features: FeatureLookup | None
    ) -> dict[str, float | None]:
        """The numbers over ``rows``.

        Args:
            rows: score rows of one verifier, with the columns of :data:`rsw_rewards.core.scores.COLUMNS`.
            stats: their sufficient statistics, name -> (rows, ...) float64, zero where a row has none.
            weight: (rows,) float64 multiplicities: ones for the number itself, counts for a resample.
            features: stored encoder features by content hash, for set-level metrics.
        """
        ...


class FeatureLookup(Protocol):
    """Encoder features of images that were seen while scoring."""

    def features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """(len(hashes), d) float32 features, in the order of ``hashes``. Raises ``KeyError`` for a hash never encoded."""
        ...


Terms = Mapping[str, np.ndarray]
"""Name -> (rows, ...) float64 array whose weighted sum over rows is all that a metric needs."""


@runtime_checkable
class AdditiveMetric(Metric, Protocol):
    """A metric that is a function of weighted sums over rows: accuracy, F1, kappa, corpus gain.

    Because only sums enter, a resample of scenes costs one matrix product over per-scene sums instead of a pass over rows.
    """

    def terms(self, rows: pd.DataFrame, stats: Mapping[str, np.ndarray]) -> Terms:
        """What is summed over the rows."""
        ...

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, float | None]:
        """The numbers from the sums of the terms."""
        ...


def compute_additive(
    metric: AdditiveMetric, rows: pd.DataFrame, stats: Mapping[str, np.ndarray], weight: np.ndarray
) -> dict[str, float | None]:
    """:meth:`Metric.compute` of an additive metric."""
    sums = {name: np.tensordot(weight, value, axes=1) for name, value in metric.terms(rows, stats).items()}
    return dict(metric.from_sums(sums))


@dataclass(frozen=True)
class SumMetric:
    """An additive metric over stored statistics: ``function`` of their sums, among which ``n`` is the number of rows.

    Args:
        keys: the names of the numbers, as they stand in ``summary.json``.
        function: the sums of every ``stats`` entry of the scores, and ``n``, -> the numbers; None for one that is undefined.
        bounds: range that the numbers, and so their intervals, cannot leave; by key where it differs between them.

    >>> f1 = rsw.SumMetric(("f1",), lambda sums: {"f1": 2 * sums["hits"] / sums["marked"]}, bounds=(0.0, 1.0))
    >>> f1.from_sums({"hits": 3.0, "marked": 8.0, "n": 4.0})
    {'f1': 0.75}
    """

    keys: tuple[str, ...]
    function: Callable[[Mapping[str, np.ndarray]], Mapping[str, float | None]]
    bounds: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None

    def terms(self, rows: pd.DataFrame, stats: Mapping[str, np.ndarray]) -> Terms:
        return {**stats, "n": np.ones(len(rows))}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, float | None]:
        return self.function(sums)

    def compute(
        self,
        rows: pd.DataFrame,
        stats: Mapping[str, np.ndarray],
        weight: np.ndarray,
        features: FeatureLookup | None = None,
    ) -> dict[str, float | None]:
        return compute_additive(self, rows, stats, weight)


@dataclass(frozen=True)
class MeanValue:
    """Mean over the rows that were scored OK or invalid: of the scores' values, or of one of their raw metrics.

    Args:
        key: the name of the number, as it stands in ``summary.json``.
        raw: the name of the raw metric; the value where left out.
        invalid: what an invalid output counts as.
        bounds: range that the mean, and so its interval, cannot leave.

    >>> rsw.MeanValue("iou", "iou", bounds=(0.0, 1.0)).keys
    ('iou',)
    """

    key: str
    raw: str | None = None
    invalid: float = 0.0
    bounds: tuple[float, float] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def terms(self, rows: pd.DataFrame, stats: Mapping[str, np.ndarray]) -> Terms:
        if self.raw is None:
            values = rows["value"].to_numpy().astype(np.float64)
        else:
            values = np.array([(raw or {}).get(self.raw, np.nan) for raw in rows["raw"]], dtype=np.float64)
        status = rows["status"].to_numpy().astype(str)
        values = np.where(status == "invalid_output", self.invalid, values)
        usable = np.isin(status, ("ok", "invalid_output")) & np.isfinite(values)
        return {"sum": np.where(usable, values, 0.0), "count": usable.astype(np.float64)}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, float | None]:
        return {self.key: float(sums["sum"] / sums["count"]) if sums["count"] else None}

    def compute(
        self,
        rows: pd.DataFrame,
        stats: Mapping[str, np.ndarray],
        weight: np.ndarray,
        features: FeatureLookup | None = None,
    ) -> dict[str, float | None]:
        return compute_additive(self, rows, stats, weight)
