"""Boxes that point at what an expression names: IoU of upright and rotated boxes, and the ``box_iou`` verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import ImageError, Unreadable
from rsw_rewards.io.images import read_size
from rsw_rewards.verifiers.box_texts import FORMS, BoxText, Scale, read_boxes
from rsw_rewards.verifiers.texts import answer_in, known

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU from which a box counts as found, of ``acc@0.5`` to ``acc@0.9``."""
LARGEST = 1e6
"""Coordinates beyond this many pixels are no place in an image."""
SMALLEST = 1e-9
"""Boxes of a smaller area (square pixels) have none."""
MOST_BOXES = 100
"""Boxes of one output that are looked at, unless the truth has more than half as many."""

Point = tuple[float, float]


class Box(NamedTuple):
    """A checked box: four corners in counter-clockwise order of a y axis that points up, and whether its sides are upright."""

    corners: tuple[Point, ...]
    upright: bool


def _cross(origin: Point, a: Point, b: Point) -> float:
    return (a[0] - origin[0]) * (b[1] - origin[1]) - (a[1] - origin[1]) * (b[0] - origin[0])


def _area(polygon: Sequence[Point]) -> float:
    """Signed area of a polygon, positive for counter-clockwise corners."""
    return sum(_cross(polygon[0], a, b) for a, b in pairwise(polygon)) / 2


def parse_box(numbers: Any) -> Box:
    """A box from ``[x1, y1, x2, y2]`` (upright) or the eight numbers ``[x1, y1, .., x4, y4]`` of a convex quadrilateral.

    Coordinates are pixels on a continuous axis: ``x2 - x1`` is the width. They may lie outside the image, as rotated boxes at
    its border do. The corners of a quadrilateral go round it either way.

    Raises:
        Unreadable: another number of coordinates, NaN or infinite ones, no area, corners out of order, or not convex.
    """
    if not isinstance(numbers, (list, tuple)) or len(numbers) not in (4, 8):
        raise Unreadable("a box has 4 or 8 numbers")
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
        raise Unreadable("a box holds something that is not a number")
    if not all(abs(number) <= LARGEST for number in numbers):  # NaN fails this too
        raise Unreadable(f"a box has a coordinate that is not finite or beyond {LARGEST:,.0f} pixels")
    shown = "[" + ", ".join(f"{number:g}" for number in numbers) + "]"
    points = tuple((float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True))
    if upright := len(points) == 2:
        (x1, y1), (x2, y2) = points
        if x2 <= x1 or y2 <= y1:
            raise Unreadable(f"the box {shown} has no area: x1 < x2 and y1 < y2 must hold")
        points = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    turns = [_cross(points[i - 2], points[i - 1], points[i]) for i in range(4)]
    if min(turns) < 0 < max(turns):
        raise Unreadable(f"the box {shown} is not convex, or its corners do not go round it")
    area = _area(points)
    if abs(area) < SMALLEST:
        raise Unreadable(f"the box {shown} has no area")
    return Box(points if area > 0 else points[::-1], upright)


def unit_of(sample: Sample, scale: Scale) -> Point:
    """Pixels that one step of a scale is, along x and along y.

    Raises:
        ValueError: the scale is relative to the image, and the sample has none, or several of different sizes.
        ImageError: the image cannot be read.
    """
    if scale == "pixels":
        return 1.0, 1.0
    sizes = {read_size(image) for image in sample.images}
    if len(sizes) != 1:
        raise ValueError(
            f"boxes in {scale} need the size of the image, and the sample has {len(sizes) or 'no'} "
            f"{'images of different sizes' if sizes else 'image'}"
        )
    ((height, width),) = sizes
    steps = {"thousandths": 1000, "percent": 100}.get(scale, 1)
    return width / steps, height / steps


def scaled(numbers: Sequence[float], unit: Point) -> list[float]:
    """The coordinates ``x, y, x, y, ..`` of a box times ``unit``."""
    return [number * unit[place % 2] for place, number in enumerate(numbers)]


def written_in(scale: Scale, output: Output, sample: Sample) -> Output:
    """An output with boxes in pixels as one with boxes on a scale; as it is, where the sample has no size, since none is scored."""
    if scale == "pixels" or output.boxes is None:
        return output
    try:
        x, y = unit_of(sample, scale)
    except (ValueError, ImageError):
        return output
    return replace(output, boxes=tuple(tuple(scaled(box, (1 / x, 1 / y))) for box in output.boxes))


def _clip(polygon: list[Point], start: Point, end: Point) -> list[Point]:
    """The part of a convex polygon on the left of the line from ``start`` to ``end``."""
    kept: list[Point] = []
    sides = [_cross(start, end, point) for point in polygon]
    for i, point in enumerate(polygon):
        before, side_before, side = polygon[i - 1], sides[i - 1], sides[i]
        if side_before * side < 0:
            share = side_before / (side_before - side)
            kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
        if side >= 0:
            kept.append(point)
    return kept


def clipped_area(polygon: Sequence[Point], window: Sequence[Point]) -> tuple[float, float]:
    """Areas of the part of a polygon inside a convex window, and of the whole polygon.

    Args:
        polygon: corners in order, either way round.
        window: corners of a convex polygon, counter-clockwise of a y axis that points up.
    """
    part = list(polygon)
    for place, end in enumerate(window):
        part = _clip(part, window[place - 1], end) if part else part
    return (abs(_area(part)) if len(part) > 2 else 0.0), abs(_area(polygon))


def _upright_overlap(a: Sequence[Point], b: Sequence[Point]) -> float:
    """Area shared by the bounding rectangles of two polygons."""
    width = min(max(x for x, _ in a), max(x for x, _ in b)) - max(min(x for x, _ in a), min(x for x, _ in b))
    height = min(max(y for _, y in a), max(y for _, y in b)) - max(min(y for _, y in a), min(y for _, y in b))
    return max(width, 0.0) * max(height, 0.0)


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]; symmetric, and exactly 1 for one box against itself.

    Two upright boxes in closed form; otherwise one convex quadrilateral is clipped by the sides of the other
    (Sutherland and Hodgman 1974), which is exact for convex shapes up to rounding.
    """
    if set(a.corners) == set(b.corners):
        return 1.0
    overlap = _upright_overlap(a.corners, b.corners)
    if not overlap:
        return 0.0
    first, second = sorted((a.corners, b.corners))  # so that rounding does not depend on which is the truth
    if not (a.upright and b.upright):
        x, y = first[0]  # a near origin keeps the digits that large coordinates would take
        first, second = (tuple((px - x, py - y) for px, py in corners) for corners in (first, second))
        part = list(first)
        for i in range(4):
            part = _clip(part, second[i - 1], second[i])
            if len(part) < 3:
                return 0.0
        overlap = max(_area(part), 0.0)
    return min(overlap / (_area(first) + _area(second) - overlap), 1.0)


def _edges(box: Box) -> np.ndarray:
    """(4,) float64 x1, y1, x2, y2 of the upright rectangle round a box."""
    return np.concatenate([np.min(box.corners, axis=0), np.max(box.corners, axis=0)])


def iou_of_pairs(true: Sequence[Box], predicted: Sequence[Box]) -> np.ndarray:
    """(true, predicted) float64, the :func:`box_iou` of every pair; upright ones are computed a row at a time.

    >>> iou_of_pairs([parse_box([0, 0, 2, 2])], [parse_box([1, 0, 3, 2]), parse_box([4, 4, 5, 5])]).round(3).tolist()
    [[0.333, 0.0]]
    """
    found = np.zeros((len(true), len(predicted)))
    if not predicted:
        return found
    edges = np.array([_edges(box) for box in predicted]).T
    area = np.array([_area(box.corners) for box in predicted])
    upright = np.array([box.upright for box in predicted])
    for row, box in zip(found, true, strict=True):
        own = _edges(box)
        width = np.minimum(own[2], edges[2]) - np.maximum(own[0], edges[0])
        height = np.minimum(own[3], edges[3]) - np.maximum(own[1], edges[1])
        overlap = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        closed = upright & box.upright  # the rectangles round rotated boxes may share more than the boxes have
        np.divide(overlap, _area(box.corners) + area - overlap, out=row, where=closed)
        np.minimum(row, 1.0, out=row)
        row[np.all(edges == own[:, None], axis=0)] = 1.0
        for place in np.flatnonzero((overlap > 0) & ~closed).tolist():
            row[place] = box_iou(box, predicted[place])
    return found


def match_boxes(iou: np.ndarray) -> tuple[float, tuple[bool, ...]]:
    """How well predicted boxes agree with true ones, each box used once at most.

    Args:
        iou: (true, predicted) float64 IoU of every pair.

    Returns:
        The IoU summed over the best one-to-one matching, divided by the larger number of boxes, so that a box missing or too
        many counts 0; 1 where there is neither. And for each of :data:`THRESHOLDS`, whether all boxes pair up at that IoU or
        more with none left over (the precision at F1 = 1 of GREC, arXiv 2308.16182). Of one box on each side: its IoU, and
        whether it reaches the threshold.
    """
    true, predicted = iou.shape
    if not true or not predicted:
        return float(true == predicted), (true == predicted,) * len(THRESHOLDS)
    if true == predicted == 1:
        single = float(iou[0, 0])
        return single, tuple(single >= threshold for threshold in THRESHOLDS)
    from scipy.optimize import linear_sum_assignment

    mean = min(float(iou[linear_sum_assignment(iou, maximize=True)].sum() / max(true, predicted)), 1.0)
    if true != predicted:
        return mean, (False,) * len(THRESHOLDS)
    found: list[bool] = []
    for threshold in reversed(THRESHOLDS):  # boxes that pair up at one threshold do so at all that are lower
        near = iou >= threshold
        found.append(any(found) or bool(near[linear_sum_assignment(near, maximize=True)].all()))
    return mean, tuple(reversed(found))


METRIC_KEYS = (*(f"acc@{threshold}" for threshold in THRESHOLDS), "mean_iou", "cumulative_iou")


def _numbers(sums: Sums) -> Numbers:
    if not (n := float(sums["n"])):
        return dict.fromkeys(METRIC_KEYS)
    hits, iou = sums.get("hits", np.zeros(len(THRESHOLDS))), sums.get("iou", np.zeros(()))
    shared, union = (float(sums.get(name, 0.0)) for name in ("shared", "union"))
    cumulative = shared / union if union else None
    return dict(zip(METRIC_KEYS, (*(float(hit) / n for hit in hits), float(iou) / n, cumulative), strict=True))


def _stats(
    iou: float, hits: Sequence[bool], truth: Sequence[Box], predicted: Sequence[Box] = ()
) -> dict[str, np.ndarray]:
    """Sums of one output. Where one box is asked for, shared and united area follow from the IoU and the areas of both boxes."""
    shared = union = 0.0
    if len(truth) == 1:
        union = sum(abs(_area(box.corners)) for box in (*truth, *predicted)) / (
            1 + (iou if len(predicted) == 1 else 0.0)
        )
        shared = iou * union if len(predicted) == 1 else 0.0
    return {
        "iou": np.asarray(iou), "hits": np.array(hits, dtype=np.float64), "shared": np.asarray(shared), "union": np.asarray(union),
    }  # fmt: skip


class Targets(NamedTuple):
    """What a grounding sample asks for."""

    boxes: list[Box]
    unit: Point
    """Pixels that one step of an output's coordinates is, along x and along y."""
    text_unit: Point = (1.0, 1.0)
    """The same of a text's coordinates."""


class BoxIoU(PerSample[Targets]):
    """IoU of the boxes given with the true ones."""

    name = "box_iou"
    tasks = frozenset({Task.GROUNDING})
    needs = frozenset({"output.boxes"})

    class Config(NoConfig):
        """On which scale models write boxes."""

        scale: Scale = Field(
            "pixels",
            description="what the coordinates of outputs count: pixels, thousandths (0 to 1000), percent or shares (0 to 1)"
            " of the image's width and height; true boxes are in pixels",
        )
        text: BoxText | None = Field(
            None, description=f"how a text writes boxes, where an output has a text and no boxes: {', '.join(FORMS)}"
        )

    card = Card(
        summary=(
            "Compares boxes of 4 numbers (x1, y1, x2, y2) or 8 (a convex quadrilateral) with reference.boxes. For one "
            "true box: its IoU with the output's one box."
        ),
        range="iou: [0, 1]; hit: 0 or 1, all boxes matched at IoU >= 0.5 and none left over",
        transform="none",
        source=(
            "acc@0.5 to acc@0.9 and mean_iou as usual for DIOR-RSVG (arXiv 2210.12634); several boxes after "
            "GREC (arXiv 2308.16182)."
        ),
        gaming=(
            "A box of the whole image gets the share of the image that the target covers. If targets are large, "
            "compare with the baseline whole_image."
        ),
        cost="microseconds on a CPU for upright boxes, seconds for thousands of them, about a hundred for a pair of rotated ones that overlap",
    )
    reported = (SumMetric(METRIC_KEYS, _numbers, bounds=(0.0, 1.0)),)

    def truth(self, sample: Sample) -> Targets | Score:
        boxes = sample.reference.get("boxes")
        if boxes is None and sample.reference.get("mask") is not None:
            return Score.not_applicable("the sample has a true mask and no true boxes")
        if not isinstance(boxes, (list, tuple)):
            raise ValueError("there is no list of true boxes")
        form: BoxText | None = self.config.text
        text_unit = (1.0, 1.0) if form is None else unit_of(sample, FORMS[form].scale)
        return Targets([parse_box(box) for box in boxes], unit_of(sample, self.config.scale), text_unit)

    def compare(self, truth: Targets, output: Output) -> Score:
        boxes = (
            [scaled(box, truth.unit) for box in output.boxes]
            if output.boxes is not None
            else self._written(truth, output)
        )
        if len(boxes) > max(MOST_BOXES, 2 * len(truth.boxes)):
            raise Unreadable(f"{len(boxes)} boxes are more than the {MOST_BOXES} that are looked at")
        predicted = [parse_box(box) for box in boxes]
        mean, hits = match_boxes(iou_of_pairs(truth.boxes, predicted))
        targets = len(truth.boxes)
        reason = "" if targets == len(predicted) else f"{len(predicted)} boxes for {targets} targets"
        stats = _stats(mean, hits, truth.boxes, predicted)
        return Score(mean, raw={"iou": mean, "hit": float(hits[0])}, stats=stats, reason=reason)

    def _written(self, truth: Targets, output: Output) -> list[list[float]]:
        text = known(output.text, "no boxes in the output")
        form = known(self.config.text, "the output is a text; say how it writes boxes by box_iou.text, such as geochat")
        return read_boxes(answer_in(output) if text else text, form, truth.text_unit)

    def worst(self, truth: Targets, reason: str) -> Score:
        return Score.invalid(reason, raw={"iou": 0.0}, stats=_stats(0.0, (False,) * len(THRESHOLDS), truth.boxes))


def box_scale(verifiers: Mapping[str, Any]) -> Scale:
    """The scale on which a protocol's verifiers read boxes."""
    scales = [verifier.config.scale for verifier in verifiers.values() if isinstance(verifier, BoxIoU)]
    return scales[0] if scales else "pixels"
