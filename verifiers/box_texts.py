"""Boxes that models write in their answers: the forms that they use, as pure functions from a text to rows of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from rsw_rewards.errors import Unreadable

Scale = Literal["pixels", "thousandths", "percent", "shares"]
"""What the coordinates of an output's boxes count: pixels, or thousandths, hundredths or shares of the image's width and height."""
SCALES: tuple[Scale, ...] = get_args(Scale)

BoxText = Literal["geochat", "earthdial", "teochat", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"]
"""How a text writes boxes, by the model that does so."""

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_BRACED = re.compile(r"\{([^{}]*)\}")
_INTEGER = re.compile(r"-?\d+")
_SQUARE = re.compile(rf"\[\s*({_NUMBER}(?:\s*,\s*{_NUMBER})*)\s*\]")
_PAIRS = re.compile(rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)\s*,\s*\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)")
_NONE = re.compile(r"\s*(?:\[\s*\]|\{\s*\}|none|no (?:box|target|object)s?)\.?\s*", re.IGNORECASE)
_LONGEST = 20_000
"""Characters of a text that are looked at; a longer one names no place."""


def _braced(text: str) -> list[list[float]]:
    return [[float(number) for number in _INTEGER.findall(group)] for group in _BRACED.findall(text)]


def _square(text: str) -> list[list[float]]:
    return [[float(number) for number in group.split(",")] for group in _SQUARE.findall(text)]


def _pairs(text: str) -> list[list[float]]:
    return [list(map(float, found)) for found in _PAIRS.findall(text)]


class Form(NamedTuple):
    """How a text writes boxes: four numbers each, and a fifth where they are turned, in degrees."""

    rows: Callable[[str], list[list[float]]]
    scale: Scale
    turned: bool = False


FORMS: Mapping[BoxText, Form] = {
    "geochat": Form(_braced, "percent", turned=True),
    "earthdial": Form(_square, "percent", turned=True),
    "teochat": Form(_square, "percent"),
    "qwen2-vl": Form(_pairs, "thousandths"),
    "qwen2.5-vl": Form(_square, "pixels"),
    "qwen3-vl": Form(_square, "thousandths"),
}
"""GeoChat writes ``{<20><30><40><50>|<15>}``, EarthDial ``[[20, 30, 40, 50, 15]]``, TEOChat ``[20, 30, 40, 50]``, Qwen2-VL
``(200,300),(400,500)`` and its followers JSON with ``"bbox_2d": [200, 300, 400, 500]``: Qwen2.5-VL in pixels of the image that it was shown."""


def turned(numbers: Sequence[float], degrees: float) -> list[float]:
    """The corners ``x, y, ..`` of the box ``x1, y1, x2, y2`` turned about its centre, counter-clockwise as an image is seen.

    EarthDial's ``get_rotated_box_vertices``, and GeoChat's ``rotate_bbox``.

    >>> [round(number, 3) for number in turned([0, 0, 4, 2], 90)]
    [1.0, 3.0, 1.0, -1.0, 3.0, -1.0, 3.0, 3.0]
    """
    x1, y1, x2, y2 = numbers
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((x1 - x, y1 - y), (x2 - x, y1 - y), (x2 - x, y2 - y), (x1 - x, y2 - y))
    return [side for a, b in corners for side in (a * cos + b * sin + x, b * cos - a * sin + y)]


def read_boxes(text: str, form: BoxText, unit: tuple[float, float]) -> list[list[float]]:
    """The boxes that a text names, in pixels: rows of four numbers, or of the eight of a turned box's corners.

    Args:
        text: the answer.
        form: how it writes boxes.
        unit: pixels that one step of the form's scale is, along x and along y.

    Raises:
        Unreadable: it names no box and does not say so, or a box of another number of coordinates.

    >>> read_boxes("There: {<20><30><40><50>} and {<0><0><10><10>}", "geochat", (2.0, 1.0))
    [[40.0, 30.0, 80.0, 50.0], [0.0, 0.0, 20.0, 10.0]]
    """
    if len(text) > _LONGEST:
        raise Unreadable(f"an answer of {len(text)} characters names no boxes")
    rows = FORMS[form].rows(text)
    if not rows and not _NONE.fullmatch(text):
        raise Unreadable(f"{text[:60]!r} has no box as {form} writes it")
    found = []
    for row in rows:
        if len(row) not in ((4, 5) if FORMS[form].turned else (4,)):
            raise Unreadable(
                f"a box of {len(row)} numbers, where {form} writes {'4 or 5' if FORMS[form].turned else '4'}"
            )
        box = [number * unit[place % 2] for place, number in enumerate(row[:4])]
        found.append(turned(box, row[4]) if len(row) == 5 and row[4] % 180 else box)
    return found
