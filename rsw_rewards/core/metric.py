"""Metrics: numbers of a protocol as pure functions of score rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Frame: TypeAlias = "pd.DataFrame"
"""Score rows of one verifier, with the columns of :data:`rsw_rewards.core.scores.COLUMNS`; named so that nobody imports pandas for it."""
Bounds = tuple[float, float]
"""Range that a number cannot leave; an end may be infinite."""
Numbers = dict[str, float | None]
"""Key -> number, None where it is undefined."""
Terms = Mapping[str, np.ndarray]
"""Name -> (rows, ...) float64: statistics of the rows, and what an :class:`AdditiveMetric` sums of them."""
Sums = Mapping[str, np.ndarray]
"""Name of a statistic -> its weighted sum over rows; what no row has may be missing."""


class FeatureLookup(Protocol):
    """Encoder features of images that were seen while scoring."""

    def features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """(len(hashes), d) float32 features, in the order of ``hashes``. Raises ``KeyError`` for a hash never encoded."""
        ...


class Metric(ABC):
    """A number of a protocol, as a pure function of score rows."""

    least_valid: ClassVar[float] = 0.0
    """The share of valid outputs from which it is shown; above 0 where leaving invalid outputs out makes it better."""
    interval: ClassVar[bool] = True
    """False for a number that is shown without an interval."""

    if TYPE_CHECKING:  # derived classes have a field, a constant or a property

        @property
        def keys(self) -> tuple[str, ...]:
            """Names of the numbers it gives, as they stand in ``summary.json``."""

        @property
        def bounds(self) -> Bounds | Mapping[str, Bounds] | None:
            """Range that the numbers, and so their intervals, cannot leave; by key where it differs between them."""
    else:
        bounds = None

    @abstractmethod
    def compute(self, rows: Frame, stats: Terms, weight: np.ndarray, features: FeatureLookup | None = None) -> Numbers:
        """The numbers over ``rows``.

        Args:
            rows: score rows of one verifier.
            stats: their sufficient statistics, name -> (rows, ...) float64, zero where a row has none.
            weight: (rows,) float64 multiplicities: ones for the number itself, counts for a resample.
            features: stored encoder features by content hash, for set-level metrics.
        """

    def notes(self, rows: Frame) -> Mapping[str, str]:
        """Key -> what must be said of a number over these rows, such as why it is undefined; by default nothing."""
        return {}

    def left_out(
        self, rows: Frame, stats: Terms, part: np.ndarray, features: FeatureLookup | None
    ) -> list[Numbers] | None:
        """The numbers without each part of the rows, where that is faster than computing them anew.

        Args:
            rows, stats, features: as in :meth:`compute`.
            part: (rows,) int64, the part of each row, from 0.

        Returns:
            One entry a part; empty where there is to be no interval; None where the numbers are computed anew.
        """
        return None if self.interval else []


class AdditiveMetric(Metric):
    """A metric that is a function of weighted sums over rows: accuracy, F1, kappa, corpus gain.

    Because only sums enter, leaving a scene out costs one subtraction instead of a pass over rows.
    """

    @abstractmethod
    def terms(self, rows: Frame, stats: Terms) -> Terms:
        """What is summed over the rows."""

    @abstractmethod
    def from_sums(self, sums: Sums) -> Mapping[str, float | None]:
        """The numbers from the sums of the terms."""

    def compute(self, rows: Frame, stats: Terms, weight: np.ndarray, features: FeatureLookup | None = None) -> Numbers:
        sums = {name: np.tensordot(weight, value, axes=1) for name, value in self.terms(rows, stats).items()}
        return dict(self.from_sums(sums))


@dataclass(frozen=True)
class SumMetric(AdditiveMetric):
    """Metrics that are a ``function`` of sums of stored statistics; the sum ``n`` is the number of rows.

    Args:
        keys: the names of the numbers, as they stand in ``summary.json``.
        function: the sums of every ``stats`` entry of the scores, and ``n``, -> the numbers; None for one that is undefined.
        bounds: range that the numbers, and so their intervals, cannot leave; by key where it differs between them.

    >>> f1 = rsw.SumMetric(("f1",), lambda sums: {"f1": 2 * sums["hits"] / sums["marked"]}, bounds=(0.0, 1.0))
    >>> f1.from_sums({"hits": 3.0, "marked": 8.0, "n": 4.0})
    {'f1': 0.75}
    """

    keys: tuple[str, ...]
    function: Callable[[Sums], Mapping[str, float | None]]
    bounds: Bounds | Mapping[str, Bounds] | None = None

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        return {**stats, "n": np.ones(len(rows))}

    def from_sums(self, sums: Sums) -> Mapping[str, float | None]:
        return self.function(sums)


@dataclass(frozen=True)
class MeanValue(AdditiveMetric):
    """The mean over valid and invalid outputs of the scores' values, or of one of their raw metrics.

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
    bounds: Bounds | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        if self.raw is None:
            values = rows["value"].to_numpy().astype(np.float64)
        else:
            values = np.array([(raw or {}).get(self.raw, np.nan) for raw in rows["raw"]], dtype=np.float64)
        status = rows["status"].to_numpy().astype(str)
        values = np.where(status == "invalid_output", self.invalid, values)
        usable = np.isin(status, ("ok", "invalid_output")) & np.isfinite(values)
        return {"sum": np.where(usable, values, 0.0), "count": usable.astype(np.float64)}

    def from_sums(self, sums: Sums) -> Mapping[str, float | None]:
        return {self.key: float(sums["sum"] / sums["count"]) if sums["count"] else None}
