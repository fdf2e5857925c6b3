"""Masks of what an expression refers to: IoU per expression and over all pixels, and the ``referring_mask`` verifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Metric, Numbers, SumMetric, Sums
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.io.images import read_marked
from rsw_rewards.verifiers.confusion import ratio
from rsw_rewards.verifiers.maps import MapTruth, in_levels, predicted_mask, read_truth
from rsw_rewards.verifiers.mask_texts import MaskText, read_mask_text
from rsw_rewards.verifiers.texts import answer_in, known

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU from which an expression counts as understood, of ``p@0.5`` to ``p@0.9``."""
METRIC_KEYS = (
    "giou_mean", "ciou_cumulative", *(f"p@{threshold}" for threshold in THRESHOLDS), "no_target_accuracy", "target_accuracy",
)  # fmt: skip

_NO_DIVISION = 1e-5
"""What SegEarth-R1 adds to a union, and to the number of expressions."""
NoTarget = Literal["match", "zero", "segearth-r1"]
"""What an empty mask is worth where the expression refers to nothing: IoU 1, or 0."""


def overlap(truth: np.ndarray, predicted: np.ndarray) -> tuple[int, int]:
    """Pixels in both masks and in either of them, from two (H, W) bool arrays of one shape."""
    shared = int(np.count_nonzero(truth & predicted))
    return shared, int(np.count_nonzero(truth)) + int(np.count_nonzero(predicted)) - shared


def expression_iou(intersection: int, union: int, no_target: NoTarget = "match") -> float:
    """IoU of one expression, in [0, 1].

    Where both masks are empty (a union of 0) the ratio is undefined. ``"match"`` says 1, as gRefCOCO does
    (henghuiding/ReLA@3ca95519 gres_model/evaluation/refer_evaluation.py); ``"zero"`` says 0, as the script of RRSIS-D does
    (Lsan2401/RMSIN@b4a9b27c test.py), whose expressions all have a target.
    """
    if no_target == "segearth-r1":
        return intersection / (union + _NO_DIVISION) if union else 1.0
    return intersection / union if union else float(no_target == "match")


def referring_metrics(sums: Sums, no_target: NoTarget = "match") -> Numbers:
    """The published numbers from summed statistics.

    Args:
        sums: ``iou``, ``intersection``, ``union``, ``hits`` (one per threshold), ``target`` and ``target_found`` (expressions
            with a target; those of them given a mask that is not empty), ``nothing_right`` (expressions without a target that
            were given an empty mask) and ``n``, the number of expressions.
        no_target: see :func:`expression_iou`.

    Returns:
        ``giou_mean``: mean IoU over expressions (also called mIoU). ``ciou_cumulative``: sum of intersections over sum of unions
        (oIoU). ``p@x``: share of IoU >= x among the expressions with a target under ``"match"`` (ReLA), among all under
        ``"zero"`` (RMSIN). ``no_target_accuracy`` and ``target_accuracy``: N-acc and T-acc of gRefCOCO. None where nothing is
        to be counted.
    """
    n, zero = sums["n"], np.zeros(())
    target = sums.get("target", zero)
    hits = sums.get("hits", np.zeros(len(THRESHOLDS)))
    whole = target if no_target == "match" else n
    if no_target == "segearth-r1" and n:
        n = whole = n + _NO_DIVISION
    return {
        "giou_mean": ratio(sums.get("iou", zero), n),
        "ciou_cumulative": ratio(sums.get("intersection", zero), sums.get("union", zero)),
        **{f"p@{threshold}": ratio(hit, whole) for threshold, hit in zip(THRESHOLDS, hits, strict=True)},
        "no_target_accuracy": ratio(sums.get("nothing_right", zero), sums["n"] - target),
        "target_accuracy": ratio(sums.get("target_found", zero), target),
    }


def _stats(truth: np.ndarray, predicted: np.ndarray, no_target: NoTarget) -> dict[str, np.ndarray]:
    intersection, union = overlap(truth, predicted)
    iou = expression_iou(intersection, union, no_target)
    target, drawn = bool(truth.any()), bool(predicted.any())
    counted = target or no_target != "match"
    return {
        "iou": np.asarray(iou),
        "intersection": np.asarray(float(intersection)),
        "union": np.asarray(float(union)),
        "hits": np.array(
            [
                float(counted and (iou > threshold if no_target == "segearth-r1" else iou >= threshold))
                for threshold in THRESHOLDS
            ]
        ),
        "target": np.asarray(float(target)),
        "target_found": np.asarray(float(target and drawn)),
        "nothing_right": np.asarray(float(not target and not drawn)),
    }


class ReferringMask(PerSample[MapTruth]):
    """IoU of a mask with what an expression refers to."""

    name = "referring_mask"
    tasks = frozenset({Task.GROUNDING})
    needs = frozenset({"output.mask"})
    card = Card(
        summary="Compares a mask (255: the target) with reference.mask, inside 'valid'. An empty true mask means that the "
        "expression has no target.",
        range="iou: [0, 1]; with an empty truth 1 for an empty mask (no_target: match) or 0 (zero), and 0 for any other",
        transform="none",
        source=(
            "GRES (arXiv 2306.00968, henghuiding/ReLA); with no_target: zero RRSIS-D (arXiv 2312.12470, "
            "Lsan2401/RMSIN)."
        ),
        gaming=(
            "An empty mask gets 1 if there is no target, and 0 otherwise: read no_target_accuracy together with "
            "target_accuracy."
        ),
        cost="about five milliseconds per megapixel, plus decoding",
    )

    class Config(NoConfig):
        """Configuration of ``referring_mask``."""

        no_target: NoTarget = Field(
            "match",
            description="an empty mask where nothing is meant: match (IoU 1, gRefCOCO), zero (IoU 0, RRSIS-D), or segearth-r1 (IoU 1, counted"
            " in p@x, which asks for more than x)",
        )
        text: MaskText | None = Field(
            None,
            description="how a text writes a mask, where an output has a text and no mask: text4seg, or teochat for boxes in percent",
        )

    def truth(self, sample: Sample) -> MapTruth | Score:
        mask = sample.reference.get("mask")
        if mask is None and sample.reference.get("boxes") is not None:
            return Score.not_applicable("the sample has true boxes and no true mask")
        if not isinstance(mask, ImageRef):
            raise ValueError("there is no true mask")
        levels = sample.reference.get("levels")
        return read_truth(sample, ("mask",), lambda image: read_marked(in_levels(image, levels)))

    def compare(self, truth: MapTruth, output: Output) -> Score:
        stats = self._stats(
            truth,
            self._written(truth, output)
            if output.mask is None and output.text
            else predicted_mask(output.mask, truth, "mask"),
        )
        iou = float(stats["iou"])
        return Score(iou, raw={"iou": iou}, stats=stats)

    def _written(self, truth: MapTruth, output: Output) -> np.ndarray:
        form = known(
            self.config.text, "the output is a text; say how it writes a mask by referring_mask.text, such as text4seg"
        )
        height, width = truth.maps[0].shape
        return read_mask_text(answer_in(output), form, (height, width))

    def _stats(self, truth: MapTruth, predicted: np.ndarray) -> dict[str, np.ndarray]:
        return _stats(truth.counted(truth.maps[0]), truth.counted(predicted), self.config.no_target)

    def worst(self, truth: MapTruth, reason: str) -> Score:
        # Wrong in every pixel, and in whether there is a target at all.
        stats = {
            **self._stats(truth, ~truth.maps[0]),
            "target_found": np.zeros(()),
            "nothing_right": np.zeros(()),
        }
        return Score.invalid(reason, raw={"iou": 0.0}, stats=stats)

    def metrics(self) -> Sequence[Metric]:
        no_target: NoTarget = self.config.no_target
        return (SumMetric(METRIC_KEYS, lambda sums: referring_metrics(sums, no_target), bounds=(0.0, 1.0)),)
