"""box_iou: IoU of upright and rotated boxes, several boxes for one target, and boxes that are none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.errors import InputError
from rsw_rewards.verifiers.boxes import METRIC_KEYS, Box, BoxIoU, box_iou, iou_of_pairs, match_boxes, parse_box

Numbers = tuple[float, ...]
CENTRE, SIDE, ANGLE = st.floats(-40, 40), st.floats(0.5, 60), st.floats(-math.pi, math.pi)
UPRIGHT = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), CENTRE, CENTRE, SIDE, SIDE)


def rotated(x: float, y: float, width: float, height: float, angle: float, flip: bool = False) -> Numbers:
    """Corners of a rectangle around (x, y), clockwise or not."""
    half = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    c, s = math.cos(angle), math.sin(angle)
    points = [(x + c * u - s * v, y + s * u + c * v) for u, v in (half[::-1] if flip else half)]
    return tuple(number for point in points for number in point)


ROTATED = st.builds(rotated, CENTRE, CENTRE, SIDE, SIDE, ANGLE, st.booleans())
BOXES = st.one_of(UPRIGHT, ROTATED)


def moved(numbers: Numbers, dx: float, dy: float) -> Numbers:
    return tuple(number + (dy if i % 2 else dx) for i, number in enumerate(numbers))


def corners(numbers: Numbers) -> Numbers:
    return tuple(number for point in parse_box(numbers).corners for number in point)


def turned(numbers: Numbers, angle: float) -> Numbers:
    c, s = math.cos(angle), math.sin(angle)
    points = corners(numbers)
    return tuple(n for x, y in zip(points[::2], points[1::2], strict=True) for n in (c * x - s * y, s * x + c * y))


def iou(a: Numbers, b: Numbers) -> float:
    return box_iou(parse_box(a), parse_box(b))


def drawn(box: Box, size: int, cells: int) -> np.ndarray:
    """(cells, cells) bool: which cell centres of [0, size]^2 lie in the box."""
    y, x = (np.mgrid[:cells, :cells] + 0.5) * size / cells
    inside = np.ones((cells, cells), bool)
    for (x1, y1), (x2, y2) in zip(box.corners, box.corners[1:] + box.corners[:1], strict=True):
        inside &= (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) >= 0
    return inside


def test_known_overlaps() -> None:
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    assert iou((0, 0, 10, 10), (2, 2, 4, 4)) == pytest.approx(0.04)
    square = rotated(0, 0, 2, 2, 0)
    assert iou((-1, -1, 1, 1), square) == 1.0
    octagon = 8 * (math.sqrt(2) - 1)  # what a square shares with itself turned by 45 degrees
    assert iou((-1, -1, 1, 1), rotated(0, 0, 2, 2, math.pi / 4)) == pytest.approx(octagon / (8 - octagon), rel=1e-12)
    assert iou(rotated(0, 0, 8, 1, 0.3), rotated(0, 0, 1, 8, 0.3, flip=True)) == pytest.approx(1 / 15, rel=1e-9)


def test_a_quadrilateral_need_not_be_a_rectangle() -> None:
    diamond, box = (2, 0, 4, 2, 2, 4, 0, 2), (0, 0, 4, 4)
    assert iou(diamond, box) == pytest.approx(0.5)
    trapezium = (0, 0, 4, 0, 3, 2, 1, 2)
    assert iou(trapezium, (0, 0, 4, 1)) == pytest.approx(3.5 / (6 + 4 - 3.5))


@given(BOXES, BOXES)
def test_symmetric_and_in_range(a: Numbers, b: Numbers) -> None:
    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0
    assert iou(a, a) == 1.0
    assert iou(a, moved(a, 500, 0)) == 0.0


@given(BOXES, BOXES, st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), ANGLE)
def test_moving_and_turning_both_changes_nothing(a: Numbers, b: Numbers, dx: float, dy: float, angle: float) -> None:
    assert iou(moved(a, dx, dy), moved(b, dx, dy)) == pytest.approx(iou(a, b), abs=1e-9)
    assert iou(turned(a, angle), turned(b, angle)) == pytest.approx(iou(a, b), abs=1e-9)


@given(UPRIGHT, UPRIGHT)
def test_clipping_agrees_with_the_closed_form(a: Numbers, b: Numbers) -> None:
    assert iou(corners(a), corners(b)) == pytest.approx(iou(a, b), abs=1e-12)


@given(st.lists(BOXES, max_size=4), st.lists(BOXES, max_size=4))
def test_many_pairs_at_once_are_the_pairs_one_by_one(true: list[Numbers], predicted: list[Numbers]) -> None:
    first, second = list(map(parse_box, true)), list(map(parse_box, [*predicted, *true]))
    one_by_one = np.array([[box_iou(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    assert np.array_equal(iou_of_pairs(first, second), one_by_one)


def test_rotated_boxes_whose_rectangles_share_all_that_both_have_divide_by_nothing() -> None:
    diamond, half = parse_box([0, -1, 1, 0, 0, 1, -1, 0]), parse_box([0, -1, 1, 0, 0, 1, -0.5, 0.5])
    with np.errstate(all="raise"):
        found = iou_of_pairs([diamond], [diamond, half])
    assert found.tolist() == [[1.0, 0.75]]


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_counting_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = [parse_box(rotated(*rng.uniform(35, 65, 2), *rng.uniform(10, 40, 2), rng.uniform(0, 7))) for _ in range(2)]
    a, b = (drawn(box, 100, 1500) for box in boxes)
    assert box_iou(*boxes) == pytest.approx((a & b).sum() / (a | b).sum(), abs=2e-3)


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((5, 5, 5, 9), "no area"),
        ((9, 9, 5, 5), "no area"),
        ((0, 0, 1e9, 1), "not finite or beyond"),
        ((0, 0, 4, 4, 4, 0, 0, 4), "not convex"),  # a bow tie
        ((0, 0, 4, 0, 1, 1, 0, 4), "not convex"),  # an arrow head
        ((0, 0, 1, 1, 2, 2, 3, 3), "no area"),
    ],
)
def test_boxes_that_are_none_are_invalid(box: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_box(box)
    found = score([box], [[0, 0, 1, 1]])
    assert (found.status, found.value) == (Status.INVALID_OUTPUT, 0.0)
    assert why in found.reason
    assert score([(0, 0, 1, 1)], [list(box)]).status is Status.ERROR


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((math.nan, 0, 1, 1), "not finite"),
        ((0, 0, math.inf, 1), "not finite"),
        ((0, 0, 1), "4 or 8 numbers"),
        ((0, 0, "1", 1), "not a number"),
    ],
)
def test_boxes_that_no_output_can_hold_are_an_error_as_truth(box: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_box(box)
    with pytest.raises(InputError, match=why):
        score([box], [[0, 0, 1, 1]])
    assert score([(0, 0, 1, 1)], [list(box)]).status is Status.ERROR


def score(boxes: Any, true: Any, **reference: Any) -> Score:
    sample = Sample("s", Task.GROUNDING, (), reference={"boxes": true, **reference})
    return BoxIoU().score(Batch.of([sample], [Output("s", boxes=None if boxes is None else tuple(boxes))]))[0]


def summed(scores: list[Score]) -> dict[str, float | None]:
    (metric,) = BoxIoU().metrics()
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in ("iou", "hits", "shared", "union")}
    return metric.compute(pd.DataFrame(index=range(len(scores))), stats, np.ones(len(scores)), None)


def test_one_target() -> None:
    right = score([(0, 0, 10, 10)], [[0, 0, 10, 10]])
    half = score([(0, 0, 10, 5)], [[0, 0, 10, 10]])
    third = score([(5, 0, 15, 10)], [[0, 0, 10, 10]])
    assert [found.value for found in (right, half, third)] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert summed([right, half, third]) == pytest.approx(
        {"acc@0.5": 2 / 3, "acc@0.6": 1 / 3, "acc@0.7": 1 / 3, "acc@0.8": 1 / 3, "acc@0.9": 1 / 3}
        | {"mean_iou": (1 + 1 / 2 + 1 / 3) / 3, "cumulative_iou": (100 + 50 + 50) / (100 + 100 + 150)}
    )


def test_several_boxes_for_one_target_are_a_hedge() -> None:
    hedged = score([(0, 0, 10, 10), (50, 50, 60, 60), (90, 0, 99, 9)], [[0, 0, 10, 10]])
    assert (hedged.value, hedged.raw["hit"]) == (pytest.approx(1 / 3), 0.0)
    assert hedged.reason == "3 boxes for 1 targets"
    twice = score([(0, 0, 10, 10), (0, 0, 10, 10)], [[0, 0, 10, 10]])
    assert (twice.value, twice.raw["hit"]) == (0.5, 0.0)


def test_several_targets_are_matched_one_to_one_in_any_order() -> None:
    true = [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert score([(20, 0, 30, 10), (0, 0, 10, 10)], true).value == 1.0
    missed = score([(20, 0, 30, 10)], true)
    assert (missed.value, missed.raw["hit"]) == (0.5, 0.0)
    assert score([(0, 0, 10, 10), (0, 0, 10, 10)], true).value == 0.5


def test_the_matching_is_the_best_one() -> None:
    # Taking the largest IoU first would leave 0.1 for the second box.
    mean, hits = match_boxes(np.array([[0.6, 0.55], [0.5, 0.1]]))
    assert (mean, hits) == (pytest.approx(0.525), (True, False, False, False, False))
    # Nor is the largest sum always the largest number of boxes found.
    mean, hits = match_boxes(np.array([[0.95, 0.51], [0.51, 0.1]]))
    assert (mean, hits) == (pytest.approx(1.05 / 2), (True, False, False, False, False))


def test_no_target() -> None:
    assert score([], []).value == 1.0
    assert score([(0, 0, 1, 1)], []).value == 0.0
    assert score([], [[0, 0, 1, 1]]).value == 0.0


def test_the_whole_image_scores_the_share_of_the_target() -> None:
    assert score([(0, 0, 800, 800)], [[100, 100, 180, 180]]).value == pytest.approx(0.01)


def test_what_cannot_be_scored() -> None:
    assert score(None, [[0, 0, 1, 1]]).status is Status.INVALID_OUTPUT
    assert score([(0, 0, 1, 1)] * 101, [[0, 0, 1, 1]]).status is Status.INVALID_OUTPUT
    assert score([(0, 0, 1, 1)], None).status is Status.ERROR
    assert score([(0, 0, 1, 1)], None, mask=ImageRef(Path("mask.png"))).status is Status.NOT_APPLICABLE


def test_missing_outputs_lower_the_numbers() -> None:
    sample = Sample("s", Task.GROUNDING, (), reference={"boxes": [[0, 0, 1, 1]]})
    missing = BoxIoU().invalid(sample, "no prediction for this sample")
    assert summed([score([(0, 0, 1, 1)], [[0, 0, 1, 1]]), missing]) == dict.fromkeys(METRIC_KEYS, 0.5)
