"""Binary change masks: counts of right and wrong pixels, the metrics that follow from their sums, and the ``change_mask`` verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rsw_rewards.contracts import Batch, Card, Metric, SumMetric, Verifier, register
from rsw_rewards.images import ImageError, ImageRef, read_index, read_mask
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scores import Score, Status

METRIC_KEYS = ("f1", "iou", "precision", "recall", "oa", "kappa", "mf1", "miou")

FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
"""What the tool behind the published LEVIR-CD tables adds to the denominator of F1. It takes 6e-8 off F1."""


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Counts of pixels by truth (rows) and prediction (columns), unchanged first.

    Args:
        truth: (H, W) bool, True where something changed.
        predicted: (H, W) bool.
        valid: (H, W) bool, the pixels that count; all of them by default.

    Returns:
        (2, 2) int64.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape or (valid is not None and valid.shape != truth.shape):
        raise ValueError("truth, prediction and valid pixels must have one shape")
    cells = truth.astype(np.int64) * 2 + predicted
    return np.bincount((cells if valid is None else cells[valid]).ravel(), minlength=4).reshape(2, 2)


def cohen_kappa(confusion: np.ndarray) -> float | None:
    """Cohen's kappa of a (K, K) matrix of counts: agreement beyond that of independent raters with the same margins.

    None where those would agree always (empty, or everything in one class on both sides).
    """
    total = confusion.sum()
    if not total:
        return None
    observed = np.trace(confusion) / total
    expected = float(confusion.sum(axis=0) @ confusion.sum(axis=1)) / total**2
    return float((observed - expected) / (1.0 - expected)) if expected < 1.0 else None


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _f1(hits: float, wrong: float, missed: float, epsilon: float) -> float | None:
    if not hits or not epsilon:
        return _ratio(2 * hits, 2 * hits + wrong + missed)
    precision, recall = hits / (hits + wrong), hits / (hits + missed)
    return 2 * precision * recall / (precision + recall + epsilon)


def binary_change_metrics(confusion: np.ndarray, epsilon: float = 0.0) -> dict[str, float | None]:
    """The published numbers of binary change detection from summed counts.

    Args:
        confusion: (2, 2) counts, rows truth, columns prediction, unchanged first.
        epsilon: added to precision + recall where F1 divides by it; see :data:`FLOAT32_EPSILON`.

    Returns:
        ``f1``, ``iou``, ``precision``, ``recall`` of the changed class, ``oa``, ``kappa``, and ``mf1``, ``miou`` averaged over
        both classes. A number whose denominator is empty because of the truth is None (no changed pixel anywhere); the
        precision of a prediction without a changed pixel is 0 where there was change to find.
    """
    (tn, fp), (fn, tp) = np.asarray(confusion, dtype=np.float64)
    f1, f1_unchanged = _f1(tp, fp, fn, epsilon), _f1(tn, fn, fp, epsilon)
    iou, iou_unchanged = _ratio(tp, tp + fp + fn), _ratio(tn, tn + fp + fn)
    return {
        "f1": f1,
        "iou": iou,
        "precision": 0.0 if tp + fp == 0 and fn > 0 else _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "oa": _ratio(tp + tn, tp + tn + fp + fn),
        "kappa": cohen_kappa(np.array([[tn, fp], [fn, tp]])),
        "mf1": None if f1 is None or f1_unchanged is None else (f1 + f1_unchanged) / 2,
        "miou": None if iou is None or iou_unchanged is None else (iou + iou_unchanged) / 2,
    }


def mask_iou(confusion: np.ndarray) -> float:
    """IoU of the changed class of one image; 1 where neither truth nor prediction has change."""
    (_, fp), (fn, tp) = confusion
    union = tp + fp + fn
    return float(tp / union) if union else 1.0


class ChangeMaskConfig(BaseModel):
    """Configuration of ``change_mask``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: float = Field(
        FLOAT32_EPSILON,
        ge=0,
        le=1e-3,
        description="added to precision + recall in F1, as published tables have it; 0: exact F1",
    )


def _changed(image: ImageRef, indexed: bool) -> np.ndarray:
    return read_index(image) != 0 if indexed else read_mask(image)


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[1]} x {mask.shape[0]}"


def all_wrong(truth: np.ndarray, valid: np.ndarray | None, reason: str) -> Score:
    """The score of a mask that cannot be used: wrong in every pixel, or it would improve summed metrics by its absence."""
    return Score.invalid(
        reason, raw={"iou": 0.0}, stats={"confusion": confusion_matrix(truth, ~truth, valid).astype(float)}
    )


@register
class ChangeMask(Verifier):
    """Agreement of a predicted change mask with the true one, over the pixels that count."""

    name: ClassVar[str] = "change_mask"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_MASK})
    needs: ClassVar[frozenset[str]] = frozenset({"output.mask", "reference.mask"})
    card: ClassVar[Card] = Card(
        summary=(
            "Counts pixels of a change mask (over 127 is changed; with 'classes', every index but 0) against the true mask,"
            " ignoring pixels outside 'valid'."
        ),
        range="iou of the changed class: [0, 1]; 1 where neither mask has change, 0 where only the prediction has",
        transform="none",
        source=(
            "f1, iou, precision, recall, oa, kappa, mf1, miou from the summed 2 x 2 counts, as usual for LEVIR-CD"
            " (doi 10.3390/rs12101662) and checked against ConfuseMatrixMeter of wgcban/ChangeFormer, whose epsilon in F1 is"
            " the default here (6e-8 below the exact F1, which epsilon: 0 gives)"
        ),
        gaming=(
            "An empty mask scores 1 on unchanged samples and 0 on all others: mix in changed samples and read f1, which"
            " ignores true negatives, rather than oa. A mask that is missing, unreadable or of another size counts as wrong"
            " in every pixel, so leaving hard samples out lowers f1."
        ),
        cost="about ten millisecond per megapixel, plus decoding",
    )
    Config: ClassVar[type[BaseModel]] = ChangeMaskConfig

    def score(self, batch: Batch) -> list[Score]:
        return [self._one(sample, output) for sample, output in zip(batch.samples, batch.outputs, strict=True)]

    def invalid(self, sample: Sample, reason: str) -> Score:
        score = self._one(sample, Output(sample.id))
        return replace(score, reason=reason) if score.status is Status.INVALID_OUTPUT else score

    def _one(self, sample: Sample, output: Output) -> Score:
        reference = sample.reference
        if not isinstance(reference.get("mask"), ImageRef):
            return Score.error(f"sample {sample.id!r} has no true mask")
        indexed = "classes" in reference
        try:
            truth = _changed(reference["mask"], indexed)
            valid = read_mask(reference["valid"]) if isinstance(reference.get("valid"), ImageRef) else None
        except ImageError as error:
            return Score.error(f"the truth of sample {sample.id!r} cannot be read: {error}")
        if valid is not None and valid.shape != truth.shape:
            return Score.error(
                f"sample {sample.id!r} has a mask of {_size(truth)} and valid pixels of {_size(valid)} pixels"
            )
        if truth.size == 0 or (valid is not None and not valid.any()):
            return Score.not_applicable("the sample has no pixel that counts")
        if output.mask is None:
            return all_wrong(truth, valid, "no mask in the output")
        try:
            predicted = _changed(output.mask, indexed)
        except ImageError as error:
            return all_wrong(truth, valid, str(error))
        if predicted.shape != truth.shape:
            reason = f"the mask has {_size(predicted)} pixels, the true one {_size(truth)}"
            return all_wrong(truth, valid, reason)
        confusion = confusion_matrix(truth, predicted, valid)
        iou = mask_iou(confusion)
        raw = {"iou": iou}
        if (f1 := binary_change_metrics(confusion, self.config.epsilon)["f1"]) is not None:
            raw["f1"] = f1
        return Score(iou, raw=raw, stats={"confusion": confusion.astype(np.float64)})

    def metrics(self) -> Sequence[Metric]:
        epsilon = self.config.epsilon

        def from_sums(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
            return binary_change_metrics(sums.get("confusion", np.zeros((2, 2))), epsilon)

        return (SumMetric(METRIC_KEYS, from_sums, bounds=(-1.0, 1.0)),)
