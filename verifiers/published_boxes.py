"""Boxes scored as the published code of a benchmark does: the ``published_box`` verifier."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Metric
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answer_metrics import quotients
from rsw_rewards.verifiers.box_texts import turned
from rsw_rewards.verifiers.boxes import Box, box_iou, clipped_area, parse_box, unit_of
from rsw_rewards.verifiers.texts import known

BoxReading = Literal["vrsbench", "opt-rsvg", "choice", "earthdial", "earthdial-change"]


class Target(NamedTuple):
    """What a sample asks for."""

    boxes: tuple[tuple[float, ...], ...]
    """True boxes in pixels."""
    text: str
    """The same as the benchmark writes it; empty where the sample does not say so."""
    side: tuple[float, float]
    """Width and height of the image in pixels."""

    def on(self, steps: float, boxes: Sequence[Sequence[float]] | None = None) -> list[list[float]]:
        """Boxes, the true ones where none are given, with as many steps as ``steps`` to a side of the image."""
        chosen = self.boxes if boxes is None else boxes
        return [[value * steps / self.side[place % 2] for place, value in enumerate(box)] for box in chosen]


Found = Mapping[str, float]
"""Statistics of one output that are summed: the sums of the headline's numerators and denominators."""
_WHOLE = re.compile(r"\d+")
_LONGEST_NUMBER = 100
"""Digits of a whole number that is read."""
_LOOSE = re.compile(r"(?<![a-zA-Z/])(?:[-+]?\d*\.\d+|\d+)(?!\s?meter)(?![a-zA-Z/\d])")
_LISTED = re.compile(r"\[\s*(\d+(?:,\s*\d+)*)\s*\]")


def _upright(box: Sequence[float]) -> tuple[float, float, float, float]:
    """The upright rectangle round a box."""
    return min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2])


def _whole_numbers(text: str) -> list[int]:
    """The first four whole numbers of a text. Raises :class:`Unreadable` for one of over a hundred digits."""
    found = _WHOLE.findall(text)[:4]
    if any(len(one) > _LONGEST_NUMBER for one in found):
        raise Unreadable(f"the text holds a number of more than {_LONGEST_NUMBER} digits")
    return [int(one) for one in found]


def vrsbench(target: Target, output: Output) -> Found:
    """The first four whole numbers of the answer against those of the truth, on a grid of 0 to 100 whose ends are both inside."""
    told = _whole_numbers(target.text)
    true = told if len(told) == 4 else [round(one) for one in _upright(target.on(100)[0])]
    if output.boxes is not None:
        given = [round(one) for box in target.on(100, output.boxes[:1]) for one in _upright(box)]
    else:
        given = _whole_numbers(_text(output))
    if len(given) < 4:
        raise Unreadable(f"the answer holds {len(given)} whole numbers, not four")
    (x1, y1, x2, y2), (x3, y3, x4, y4) = true, given
    shared = max(0, min(x2, x4) - max(x1, x3) + 1) * max(0, min(y2, y4) - max(y1, y3) + 1)
    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (x4 - x3 + 1) * (y4 - y3 + 1) - shared
    if not union:
        raise Unreadable(f"the box {given} takes away as much as the truth has")
    iou = shared / union
    return {"iou": iou, "hit5": float(iou >= 0.5), "hit7": float(iou >= 0.7), "shared": shared, "union": union}


def opt_rsvg(target: Target, output: Output) -> Found:
    """The first box, cut to the image, against the true one, as shares of the image."""
    boxes = known(output.boxes, "no boxes in the output")  # the original takes numbers of a network, no text
    if not boxes or len(boxes[0]) != 4:
        raise Unreadable("there is no box of four numbers")
    given = [min(max(side / target.side[place % 2], 0.0), 1.0) for place, side in enumerate(boxes[0])]
    (x1, y1, x2, y2), (x3, y3, x4, y4) = _upright(target.on(1)[0]), given
    shared = max(min(x2, x4) - max(x1, x3), 0.0) * max(min(y2, y4) - max(y1, y3), 0.0)
    union = (x2 - x1) * (y2 - y1) + (x4 - x3) * (y4 - y3) - shared
    iou = shared / (union + 1e-16)
    hits = {f"hit{tenth}": float(iou >= tenth / 10) for tenth in range(5, 10)}
    return {"iou": iou, **hits, "shared": shared, "union": union}


def choice(target: Target, output: Output) -> Found:
    """The first four numbers that touch no letter, all divided by ten until none is over 1, against the true polygon in shares."""
    if output.boxes is not None:
        numbers = [one for box in target.on(1, output.boxes[:1]) for one in _upright(box)]
    else:
        numbers = [float(one) for one in _LOOSE.findall(_text(output))[:4]]
    if len(numbers) < 4 or not all(map(math.isfinite, numbers)):
        raise Unreadable(f"the answer holds {len(numbers)} numbers, not four")
    while max(numbers) > 1:
        numbers = [number / 10 for number in numbers]
    shares = target.on(1)[0]
    true = list(zip(shares[::2], shares[1::2], strict=True))
    if len(true) == 2:
        (a, b), (c, d) = true
        true = [(a, b), (a, d), (c, d), (c, b)]
    middle = [sum(side) / len(true) for side in zip(*true, strict=True)]
    true.sort(key=lambda point: math.atan2(point[1] - middle[1], point[0] - middle[0]))
    left, right = sorted(numbers[::2])
    top, bottom = sorted(numbers[1::2])
    rectangle = ((left, top), (right, top), (right, bottom), (left, bottom))
    shared, whole = clipped_area(true, rectangle)
    union = whole + (right - left) * (bottom - top) - shared
    iou = shared / union if union else 0.0
    return {"iou": iou, "hit5": float(iou > 0.5), "hit3": float(iou > 0.3)}


def earthdial(target: Target, output: Output, flat: bool = False) -> Found:
    """How many of the boxes given meet any true box: IoU of turned boxes on a grid of 0 to 100, from 0.5 on, or 0.25 where they are flat.

    There is no recall, and no box is used up: one good box, or one many times, is a precision of 1.
    """
    if output.boxes is not None:
        given = [_box(box) for box in target.on(100, output.boxes)]
    else:
        given = _turned_boxes(_text(output), flat)
    true = _turned_boxes(target.text, False) if target.text else [_box(box) for box in target.on(100)]
    least = 0.25 if flat else 0.5
    pairs = [[(one, other) for other in true if one and other] for one in given]
    hits = sum(any(box_iou(one, other) >= least for one, other in row) for row in pairs)
    group = "single" if len(true) == 1 else "multiple"
    return {"hits": hits, "boxes": len(given), f"{group}_hits": hits, f"{group}_boxes": len(given)}


def _turned_boxes(text: str, flat: bool) -> list[Box | None]:
    rows = [[float(one) for one in group.split(",")] for group in _LISTED.findall(text)]
    return [_box(turned(row[:4], 0.0 if flat else row[4])) if len(row) == 5 else None for row in rows]


def _box(numbers: Sequence[float]) -> Box | None:
    """The box, None where it has no area."""
    try:
        return parse_box(list(numbers))
    except Unreadable:
        return None


def _text(output: Output) -> str:
    return known(output.text, "no text and no boxes in the output")


class _Rule(NamedTuple):
    found: Callable[[Target, Output], Found]
    names: tuple[str, ...]
    """Of the statistics, in their order."""
    keys: Mapping[str, tuple[str, str]]
    """Number -> the statistics that it is the quotient of; ``n`` is the number of samples."""


def _mean(*tenths: int) -> dict[str, tuple[str, str]]:
    return {**{f"acc@0.{tenth}": (f"hit{tenth}", "n") for tenth in tenths}, "mean_iou": ("iou", "n")}


_CUMULATIVE = {"cumulative_iou": ("shared", "union")}
_PRECISION = {
    "precision": ("hits", "boxes"),
    "precision/single": ("single_hits", "single_boxes"),
    "precision/multiple": ("multiple_hits", "multiple_boxes"),
}
_OF_SETS = tuple(dict.fromkeys(name for pair in _PRECISION.values() for name in pair))
RULES: Mapping[BoxReading, _Rule] = {
    "vrsbench": _Rule(vrsbench, ("iou", "hit5", "hit7", "shared", "union"), {**_mean(5, 7), **_CUMULATIVE}),
    "opt-rsvg": _Rule(
        opt_rsvg,
        ("iou", *(f"hit{n}" for n in range(5, 10)), "shared", "union"),
        {**_mean(*range(5, 10)), **_CUMULATIVE},
    ),
    "choice": _Rule(choice, ("iou", "hit5", "hit3"), _mean(5, 3)),
    "earthdial": _Rule(earthdial, _OF_SETS, _PRECISION),
    "earthdial-change": _Rule(lambda target, output: earthdial(target, output, flat=True), _OF_SETS, _PRECISION),
}
"""Name -> how boxes are scored."""


class PublishedBox(PerSample[Target]):
    """Boxes scored as published code does; it measures, and rewards nothing."""

    name = "published_box"
    tasks = frozenset({Task.GROUNDING})
    rewarding = False
    card = Card(
        summary="Boxes as the code of a benchmark reads and scores them. Texts are read by each benchmark's own rule; reference.text may hold the truth as it writes it.",
        range="IoU and hits in [0, 1], counts of boxes",
        transform="none; it has no value, so it cannot be a reward",
        source="the functions in verifiers/published_boxes.py, each tested against the original; docs/benchmarks.md lists "
        "repository and commit",
        gaming=(
            "EarthDial's precision is 1 if only one of many objects is found, or one box is repeated. VRSBench adds a "
            "step to each side, so that small boxes overlap more."
        ),
    )

    class Config(NoConfig):
        """Configuration of ``published_box``."""

        reading: BoxReading = Field(description=f"whose code: {', '.join(get_args(BoxReading))}")

    @property
    def rule(self) -> _Rule:
        return RULES[self.config.reading]

    def truth(self, sample: Sample) -> Target | Score:
        boxes = sample.reference.get("boxes")
        if boxes is None and sample.reference.get("mask") is not None:
            return Score.not_applicable("the sample has a true mask and no true boxes")
        if not isinstance(boxes, (list, tuple)) or not boxes:
            raise ValueError("there is no list of true boxes")
        for box in boxes:
            parse_box(box)
        told = sample.reference.get("text")
        if told is not None and not isinstance(told, str):
            raise ValueError("'reference.text' must be a text")
        return Target(tuple(tuple(box) for box in boxes), told or "", unit_of(sample, "shares"))

    def compare(self, truth: Target, output: Output) -> Score:
        found = self.rule.found(truth, output)
        stats = {name: np.asarray(float(found.get(name, 0.0))) for name in self.rule.names}
        raw = {key: float(found[key]) for key in ("iou", "hits", "boxes") if key in found}
        return Score(None, raw=raw, stats=stats)

    def worst(self, truth: Target, reason: str) -> Score:
        return Score.invalid(reason, stats={name: np.zeros(()) for name in self.rule.names})

    def metrics(self) -> Sequence[Metric]:
        # A reversed box of a model has a negative area in the originals, which the quotient of sums keeps.
        bounds = {key: (0.0, 1.0) for key in self.rule.keys if key != "cumulative_iou"}
        return (quotients(self.rule.keys, bounds),)
