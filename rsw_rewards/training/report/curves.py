"""Curves as inline SVG: lines with bands, and baselines as horizontal lines. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rsw_rewards.evaluation.numbers import span, ticks

WIDTH, HEIGHT = 280, 160
"""Of a plot, in the units of its view box."""
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 8, 24
"""Margins of the plotted area; the left one is wider where the labels need it."""
LETTER = 6
"""Width of a letter of a label."""
POINTS = 300
"""Most points of a line; longer ones are means of neighbours."""

Point = tuple[int, float]


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    >>> Line("entropy", [(1, 0.5), (2, 0.4)]).last
    0.4
    """

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float]] | None = None
    """Low and high end at each point: a spread or an interval."""
    dots: bool = False
    """Whether every point is marked, as for measurements that are far apart."""

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.points[-1][1] if self.points else None


def thinned(line: Line, most: int = POINTS) -> Line:
    """The line with at most ``most`` points, each the mean of neighbours.

    >>> thinned(Line("a", [(1, 0.0), (2, 1.0), (3, 4.0)]), most=2).points
    [(1, 0.5), (3, 4.0)]
    """
    size = math.ceil(len(line.points) / most) if line.points else 1
    if size == 1:
        return line
    parts = [range(start, min(start + size, len(line.points))) for start in range(0, len(line.points), size)]
    mid = [(line.points[part[(len(part) - 1) // 2]][0], _mean(line.points[k][1] for k in part)) for part in parts]
    band = line.band
    if band is not None:
        band = [(_mean(band[k][0] for k in part), _mean(band[k][1] for k in part)) for part in parts]
    return Line(line.name, mid, band, line.dots)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


@dataclass(frozen=True)
class Drawn:
    """A plot as places in its view box, for the template."""

    title: str
    note: str
    lines: list[dict[str, object]]
    marks: list[dict[str, object]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT


def drawn(
    title: str, lines: Sequence[Line], marks: Sequence[tuple[str, float]] = (), note: str = "", last: int = 1
) -> Drawn | None:
    """A plot of lines over steps; None where there is no point.

    Args:
        title: what is plotted.
        lines: at most eight have colours of their own.
        marks: name and value of each horizontal line; one that is so far away that it would flatten the lines has no place, but
            stands beside the plot.
        note: a sentence under the title.
        last: the step at which the axis ends at least.
    """
    shown = [thinned(line) for line in lines if line.points]
    if not shown:
        return None
    values = [value for line in shown for _, value in line.points]
    values += [end for line in shown for pair in line.band or () for end in pair]
    low, high = span(values)
    near = [(name, value) for name, value in marks if low - 2 * (high - low) <= value <= high + 2 * (high - low)]
    low, high = span([*values, *(value for _, value in near)])
    start = min(line.points[0][0] for line in shown)
    end = max(last, *(line.points[-1][0] for line in shown), start + 1)

    labels = [(tick, f"{tick:.4g}") for tick in ticks(low, high, 4)]
    left = max(LEFT, 12 + LETTER * max(len(label) for _, label in labels))

    def across(step: float) -> float:
        return round(left + (step - start) / (end - start) * (WIDTH - left - RIGHT), 1)

    def down(value: float) -> float:
        return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    paths: list[dict[str, object]] = []
    for number, line in enumerate(shown):
        at = [(across(step), down(value)) for step, value in line.points]
        band = ""
        if line.band is not None:
            upper = [(x, down(pair[1])) for (x, _), pair in zip(at, line.band, strict=True)]
            lower = [(x, down(pair[0])) for (x, _), pair in zip(at, line.band, strict=True)]
            band = _joined([*upper, *reversed(lower)])
        paths.append(
            {
                "name": line.name,
                "colour": number % 8,
                "points": _joined(at),
                "band": band,
                "dots": at if line.dots or len(at) == 1 else [],
                "first": line.points[0][1],
                "last": line.last,
            }
        )
    return Drawn(
        title,
        note,
        paths,
        [{"name": name, "value": value, "y": down(value) if (name, value) in near else None} for name, value in marks],
        [(across(tick), f"{tick:g}") for tick in ticks(start, end, 4) if tick == int(tick)],
        [(down(tick), label) for tick, label in labels],
        left=left,
    )


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
