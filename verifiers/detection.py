"""Detection: average precision of labelled boxes as COCO defines it, by its own library; the ``detection_ap`` verifier."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import FeatureLookup, Frame, Metric, Numbers, Terms
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context, NoConfig
from rsw_rewards.errors import Unreadable
from rsw_rewards.extras import need
from rsw_rewards.verifiers.answers import normalise
from rsw_rewards.verifiers.box_texts import Scale
from rsw_rewards.verifiers.boxes import parse_box, scaled, unit_of
from rsw_rewards.verifiers.texts import answer_in, known

MOST_DETECTIONS = 1000
"""Boxes of one answer that are looked at; COCO counts the 100 surest of each class."""


class Labelled(NamedTuple):
    """True boxes in pixels with their labels, and pixels per step of an output's coordinates."""

    boxes: list[list[float]]
    labels: list[str]
    unit: tuple[float, float]


def read_detections(text: str) -> list[tuple[list[float], str, float]]:
    """Boxes, labels and scores of a JSON list of objects with ``bbox_2d`` (or ``bbox``, ``box``), ``label`` and, if any, ``score``.

    Fences of Markdown around the list are left out. A score that is not given is 1.

    Raises:
        Unreadable: it is no such list.

    >>> read_detections('[{"bbox_2d": [0, 0, 4, 4], "label": "Ship", "score": 0.9}]')
    [([0.0, 0.0, 4.0, 4.0], 'ship', 0.9)]
    """
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    try:
        rows = json.loads(bare)
    except (ValueError, RecursionError):  # the latter for brackets without end
        raise Unreadable(f"{text[:60]!r} is no JSON list of boxes") from None
    if not isinstance(rows, list) or len(rows) > MOST_DETECTIONS or not all(isinstance(row, Mapping) for row in rows):
        raise Unreadable(f"an answer must be a list of at most {MOST_DETECTIONS} objects")
    found = []
    for row in rows:
        box = next((row[key] for key in ("bbox_2d", "bbox", "box") if key in row), None)
        label, score = row.get("label"), row.get("score", 1.0)
        numbers = [_number(side) for side in box] if isinstance(box, list) else []
        if len(numbers) != 4 or not isinstance(label, str) or not np.isfinite([*numbers, _number(score)]).all():
            raise Unreadable(
                f"{json.dumps(row)[:80]} lacks a box of four numbers, a label that is a text, or a score that is a number"
            )
        found.append((numbers, normalise(label), _number(score)))
    return found


def _number(value: Any) -> float:
    """A number of JSON; NaN for what is none, or too large."""
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.nan


def coco_precision(
    true: Sequence[tuple[Sequence[Any], Sequence[str]]], given: Sequence[Sequence[tuple[Any, str, float]]]
) -> Numbers:
    """Mean average precision over IoU 0.5 to 0.95, at 0.5 and at 0.75, over the classes that the truths have.

    Args:
        true: of each image, boxes ``x1, y1, x2, y2`` and their labels.
        given: of each image, boxes, labels and scores.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = sorted({label for _, labels in true for label in labels})
    keys = ("map", "map50", "map75")
    if not names:
        return dict.fromkeys(keys)
    number = {name: place for place, name in enumerate(names, 1)}

    def entry(image: int, box: Sequence[float], label: str) -> dict[str, Any]:
        x1, y1, x2, y2 = box
        return {"image_id": image, "bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": number[label]}

    truths = [
        {**entry(image, box, label), "area": (box[2] - box[0]) * (box[3] - box[1]), "iscrowd": 0}
        for image, (boxes, labels) in enumerate(true, 1)
        for box, label in zip(boxes, labels, strict=True)
    ]
    found = [
        {**entry(image, box, label), "score": score}
        for image, rows in enumerate(given, 1)
        for box, label, score in rows
        if label in number  # a class that no truth has enters no mean
    ]
    if not found:
        return dict.fromkeys(keys, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(1, len(true) + 1)],
            "categories": [{"id": place} for place in number.values()],
            "annotations": [{"id": place, **one} for place, one in enumerate(truths, 1)],
        }
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return {key: float(value) for key, value in zip(keys, judged.stats[:3], strict=True)}


@dataclass(frozen=True)
class CocoPrecision(Metric):
    """:func:`coco_precision` over the rows; an invalid output gives no box. There is no interval: precision is ranked over all images."""

    keys: tuple[str, ...] = ("map", "map50", "map75")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    interval: ClassVar[bool] = False

    def compute(self, rows: Frame, stats: Terms, weight: np.ndarray, features: FeatureLookup | None = None) -> Numbers:
        contents = [json.loads(content["boxes"]) for content in rows["content"] if content]
        return coco_precision([one["true"] for one in contents], [one["given"] for one in contents])


class DetectionAP(PerSample[Labelled]):
    """Average precision of labelled boxes over a whole set; it measures, and has no value of one output."""

    name = "detection_ap"
    tasks = frozenset({Task.GROUNDING})
    needs = frozenset({"output.text"})
    rewarding = False

    class Config(NoConfig):
        """Configuration of ``detection_ap``."""

        scale: Scale = Field(
            "pixels",
            description="what coordinates of outputs count: pixels, thousandths, percent or shares of the image",
        )

    card = Card(
        summary="COCO's average precision. Truth: reference.boxes and reference.labels, one label a box; output: a JSON list with bbox_2d, label and score.",
        range="[0, 1]",
        transform="none; it is computed over a set, so a single output has no value",
        source="github.com/cocodataset/cocoapi by pycocotools (COCOeval)",
        gaming="Many boxes with a low score cost little if those with a high score are right. Without scores, boxes are "
        "ranked in the order of the answer.",
        cost="milliseconds an image on a CPU; needs pip install 'rsw_rewards[detection]'",
    )
    reported = (CocoPrecision(),)

    def setup(self, context: Context) -> None:
        super().setup(context)
        need("detection_ap", "pycocotools")

    def truth(self, sample: Sample) -> Labelled:
        boxes, labels = sample.reference.get("boxes"), sample.reference.get("labels")
        if not isinstance(boxes, (list, tuple)) or not isinstance(labels, (list, tuple)) or len(boxes) != len(labels):
            raise ValueError("'reference.boxes' and 'reference.labels' must be lists of one length")
        for box in boxes:
            if not parse_box(box).upright:
                raise ValueError("a true box of detection has four numbers")
        return Labelled(
            [[float(side) for side in box] for box in boxes],
            [normalise(str(one)) for one in labels],
            unit_of(sample, self.config.scale),
        )

    def compare(self, truth: Labelled, output: Output) -> Score:
        text = known(output.text, "no text in the output")
        rows = [
            (scaled(box, truth.unit), label, score) for box, label, score in read_detections(answer_in(output) or text)
        ]
        for box, _, _ in rows:
            parse_box(box)
        return Score(None, raw={"boxes": float(len(rows))}, content=self._content(truth, rows))

    def worst(self, truth: Labelled, reason: str) -> Score:
        return Score.invalid(reason, content=self._content(truth, []))

    @staticmethod
    def _content(truth: Labelled, rows: Sequence[Any]) -> dict[str, str]:
        return {"boxes": json.dumps({"true": [truth.boxes, truth.labels], "given": rows})}
