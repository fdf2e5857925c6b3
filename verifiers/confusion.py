"""Confusion counts of masks and class maps, and the numbers of the field that follow from their sums.

Counts add up over images, so every number here is a function of sums. Rows of a confusion matrix are the truth and columns the
prediction, class 0 first. A number without a meaning (its denominator is empty) is None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

METRIC_KEYS = ("f1", "iou", "precision", "recall", "oa", "kappa", "mf1", "miou")
"""What :func:`binary_change_metrics` gives."""


def confusion_matrix(
    truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None, classes: int = 2
) -> np.ndarray:
    """Counts of pixels by truth (rows) and prediction (columns).

    Args:
        truth: (H, W) bool, or integers in 0 .. ``classes`` - 1 where ``valid``.
        predicted: (H, W) bool or integers likewise.
        valid: (H, W) bool, the pixels that count; all of them by default.
        classes: K, at most 255.

    Returns:
        (K, K) int64.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape or (valid is not None and valid.shape != truth.shape):
        raise ValueError("truth, prediction and valid pixels must have one shape")
    if truth.dtype == predicted.dtype == bool and classes == 2:
        if valid is not None:
            truth, predicted = truth & valid, predicted & valid
        total = truth.size if valid is None else np.count_nonzero(valid)
        hits, changed, found = (np.count_nonzero(mask) for mask in (truth & predicted, truth, predicted))
        return np.array([[total - changed - found + hits, found - hits], [changed - hits, hits]], dtype=np.int64)
    cells = classes * classes
    kind = np.dtype(np.uint8 if cells <= 256 else np.uint16)  # small arrays are quick to go through
    code = truth.astype(kind)
    code *= classes
    code += predicted.astype(kind, copy=False)
    if valid is not None:
        code *= valid  # pixels that do not count are counted as the first cell, and taken out of it again
    counts = np.bincount(code.ravel(), minlength=cells)
    if valid is not None:
        counts[0] -= valid.size - np.count_nonzero(valid)
    return counts.reshape(classes, classes)


def ratio(part: float | np.ndarray, whole: float | np.ndarray) -> float | None:
    """``part / whole``; None where ``whole`` is 0."""
    return float(part / whole) if whole else None


def cohen_kappa(confusion: np.ndarray) -> float | None:
    """Cohen's kappa of a (K, K) matrix of counts: agreement beyond that of independent raters with the same margins.

    None where those would agree always (empty, or everything in one class on both sides).
    """
    return kappa_of_margins(np.trace(confusion), confusion.sum(axis=1), confusion.sum(axis=0))


def kappa_of_margins(hits: float, truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Cohen's kappa from the number of pixels agreed on and both raters' (K,) counts per class. See :func:`cohen_kappa`."""
    total = float(truth.sum())
    if not total:
        return None
    observed, expected = hits / total, float(truth @ predicted) / total**2
    return float((observed - expected) / (1.0 - expected)) if expected < 1.0 else None


def f1_score(hits: float, wrong: float, missed: float, epsilon: float = 0.0) -> float | None:
    """F1 (Dice) of a class from its true positives, false positives and false negatives; None where all are 0.

    ``epsilon`` is added to precision + recall where F1 divides by it.
    """
    if not hits or not epsilon:
        return ratio(2 * hits, 2 * hits + wrong + missed)
    precision, recall = hits / (hits + wrong), hits / (hits + missed)
    return float(2 * precision * recall / (precision + recall + epsilon))


def binary_change_metrics(confusion: np.ndarray, epsilon: float = 0.0) -> dict[str, float | None]:
    """The published numbers of binary change detection from summed counts.

    Args:
        confusion: (2, 2) counts, rows truth, columns prediction, unchanged first.
        epsilon: see :func:`f1_score`.

    Returns:
        ``f1``, ``iou``, ``precision``, ``recall`` of the changed class, ``oa``, ``kappa``, and ``mf1``, ``miou`` averaged over
        both classes. A number whose denominator is empty because of the truth is None (no changed pixel anywhere); the
        precision of a prediction without a changed pixel is 0 where there was change to find.
    """
    (tn, fp), (fn, tp) = np.asarray(confusion, dtype=np.float64)
    f1, f1_unchanged = f1_score(tp, fp, fn, epsilon), f1_score(tn, fn, fp, epsilon)
    iou, iou_unchanged = ratio(tp, tp + fp + fn), ratio(tn, tn + fp + fn)
    return {
        "f1": f1,
        "iou": iou,
        "precision": 0.0 if tp + fp == 0 and fn > 0 else ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "oa": ratio(tp + tn, tp + tn + fp + fn),
        "kappa": cohen_kappa(np.array([[tn, fp], [fn, tp]])),
        "mf1": None if f1 is None or f1_unchanged is None else (f1 + f1_unchanged) / 2,
        "miou": None if iou is None or iou_unchanged is None else (iou + iou_unchanged) / 2,
    }


def mask_iou(confusion: np.ndarray) -> float:
    """IoU of the changed class of one image; 1 where neither truth nor prediction has change."""
    (_, fp), (fn, tp) = confusion
    union = tp + fp + fn
    return float(tp / union) if union else 1.0


class ClassCounts(NamedTuple):
    """What the metrics of K classes need of a confusion matrix: 4 K numbers that add up over images, however large K is.

    Each is (K,) in float64.
    """

    hits: np.ndarray
    """Pixels of the class that are predicted as it."""
    truth: np.ndarray
    """Pixels of the class, of those with a usable prediction."""
    predicted: np.ndarray
    """Pixels predicted as the class."""
    unusable: np.ndarray
    """Pixels of the class without a usable prediction, such as those of a mask that cannot be read."""

    @classmethod
    def of(cls, confusion: np.ndarray, unusable: np.ndarray | None = None) -> ClassCounts:
        """The counts of a (K, K) confusion matrix, rows truth."""
        confusion = np.asarray(confusion, dtype=np.float64)
        none = np.zeros(len(confusion)) if unusable is None else np.asarray(unusable, dtype=np.float64)
        return cls(confusion.diagonal().copy(), confusion.sum(axis=1), confusion.sum(axis=0), none)

    @classmethod
    def all_unusable(cls, truth: np.ndarray, valid: np.ndarray | None, classes: int) -> ClassCounts:
        """The counts of an image whose prediction cannot be used; (H, W) integer truth."""
        pixels = np.bincount((truth if valid is None else truth[valid]).ravel(), minlength=classes)
        none = np.zeros((classes, classes))
        return cls.of(none, pixels)

    def worst(self) -> ClassCounts:
        """The same with every unusable pixel missed in its own class and, at once, predicted as every other class.

        No wrong prediction is worse for any class, so an image cannot raise a metric of hits, misses and false alarms by having
        no prediction.
        """
        lost = self.unusable
        none = np.zeros_like(lost)
        return ClassCounts(self.hits, self.truth + lost, self.predicted + lost.sum() - lost, none)


def class_ious(counts: ClassCounts) -> list[float | None]:
    """IoU of each of K classes; None for a class that is neither true nor predicted anywhere."""
    hits, truth, predicted, _ = counts.worst()
    return [ratio(hit, whole) for hit, whole in zip(hits, truth + predicted - hits, strict=True)]


def mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Mean of the numbers that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def segmentation_metrics(counts: ClassCounts) -> dict[str, float | None]:
    """The usual numbers of semantic segmentation, as ``Evaluator`` of Chen-Yang-Liu/Change-Agent
    @Multi_change/utils_tool/metrics.py has them.

    Returns:
        ``miou`` (over classes that occur in truth or prediction), ``iou_0`` .. ``iou_{K-1}``, ``pixel_accuracy``,
        ``mean_pixel_accuracy`` (recall, over classes that occur in the truth), ``fwiou`` (IoU weighted by the truth's shares).
    """
    truth = counts.truth + counts.unusable
    total = float(truth.sum())
    ious = class_ious(counts)
    weighted = sum(pixels * (iou or 0.0) for pixels, iou in zip(truth, ious, strict=True))
    return {
        "miou": mean_of_defined(ious),
        **{f"iou_{place}": iou for place, iou in enumerate(ious)},
        "pixel_accuracy": ratio(counts.hits.sum(), total),
        "mean_pixel_accuracy": mean_of_defined([ratio(*pair) for pair in zip(counts.hits, truth, strict=True)]),
        "fwiou": ratio(weighted, total),
    }


def semantic_change_metrics(counts: ClassCounts) -> dict[str, float | None]:
    """Numbers of semantic change detection, class 0 = unchanged, as ``SCDD_eval_all`` of ggsDing/Bi-SRNet@utils/utils.py and
    ``Eval`` of its Eval_SCD.py have them (SeK: arXiv 2010.05687).

    Returns:
        ``iou_unchanged``, ``iou_changed`` of the two-class maps, ``miou`` their mean; ``fscd``, the F1 of changed pixels with
        the right class; ``kappa`` without the pixels that both call unchanged; ``sek`` = kappa exp(iou_changed - 1);
        ``score`` = 0.3 miou + 0.7 sek. All but ``iou_unchanged`` are None where neither side has a changed pixel. Where kappa
        is undefined (all changed pixels in one class, and agreed on) so are sek and score.
    """
    hits, truth, predicted, lost = counts
    missing, every = float(lost.sum()), truth + lost
    total, agreed = float(every.sum()), float(hits[0])
    both = float(truth.sum() - truth[0] - predicted[0]) + agreed
    iou_unchanged = ratio(agreed, float(truth[0] + predicted[0]) - agreed + missing)
    iou_changed = ratio(both, total - agreed)
    changed_hits = float(hits[1:].sum())
    fscd = ratio(2 * changed_hits, float(predicted[1:].sum()) + missing + float(every[1:].sum()))
    kappa = kappa_of_margins(changed_hits, *_without_agreed(every, predicted + _commonest_other(every, lost), agreed))
    miou = None if iou_unchanged is None or iou_changed is None else (iou_unchanged + iou_changed) / 2
    sek = None if kappa is None or iou_changed is None else kappa * math.exp(iou_changed - 1.0)
    score = None if miou is None or sek is None else 0.3 * miou + 0.7 * sek
    return {
        "sek": sek, "fscd": fscd, "miou": miou, "kappa": kappa, "score": score,
        "iou_unchanged": iou_unchanged, "iou_changed": iou_changed,
    }  # fmt: skip


def _without_agreed(truth: np.ndarray, predicted: np.ndarray, agreed: float) -> tuple[np.ndarray, np.ndarray]:
    unchanged = np.zeros_like(truth)
    unchanged[0] = agreed
    return truth - unchanged, predicted - unchanged


def _commonest_other(truth: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Lost pixels as predictions: each as the most common class of the truth but its own, the error that chance explains best."""
    placed = np.zeros_like(lost)
    order = np.argsort(-truth, kind="stable")
    for own, pixels in enumerate(lost):
        placed[order[0] if order[0] != own else order[1]] += pixels
    return placed
