"""Numbers of masks and class maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsw_rewards.core.image_values import as_array
from rsw_rewards.metrics.checked import public
from rsw_rewards.verifiers import confusion
from rsw_rewards.verifiers.semantic_change import contradictions, from_to


def _maps(predicted: Any, truth: Any, valid: Any, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Arrays of one shape that hold classes below ``classes``. Raises ``ValueError``."""
    arrays = [as_array(predicted), as_array(truth)]
    kept = None if valid is None else as_array(valid)
    if kept is not None and kept.dtype != bool:
        raise ValueError(f"valid pixels are an array of bool, not of {kept.dtype}")
    for name, array in zip(("prediction", "truth"), arrays, strict=True):
        if classes == 2 and array.dtype == bool:
            continue
        if array.dtype.kind not in "ui":
            kinds = "bool" if classes == 2 else "whole numbers"
            raise ValueError(f"the {name} is an array of {array.dtype}, not of {kinds}")
        counted = array if kept is None or kept.shape != array.shape else array[kept]
        if counted.size and not 0 <= counted.min() <= counted.max() < classes:
            raise ValueError(
                f"the {name} holds {counted.min()} to {counted.max()}; classes are 0 to {classes - 1}"
                + (", and a mask of other numbers is read by mask > 127 or mask > 0" if classes == 2 else "")
            )
    return arrays[0], arrays[1], kept


def _counts(predicted: Any, truth: Any, classes: int, valid: Any) -> np.ndarray:
    found, true, kept = _maps(predicted, truth, valid, classes)
    return confusion.confusion_matrix(true, found, kept, classes)


@public
def confusion_matrix(predicted: Any, truth: Any, classes: int = 2, valid: Any = None) -> np.ndarray:
    """Numbers of pixels, (classes, classes) int64: rows are the truth, columns the prediction.

    Matrices of several images add up; the other functions of masks take whole stacks of images too.

    Args:
        predicted, truth: (..., H, W) of one shape: bool, or whole numbers from 0 to ``classes`` - 1.
        classes: how many there are, at most 255.
        valid: (..., H, W) bool, the pixels that count; all by default.

    >>> rsw.metrics.confusion_matrix([[1, 0], [1, 0]], [[1, 1], [0, 0]])
    array([[1, 1],
           [1, 1]])
    """
    return _counts(predicted, truth, classes, valid)


@public
def f1(predicted: Any, truth: Any, valid: Any = None) -> float | None:
    """F1 (Dice) of the changed pixels of masks, in [0, 1]; None where neither mask has one.

    Args:
        predicted, truth, valid: see :func:`confusion_matrix`; 1 or True is changed.

    >>> rsw.metrics.f1([[1, 0], [1, 0]], [[1, 1], [0, 0]])
    0.5
    """
    return confusion.binary_change_metrics(_counts(predicted, truth, 2, valid))["f1"]


@public
def iou(predicted: Any, truth: Any, valid: Any = None) -> float | None:
    """Intersection over union of the changed pixels of masks, in [0, 1]; None where neither mask has one.

    Args:
        predicted, truth, valid: see :func:`confusion_matrix`; 1 or True is changed.

    >>> round(rsw.metrics.iou([[1, 0], [1, 0]], [[1, 1], [0, 0]]), 3)
    0.333
    """
    return confusion.binary_change_metrics(_counts(predicted, truth, 2, valid))["iou"]


@public
def kappa(predicted: Any, truth: Any, classes: int = 2, valid: Any = None) -> float | None:
    """Cohen's kappa of masks or class maps, in [-1, 1]: agreement beyond chance. None where chance alone would agree always.

    Args:
        predicted, truth, classes, valid: see :func:`confusion_matrix`.

    >>> rsw.metrics.kappa([[1, 0], [1, 0]], [[1, 1], [0, 0]])
    0.0
    """
    return confusion.cohen_kappa(_counts(predicted, truth, classes, valid))


@public
def miou(predicted: Any, truth: Any, classes: int, valid: Any = None) -> float | None:
    """Intersection over union, averaged over the classes that occur in either map, in [0, 1]; None for empty arrays.

    Args:
        predicted, truth, classes, valid: see :func:`confusion_matrix`.

    >>> rsw.metrics.miou([[0, 1], [2, 2]], [[0, 1], [2, 1]], classes=3)
    0.6666666666666666
    """
    counts = confusion.ClassCounts.of(_counts(predicted, truth, classes, valid))
    return confusion.segmentation_metrics(counts)["miou"]


Maps = tuple[Any, Any]
"""The class maps of the first and of the second date, 0 where nothing changed."""


def _semantic(predicted: Maps, truth: Maps, classes: int, joint: str) -> dict[str, float | None]:
    pairs = [_maps(now, then, None, classes)[:2] for now, then in zip(predicted, truth, strict=True)]
    if joint == "stacked":
        counts = sum(confusion.confusion_matrix(true, found, None, classes) for found, true in pairs)
        return confusion.semantic_change_metrics(confusion.ClassCounts.of(as_array(counts)))
    if joint != "from_to":
        raise ValueError(f"'joint' is stacked or from_to, not {joint!r}")
    transitions = []
    for (first, second), whose in zip(zip(*pairs, strict=True), ("predicted", "true"), strict=True):
        if contradictions(first, second).any():
            raise ValueError(f"the {whose} maps differ in which pixels are unchanged (0)")
        transitions.append(from_to(first.astype(np.uint8), second.astype(np.uint8), classes))
    joined = (classes - 1) ** 2 + 1
    matrix = confusion.confusion_matrix(transitions[1], transitions[0], None, joined)
    return confusion.semantic_change_metrics(confusion.ClassCounts.of(matrix))


@public
def sek(predicted: Maps, truth: Maps, classes: int = 7, joint: str = "stacked") -> float | None:
    """Separated kappa of semantic change (SeK), at most 1; None where neither side has a changed pixel.

    Args:
        predicted, truth: each the maps of both dates, (..., H, W) whole numbers below ``classes``, 0 where nothing changed.
        classes: of one date, with 0; 7 in SECOND, at most 16.
        joint: ``"stacked"`` counts both dates in one matrix, ``"from_to"`` counts transitions. Their numbers are not comparable.

    >>> before, after = np.array([[0, 1], [2, 3]]), np.array([[0, 2], [3, 1]])
    >>> rsw.metrics.sek((before, after), (before, after))
    1.0
    """
    return _semantic(predicted, truth, classes, joint)["sek"]


@public
def fscd(predicted: Maps, truth: Maps, classes: int = 7, joint: str = "stacked") -> float | None:
    """F1 of changed pixels with the right class (Fscd), in [0, 1]; None where neither side has a changed pixel.

    Args:
        predicted, truth, classes, joint: see :func:`sek`.

    >>> before, after = np.array([[0, 1], [2, 3]]), np.array([[0, 2], [3, 1]])
    >>> rsw.metrics.fscd((before, before), (before, after))
    0.5
    """
    return _semantic(predicted, truth, classes, joint)["fscd"]
