"""Numbers of boxes, ranked labels and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsw_rewards.core.image_values import as_array
from rsw_rewards.metrics.checked import public
from rsw_rewards.verifiers import boxes, label_sets, numbers


@public
def box_iou(predicted: Sequence[float], truth: Sequence[float]) -> float:
    """Intersection over union of two boxes, in [0, 1].

    Args:
        predicted, truth: ``[x1, y1, x2, y2]``, or the eight coordinates of the corners of a rotated box, in pixels.

    >>> rsw.metrics.box_iou([0, 0, 2, 2], [1, 0, 3, 2])
    0.3333333333333333
    >>> rsw.metrics.box_iou([1, 0, 2, 1, 1, 2, 0, 1], [0, 0, 2, 2])
    0.5
    """
    first, second = (boxes.parse_box(as_array(box).tolist()) for box in (predicted, truth))
    return boxes.box_iou(first, second)


@public
def average_precision(scores: Any, truth: Any) -> float | None:
    """Area under the steps of precision over recall, in [0, 1]; None where nothing is true. As in scikit-learn.

    Args:
        scores: (n,) floats, higher is surer.
        truth: (n,) bool.

    >>> rsw.metrics.average_precision([0.9, 0.8, 0.1], [True, False, True])
    0.8333333333333333
    """
    given, true = as_array(scores).astype(np.float64), as_array(truth)
    if given.ndim != 1 or given.shape != true.shape or np.isnan(given).any():
        raise ValueError(f"scores and truth must be (n,) and without NaN, not {given.shape} and {true.shape}")
    return label_sets.average_precision(true.astype(bool), given)


@public
def relative_accuracy(predicted: float, truth: float) -> float:
    """Mean relative accuracy of a number, in [0, 1], as VSI-Bench has it.

    The share of ten limits 0.50, 0.45 .. 0.05 that ``|predicted - truth| / |truth|`` stays below or meets.

    >>> rsw.metrics.relative_accuracy(110, 100)
    0.9
    """
    return numbers.relative_accuracy(float(predicted), float(truth))


@public
def mean_absolute_error(predicted: Any, truth: Any) -> float:
    """Mean of the absolute differences of numbers, in their own unit. For images see :func:`l1`.

    Args:
        predicted, truth: arrays of one shape, without NaN.

    >>> rsw.metrics.mean_absolute_error([1.0, 4.0], [2.0, 2.0])
    1.5
    """
    found, true = as_array(predicted).astype(np.float64), as_array(truth).astype(np.float64)
    if found.shape != true.shape or not found.size:
        raise ValueError(f"arrays of one shape are needed, with a number at least, not {found.shape} and {true.shape}")
    error = float(np.abs(found - true).mean())
    if not np.isfinite(error):
        raise ValueError("the arrays hold values that are not finite")
    return error
