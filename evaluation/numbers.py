"""Numbers for people: how many digits are shown, which direction is better, and where they stand on an axis. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LOWER_IS_BETTER = ("fid", "fd_", "kid", "cmmd", "lpips", "l1", "mae", "mse", "rmse", "hamming")
"""Beginnings of the keys of metrics that should fall."""
NEITHER = ("bias", "length")
"""Beginnings of the keys of numbers that are best somewhere in between: no run is marked as the best."""
LETTER = 0.85
"""Width of a letter of a mark's name, in percent of the axis, where a page is wide."""


def sign(key: str) -> int:
    """1 for a metric that should rise, -1 for one that should fall, 0 where neither is better."""
    return 0 if key.startswith(NEITHER) else -1 if key.startswith(LOWER_IS_BETTER) else 1


def arrow(key: str) -> str:
    """The direction in which a metric gets better: ``↑``, ``↓``, or nothing.

    >>> arrow("accuracy"), arrow("fid"), arrow("bias")
    ('↑', '↓', '')
    """
    return {1: "↑", -1: "↓", 0: ""}[sign(key)]


def number(value: float | None) -> str:
    """A number for people: three to four digits that say something. Below 1e-12 there is nothing but rounding."""
    if value is None:
        return "-"
    if abs(value) < 1e-12:
        return "0.000"
    if abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def signed(value: float | None) -> str:
    """A difference, with its sign.

    >>> signed(0.25), signed(-0.5), signed(0.0)
    ('+0.250', '-0.500', '0.000')
    """
    return "+" * (value is not None and value > 0) + number(value)


def compact(value: float | None) -> str:
    """A number for the legend of a plot: three digits, and no zeros behind them.

    >>> compact(0.5), compact(65.0), compact(12345.0), compact(3e-4)
    ('0.5', '65', '12,345', '0.0003')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(1, 100)
    [20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def span(values: Iterable[float]) -> tuple[float, float]:
    """The range of an axis: all values, and a little around them; some height where all are equal. No axis goes below 0 for values
    that do not.

    >>> span([0.0, 0.0]), span([2.0, 2.0])
    ((0.0, 1.0), (1.0, 3.0))
    """
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        around = 0.5 * abs(low)
        return (low - around, high + around) if around else (0.0, 1.0)
    pad = 0.05 * (high - low)
    return low - pad if low < 0 else max(0.0, low - pad), high + pad


@dataclass(frozen=True)
class Mark:
    """One number that stands beside others on an axis."""

    sort: str
    """``baseline``, ``published`` or ``seed``."""
    name: str
    value: float


@dataclass(frozen=True)
class Axis:
    """A horizontal axis; places on it are percentages of its width."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    """Place and words of each."""
    zero: float | None
    """The place of 0, within an axis on both sides of it."""


def axis_between(low: float, high: float) -> Axis:
    """The axis from ``low`` to ``high``.

    >>> axis_between(-1.0, 1.0).ticks[0], axis_between(-1.0, 1.0).zero
    ((0.0, '-1'), 50.0)
    """
    found = [(place(tick, low, high), f"{tick:.4g}") for tick in ticks(low, high)]
    return Axis(low, high, found, place(0.0, low, high) if low < 0 < high else None)


def axis_of(values: Sequence[float]) -> Axis:
    """An axis that shows all values: over [0, 1] or [-1, 1] where they lie within it, else over what they need.

    >>> [label for _, label in axis_of([0.2, 0.7]).ticks]
    ['0', '0.2', '0.4', '0.6', '0.8', '1']
    """
    low, high = (0.0, 1.0) if min(values) >= 0 else (-1.0, 1.0)
    if not all(low <= value <= high for value in values):
        low, high = span(values)
    return axis_between(low, high)


def axis_around_zero(values: Iterable[float]) -> Axis:
    """An axis that shows all differences, with 0 in its middle.

    >>> axis_around_zero([0.5, -1.0]).low, axis_around_zero([]).high
    (-1.05, 1.0)
    """
    reach = 1.05 * max(map(abs, values), default=0.0) or 1.0
    return axis_between(-reach, reach)


def place(value: float, low: float, high: float) -> float:
    """Where a value stands on an axis, in percent.

    >>> place(0.25, 0.0, 1.0)
    25.0
    """
    return round(100.0 * (value - low) / (high - low), 3)


def lane(
    name: str, value: float, axis: Axis, ci95: Sequence[float] | None = None, marks: Sequence[Mark] = (), **more: Any
) -> dict[str, Any]:
    """One number on an axis, for the template.

    Args:
        name: what it is called.
        value: the number.
        axis: on which it stands.
        ci95: its interval.
        marks: what stands beside it.
        **more: what else the page says: ``note``, ``arrow``, the address of a ``page``, ``signed`` for a difference.

    Returns:
        All of these. ``at`` is the place of the number, ``interval`` the start of the interval and its width. ``marks`` go from left to
        right, each with a ``row`` for its name in which no other name is in its way; ``rows`` is how many rows they need.
    """
    interval = None
    if ci95 is not None:
        start, end = (place(limit, axis.low, axis.high) for limit in ci95)
        interval = (start, end - start)
    ends: list[float] = []
    placed = []
    for mark in sorted(marks, key=lambda mark: mark.value):
        at = place(mark.value, axis.low, axis.high)
        width = LETTER * (len(mark.name) + 2)
        start = min(max(at - width / 2, 0.0), 100.0 - width)
        row = next((row for row, end in enumerate(ends) if end <= start), len(ends))
        ends[row : row + 1] = [start + width]
        placed.append({**vars(mark), "at": at, "row": row, "start": start})
    about = {"name": name, "value": value, "axis": axis, "ci95": ci95, **more}
    return {
        **about,
        "at": place(value, axis.low, axis.high),
        "interval": interval,
        "marks": placed,
        "rows": len(ends),
    }
