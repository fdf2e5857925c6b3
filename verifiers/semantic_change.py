"""Semantic change detection, a class map for each of two dates with 0 where nothing changed: the ``semantic_change`` verifier.

The literature has two confusion matrices under one name, and their numbers must never be compared (20.3 and 15.1 SeK for the
same maps). ``stacked`` counts the pixels of both dates in one matrix of 7 classes. ``from_to`` makes one map of the pairs
(class before - 1) * 6 + class after, 37 classes with 0 = unchanged.

SECOND's evaluation code has the prediction in the rows of its matrix, this project the truth; every number is the same either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Metric, Numbers, Sums
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.confusion import ClassCounts, confusion_matrix, semantic_change_metrics
from rsw_rewards.verifiers.maps import ExplainedMetric, MapTruth, MapVerifier, read_class_truth, read_classes

MAPS = ("map_before", "map_after")
AGREEMENT = ("sek", "kappa", "score")
"""Metrics that are negative where agreement is less than by chance."""


def from_to(before: np.ndarray, after: np.ndarray, classes: int) -> np.ndarray:
    """One map of transitions from the maps of two dates.

    Args:
        before: (H, W) uint8 indices below ``classes``, 0 = unchanged.
        after: (H, W) likewise, 0 in the same pixels.
        classes: of one date, "unchanged" included; at most 16.

    Returns:
        (H, W) uint8: 0, or ``(before - 1) * (classes - 1) + after``.
    """
    code = before * np.uint8(classes - 1)
    code += after
    code -= np.uint8(classes - 1)
    code *= before != 0  # pixels that were 0 have wrapped around
    return code


def contradictions(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that only one of two maps calls changed."""
    return (before != 0) != (after != 0)


def sample_value(numbers: Mapping[str, float | None]) -> tuple[float, float, float]:
    """``(0.3 miou + 0.7 fscd, miou, fscd)`` of one sample from :func:`semantic_change_metrics`; what both sides lack counts as 1."""
    changed, unchanged, fscd = (numbers[key] for key in ("iou_changed", "iou_unchanged", "fscd"))
    miou = ((1.0 if changed is None else changed) + (1.0 if unchanged is None else unchanged)) / 2
    fscd = 1.0 if fscd is None else fscd
    return 0.3 * miou + 0.7 * fscd, miou, fscd


class SemanticChange(MapVerifier):
    """Agreement of predicted class maps of two dates with the true ones, over the pixels that count."""

    name = "semantic_change"
    tasks = frozenset({Task.SEMANTIC_CHANGE})
    needs = frozenset({"output.map_before", "output.map_after", "reference.map_before", "reference.map_after"})
    card = Card(
        summary=(
            "Compares the class maps of two dates (0 = unchanged) with the true ones: both dates in one confusion "
            "matrix (joint: stacked), or transitions (joint: from_to)."
        ),
        range=("miou, fscd, oa in [0, 1]; kappa, sek, score below 0 where agreement is less than by chance."),
        transform=(
            "0.3 miou + 0.7 fscd of the sample: the challenge's score with Fscd instead of SeK, since kappa means "
            "little in one image; IoU and F1 are 1 for an absent class"
        ),
        source=(
            "SECOND (arXiv 2010.05687), summed counts as ggsDing/Bi-SRNet; transitions as "
            "Z-Zheng/pytorch-change-models."
        ),
        gaming=("Maps without change get a high oa: read sek."),
        cost="about ten milliseconds per megapixel of a pair, plus decoding",
    )

    class Config(NoConfig):
        """Configuration of ``semantic_change``."""

        joint: Literal["stacked", "from_to"] = Field(
            "stacked", description="stacked: both dates in one matrix; from_to: one matrix of transitions"
        )
        classes: int = Field(7, ge=2, le=16, description="classes of one date, 0 = unchanged included; 7 in SECOND")

        @property
        def joint_classes(self) -> int:
            """Classes of the matrix."""
            return self.classes if self.joint == "stacked" else (self.classes - 1) ** 2 + 1

    def truth(self, sample: Sample) -> MapTruth | Score:
        names = sample.reference.get("classes")
        if names is not None and len(names) != self.config.classes:
            return Score.error(
                f"sample {sample.id!r} has {len(names)} classes in its reference, and this is a measure of {self.config.classes}"
            )
        truth = read_class_truth(sample, MAPS, self.config.classes)
        if self.config.joint == "stacked":
            return truth
        if count := np.count_nonzero(truth.counted(contradictions(*truth.maps))):
            return Score.error(f"the truth of sample {sample.id!r} calls {count} pixels changed at one date only")
        return truth

    def compare(self, truth: MapTruth, output: Output) -> Score:
        before, after = (
            read_classes(image, truth, self.config.classes, key)
            for key, image in zip(MAPS, (output.map_before, output.map_after), strict=True)
        )
        counts = (
            self._stacked(truth, before, after) if self.config.joint == "stacked" else self._joint(truth, before, after)
        )
        value, miou, fscd = sample_value(semantic_change_metrics(counts))
        accuracy = float(counts.hits.sum() / (counts.truth.sum() + counts.unusable.sum()))
        raw = {"miou": miou, "fscd": fscd, "oa": accuracy}
        if self.config.joint == "from_to":
            raw["contradictions"] = float(np.count_nonzero(truth.counted(contradictions(before, after))))
        return Score(min(1.0, value), raw=raw, stats={"counts": np.stack(counts), "accuracy": np.array(accuracy)})

    def _stacked(self, truth: MapTruth, before: np.ndarray, after: np.ndarray) -> ClassCounts:
        first, second = (
            confusion_matrix(true, predicted, truth.valid, self.config.classes)
            for true, predicted in zip(truth.maps, (before, after), strict=True)
        )
        return ClassCounts.of(first + second)

    def _joint(self, truth: MapTruth, before: np.ndarray, after: np.ndarray) -> ClassCounts:
        classes, valid = self.config.joint_classes, truth.valid
        transitions = from_to(truth.maps[0], truth.maps[1], self.config.classes)
        lost = np.zeros(classes)
        if (odd := contradictions(before, after)).any():
            lost = np.bincount(transitions[truth.counted(odd)], minlength=classes)
            valid = ~odd if valid is None else valid & ~odd
        predicted = from_to(before, after, self.config.classes)
        return ClassCounts.of(confusion_matrix(transitions, predicted, valid, classes), lost)

    def worst(self, truth: MapTruth, reason: str) -> Score:
        maps = (
            truth.maps
            if self.config.joint == "stacked"
            else (from_to(truth.maps[0], truth.maps[1], self.config.classes),)
        )
        every = [np.stack(ClassCounts.all_unusable(one, truth.valid, self.config.joint_classes)) for one in maps]
        raw = {"miou": 0.0, "fscd": 0.0, "oa": 0.0}
        return Score.invalid(reason, raw=raw, stats={"counts": np.sum(every, axis=0), "accuracy": np.array(0.0)})

    def metrics(self) -> Sequence[Metric]:
        empty = np.zeros((4, self.config.joint_classes))

        def numbers(sums: Sums) -> Numbers:
            found = semantic_change_metrics(ClassCounts(*sums.get("counts", empty)))
            n = float(sums.get("n", 0.0))
            return {**found, "oa": float(sums["accuracy"]) / n if n and "accuracy" in sums else None}

        def why(sums: Sums) -> dict[str, str]:
            found = numbers(sums)
            if found["iou_changed"] is None:
                reason = "neither the truth nor the predictions have a changed pixel"
            elif found["iou_unchanged"] is None:
                reason = "neither the truth nor the predictions have an unchanged pixel"
            else:
                reason = "all changed pixels are of one class and agreed on, so kappa is undefined"
            return {key: reason for key in (*AGREEMENT, "fscd", "miou") if found[key] is None}

        return (
            ExplainedMetric(AGREEMENT, numbers, (-1.0, 1.0), why),
            ExplainedMetric(("fscd", "miou", "oa"), numbers, (0.0, 1.0), why),
        )
