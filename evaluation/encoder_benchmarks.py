"""What an encoder of images and texts is worth by itself: retrieval over captions and zero-shot classification, as pure functions of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsw_rewards.errors import InputError

DEPTHS = (1, 5, 10)
TEMPLATES = ("a satellite photo of {}.", "a satellite image of {}")
"""What SkyScript and FarSLIP put class names into (wangzhecheng/SkyScript@b16d2e7)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a benchmark of retrieval makes its texts."""

    text: Callable[[str], str]
    merged: bool
    """Whether equal texts are one query, for which the images of all of them are right."""


READINGS: Mapping[str, Reading] = {
    "remoteclip": Reading(str.capitalize, merged=False),
    "skyscript": Reading("a satellite image. {}".format, merged=True),
}
"""RemoteCLIP and GeoRSCLIP keep a query for every caption (ChenDelong1999/RemoteCLIP@a6a4787 ``retrieval.py``); SkyScript and FarSLIP merge equal ones."""


def normalised(features: np.ndarray) -> np.ndarray:
    """(n, d) float64 rows of length 1; a row of zeros stays."""
    wide = features.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(queries,) how many wrong answers stand before the first right one; of equal scores the wrong ones come first."""
    if not np.isfinite(scores).all():
        raise InputError("the encoder gives features that are not finite numbers")
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    return np.asarray(((scores >= best) & ~right).sum(1))


def retrieval(
    images: np.ndarray, texts: np.ndarray, right: np.ndarray, depths: Sequence[int] = DEPTHS
) -> dict[str, float]:
    """Recall at some depths, both ways, and their mean.

    Args:
        images: (n, d) features.
        texts: (m, d) features.
        right: (m, n) bool, which images a text is right for; each text and each image has one at least.
        depths: how far down the list is looked.

    Returns:
        ``image_to_text_r@k``: share of images with a right text among the first k. ``text_to_image_r@k`` likewise. ``mean_recall``: their mean.

    Raises:
        InputError: a feature is not finite.

    >>> eye = np.eye(3)
    >>> retrieval(eye, eye[[0, 1, 2, 2]], eye[[0, 1, 2, 2]] > 0, depths=(1,))
    {'image_to_text_r@1': 1.0, 'text_to_image_r@1': 1.0, 'mean_recall': 1.0}
    """
    scores = normalised(texts) @ normalised(images).T
    ways = {"image_to_text": _ranks(scores.T, right.T), "text_to_image": _ranks(scores, right)}
    found = {f"{way}_r@{depth}": float((ranks < depth).mean()) for way, ranks in ways.items() for depth in depths}
    return {**found, "mean_recall": sum(found.values()) / len(found)}


def class_features(
    encode: Callable[[Sequence[str]], np.ndarray], classes: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> np.ndarray:
    """(classes, d): the mean of the normalised features of a class in every template, normalised, as open_clip makes a classifier."""
    return normalised(
        np.stack([normalised(encode([template.format(name) for template in templates])).mean(0) for name in classes])
    )


def zero_shot_accuracy(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose own class is nearer than every other; of equal classes a wrong one counts.

    Args:
        images: (n, d) features.
        classes: (k, d) features of classes.
        labels: (n,) index of the true class.
    """
    scores = normalised(images) @ normalised(classes).T
    right = np.eye(len(classes), dtype=bool)[labels]
    return float((_ranks(scores, right) == 0).mean())
