"""Functions that compare predictions with the truth: arrays and strings in, numbers out. They are what the verifiers compute with.

Every function takes the prediction first and the truth second. Images are arrays (H, W) or (H, W, C) of uint8, masks (H, W) of bool,
class maps (H, W) of whole numbers, features (n, d) of floats, captions texts. A number that the truth leaves undefined is None, never NaN.
Arguments of another kind raise :class:`rsw_rewards.InputError`. Functions that need an extra of the package say so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.verifiers import boxes, confusion, kernel_distances, label_sets, ngrams, numbers, paired, structure
from rsw_rewards.verifiers.caption_tokens import Tokens, make_tokeniser
from rsw_rewards.verifiers.frechet import frechet_from_features
from rsw_rewards.verifiers.meteor import Meteor, MeteorError
from rsw_rewards.verifiers.meteor import meteor as meteor_of_statistics
from rsw_rewards.verifiers.semantic_change import contradictions, from_to

__all__ = [
    "average_precision", "bleu", "box_iou", "cider", "cmmd", "confusion_matrix", "f1", "frechet_distance", "fscd", "gain_over_copy",
    "iou", "kappa", "kernel_distance", "l1", "mean_absolute_error", "meteor", "miou", "ms_ssim", "mse", "psnr", "relative_accuracy",
    "rouge_l", "sek", "ssim",
]  # fmt: skip

Images = Any
"""An array (H, W) or (H, W, C) of uint8, or what numpy makes one of (a PIL image)."""
Captions = str | Sequence[str]
References = str | Sequence[str] | Sequence[Sequence[str]]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def _public(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """The function with what it cannot use reported as an :class:`InputError` that names it."""

    @functools.wraps(function)
    def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise InputError(f"{function.__name__}: {error}") from error

    return checked


# Images


def _images(*images: Images) -> list[np.ndarray]:
    """Images as (H, W, C) uint8 of one shape. Raises ``ValueError``."""
    arrays = [np.asarray(image) for image in images]
    for array in arrays:
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise ValueError(
                f"an image is an array (H, W) or (H, W, C) of uint8 in 0..255, not {array.shape} of {array.dtype}"
            )
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"the images have the shapes {' and '.join(str(array.shape) for array in arrays)}")
    return [array[..., None] if array.ndim == 2 else array for array in arrays]


@_public
def ssim(predicted: Images, truth: Images) -> float:
    """Structural similarity of two images, in [-1, 1]; 1 for equal images.

    Wang et al. 2004: a Gaussian window of 11 x 11 pixels, averaged over channels and over pixels whose window lies inside the image.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape, at least 11 x 11 pixels.

    >>> image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> rsw.metrics.ssim(image, image)
    1.0
    >>> round(rsw.metrics.ssim(255 - image, image), 3)
    -0.826
    """
    first, second = _images(predicted, truth)
    inner = structure.interior(first.shape[:2])
    if not inner.any():
        raise ValueError(f"the window of 11 x 11 pixels does not fit into an image of {first.shape[:2]}")
    return float(structure.ssim_map(first, second)[inner].mean())


@_public
def ms_ssim(predicted: Images, truth: Images, scales: int = 5) -> float:
    """Structural similarity of two images over several scales, in [0, 1]; 1 for equal images.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape; at least 11 x 11 pixels are needed at the coarsest scale.
        scales: 1 to 5; every further one halves the images.

    >>> image = np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
    >>> rsw.metrics.ms_ssim(image, image, scales=2)
    1.0
    """
    first, second = _images(predicted, truth)
    if not 1 <= scales <= len(structure.SCALE_WEIGHTS):
        raise ValueError(f"scales must be 1 to {len(structure.SCALE_WEIGHTS)}, not {scales}")
    shares = structure.scale_weights(np.ones(first.shape[:2], bool), scales, inner=True)
    if not all(share.any() for share in shares):
        raise ValueError(f"images of {first.shape[:2]} are too small for {scales} scales")
    return structure.ms_ssim(first, second, shares)


def _error(distance: paired.Distance, *images: Images) -> float:
    first, second = _images(*images)
    return float(paired.error_map(first, second, distance).mean())


@_public
def mse(predicted: Images, truth: Images) -> float:
    """Mean squared error of two images, with pixels in [0, 1]: 0 for equal images, 1 for black against white.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape.

    >>> rsw.metrics.mse(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    1.0
    """
    return _error("mse", predicted, truth)


@_public
def l1(predicted: Images, truth: Images) -> float:
    """Mean absolute error of two images, with pixels in [0, 1]: 0 for equal images, 1 for black against white.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape.

    >>> rsw.metrics.l1(np.full((2, 2), 51, np.uint8), np.zeros((2, 2), np.uint8))
    0.2
    """
    return _error("l1", predicted, truth)


@_public
def psnr(predicted: Images, truth: Images) -> float:
    """Peak signal-to-noise ratio of two images in dB; 100 for equal images.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape.

    >>> rsw.metrics.psnr(np.full((2, 2), 51, np.uint8), np.zeros((2, 2), np.uint8))
    13.979400086720375
    """
    return paired.psnr(_error("mse", predicted, truth))


@_public
def gain_over_copy(predicted: Images, truth: Images, before: Images) -> float:
    """How much smaller the squared error of a forecast is than that of repeating the input: 1 is perfect, 0 as good as the copy.

    ``1 - mse(predicted, truth) / max(mse(before, truth), 0.003)``; worse forecasts are negative, without a limit.

    Args:
        predicted, truth, before: (H, W) or (H, W, C) uint8 of one shape; ``before`` is the image that the forecast starts from.

    >>> before, after = np.zeros((4, 4), np.uint8), np.full((4, 4), 100, np.uint8)
    >>> rsw.metrics.gain_over_copy(after, after, before), rsw.metrics.gain_over_copy(before, after, before)
    (1.0, 0.0)
    """
    copied = _error("mse", before, truth)
    return paired.gain_over_copy(_error("mse", predicted, truth), copied, paired.MIN_CHANGE["mse"])


# Masks and class maps


def _maps(predicted: Any, truth: Any, valid: Any, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Arrays of one shape that hold classes below ``classes``. Raises ``ValueError``."""
    arrays = [np.asarray(predicted), np.asarray(truth)]
    kept = None if valid is None else np.asarray(valid)
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


@_public
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


@_public
def f1(predicted: Any, truth: Any, valid: Any = None) -> float | None:
    """F1 (Dice) of the changed pixels of masks, in [0, 1]; None where neither mask has one.

    Args:
        predicted, truth, valid: see :func:`confusion_matrix`; 1 or True is changed.

    >>> rsw.metrics.f1([[1, 0], [1, 0]], [[1, 1], [0, 0]])
    0.5
    """
    return confusion.binary_change_metrics(_counts(predicted, truth, 2, valid))["f1"]


@_public
def iou(predicted: Any, truth: Any, valid: Any = None) -> float | None:
    """Intersection over union of the changed pixels of masks, in [0, 1]; None where neither mask has one.

    Args:
        predicted, truth, valid: see :func:`confusion_matrix`; 1 or True is changed.

    >>> round(rsw.metrics.iou([[1, 0], [1, 0]], [[1, 1], [0, 0]]), 3)
    0.333
    """
    return confusion.binary_change_metrics(_counts(predicted, truth, 2, valid))["iou"]


@_public
def kappa(predicted: Any, truth: Any, classes: int = 2, valid: Any = None) -> float | None:
    """Cohen's kappa of masks or class maps, in [-1, 1]: agreement beyond chance. None where chance alone would agree always.

    Args:
        predicted, truth, classes, valid: see :func:`confusion_matrix`.

    >>> rsw.metrics.kappa([[1, 0], [1, 0]], [[1, 1], [0, 0]])
    0.0
    """
    return confusion.cohen_kappa(_counts(predicted, truth, classes, valid))


@_public
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
        return confusion.semantic_change_metrics(confusion.ClassCounts.of(np.asarray(counts)))
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


@_public
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


@_public
def fscd(predicted: Maps, truth: Maps, classes: int = 7, joint: str = "stacked") -> float | None:
    """F1 of changed pixels with the right class (Fscd), in [0, 1]; None where neither side has a changed pixel.

    Args:
        predicted, truth, classes, joint: see :func:`sek`.

    >>> before, after = np.array([[0, 1], [2, 3]]), np.array([[0, 2], [3, 1]])
    >>> rsw.metrics.fscd((before, before), (before, after))
    0.5
    """
    return _semantic(predicted, truth, classes, joint)["fscd"]


# Captions


def _pairs(captions: Captions, references: References, tokens: Tokens) -> list[ngrams.Match]:
    """The captions beside their references, in tokens. Raises ``ValueError``."""
    if isinstance(captions, str):
        captions, references = [captions], [references]  # type: ignore[list-item]
    if isinstance(references, str) or len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions need as many lists of references, not {len(references)}")
    tokenise = make_tokeniser(tokens)
    sets = [
        ngrams.ReferenceSet(tokenise(text) for text in ([one] if isinstance(one, str) else one)) for one in references
    ]
    return [one.match(tokenise(caption)) for caption, one in zip(captions, sets, strict=True)]


@_public
def bleu(captions: Captions, references: References, order: int = 4, tokens: Tokens = "ptb") -> float:
    """BLEU of a caption or of a corpus of captions, in [0, 1], as coco-caption computes it.

    Args:
        captions: one text or several; of several, counts are summed before the score is taken.
        references: for one caption a text or a list of texts, for several a list of such lists.
        order: longest n-gram, 1 to 4.
        tokens: ``"ptb"`` (coco-caption) or ``"words"`` between blanks.

    >>> round(rsw.metrics.bleu("a road is here", ["a new road was built", "a road is new"], order=2), 3)
    0.707
    """
    if not 1 <= order <= ngrams.ORDERS:
        raise ValueError(f"order must be 1 to {ngrams.ORDERS}, not {order}")
    counts = np.sum([match.bleu_counts() for match in _pairs(captions, references, tokens)], axis=0)
    return min(1.0, ngrams.bleu(counts.tolist(), order)[-1])


@_public
def rouge_l(captions: Captions, references: References, tokens: Tokens = "ptb") -> float:
    """ROUGE-L of a caption, or its mean over captions, in [0, 1].

    Args:
        captions, references, tokens: see :func:`bleu`.

    >>> round(rsw.metrics.rouge_l("a road was built", ["a new road was built"]), 3)
    0.871
    """
    return float(np.mean([match.references.rouge_l(match.tokens) for match in _pairs(captions, references, tokens)]))


@_public
def cider(captions: Sequence[str], references: Sequence[Sequence[str]], tokens: Tokens = "ptb") -> float:
    """CIDEr-D of a corpus of captions, in [0, 10]; often printed times 100.

    The weight of a word follows from how many of these references have it, so that the number of a subset is another one, and that
    of captions which all have the same references is 0.

    Args:
        captions: two texts or more.
        references: a list of texts for every caption.
        tokens: see :func:`bleu`.

    >>> rsw.metrics.cider(["a road was built", "trees were cut"], [["a road was built"], ["trees were cut down"]])
    7.94...
    """
    if isinstance(captions, str) or len(captions) < 2:
        raise ValueError("CIDEr counts words over a corpus; give two captions or more")
    matches = _pairs(captions, references, tokens)
    scorer = ngrams.CiderD(ngrams.DocumentFrequency.of(match.references for match in matches))
    return float(np.mean([scorer.score(match) for match in matches]))


@_public
def meteor(captions: Captions, references: References, tokens: Tokens = "ptb") -> float:
    """METEOR 1.5 of a caption or of a corpus of captions, in [0, 1]. Needs `[meteor]` and Java.

    Starts METEOR's Java program, which takes seconds to load: give all captions at once.

    Args:
        captions, references, tokens: see :func:`bleu`.

    Raises:
        ConfigError: the program or Java is missing, or it does not answer.

    >>> round(rsw.metrics.meteor("a road was built", ["a new road was built"]), 3)  # doctest: +SKIP
    0.423
    """
    matches = _pairs(captions, references, tokens)
    program = Meteor()
    try:
        statistics = program.stats([(match.tokens, match.references.references) for match in matches])
    except MeteorError as error:
        raise ConfigError(str(error)) from error
    finally:
        program.close()
    return meteor_of_statistics(np.sum(statistics, axis=0))


# Boxes, labels and numbers


@_public
def box_iou(predicted: Sequence[float], truth: Sequence[float]) -> float:
    """Intersection over union of two boxes, in [0, 1].

    Args:
        predicted, truth: ``[x1, y1, x2, y2]``, or the eight coordinates of the corners of a rotated box, in pixels.

    >>> rsw.metrics.box_iou([0, 0, 2, 2], [1, 0, 3, 2])
    0.3333333333333333
    >>> rsw.metrics.box_iou([1, 0, 2, 1, 1, 2, 0, 1], [0, 0, 2, 2])
    0.5
    """
    first, second = (boxes.parse_box(np.asarray(box).tolist()) for box in (predicted, truth))
    return boxes.box_iou(first, second)


@_public
def average_precision(scores: Any, truth: Any) -> float | None:
    """Area under the steps of precision over recall, in [0, 1]; None where nothing is true. As in scikit-learn.

    Args:
        scores: (n,) floats, higher is surer.
        truth: (n,) bool.

    >>> rsw.metrics.average_precision([0.9, 0.8, 0.1], [True, False, True])
    0.8333333333333333
    """
    given, true = np.asarray(scores, np.float64), np.asarray(truth)
    if given.ndim != 1 or given.shape != true.shape or np.isnan(given).any():
        raise ValueError(f"scores and truth must be (n,) and without NaN, not {given.shape} and {true.shape}")
    return label_sets.average_precision(true.astype(bool), given)


@_public
def relative_accuracy(predicted: float, truth: float) -> float:
    """Mean relative accuracy of a number, in [0, 1], as VSI-Bench has it.

    The share of ten limits 0.50, 0.45 .. 0.05 that ``|predicted - truth| / |truth|`` stays below or meets.

    >>> rsw.metrics.relative_accuracy(110, 100)
    0.9
    """
    return numbers.relative_accuracy(float(predicted), float(truth))


@_public
def mean_absolute_error(predicted: Any, truth: Any) -> float:
    """Mean of the absolute differences of numbers, in their own unit. For images see :func:`l1`.

    Args:
        predicted, truth: arrays of one shape, without NaN.

    >>> rsw.metrics.mean_absolute_error([1.0, 4.0], [2.0, 2.0])
    1.5
    """
    found, true = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if found.shape != true.shape or not found.size:
        raise ValueError(f"arrays of one shape are needed, with a number at least, not {found.shape} and {true.shape}")
    error = float(np.abs(found - true).mean())
    if not np.isfinite(error):
        raise ValueError("the arrays hold values that are not finite")
    return error


# Sets of features


@_public
def frechet_distance(predicted: Any, truth: Any) -> float:
    """Squared Frechet distance of two sets of features: the FID, where they are Inception features. Needs `[torch]`.

    Exact for any number of rows, with covariances over n - 1. It grows as sets become smaller: compare only sets of one size.

    Args:
        predicted, truth: (n, d) and (m, d) floats, n, m >= 2.

    >>> features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(rsw.metrics.frechet_distance(features + [3.0, 4.0], features), 6)
    25.0
    """
    return frechet_from_features(np.asarray(predicted), np.asarray(truth))


@_public
def kernel_distance(predicted: Any, truth: Any) -> float:
    """Squared maximum mean discrepancy of two sets of features under the cubic kernel of KID, without bias.

    What KID estimates on random subsets, on the whole sets; slightly negative where the sets are alike.

    Args:
        predicted, truth: (n, d) and (m, d) floats, n, m >= 2.

    >>> features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> rsw.metrics.kernel_distance(features + 1.0, features) > rsw.metrics.kernel_distance(features, features)
    True
    """
    return kernel_distances.polynomial_mmd(np.asarray(predicted), np.asarray(truth))


@_public
def cmmd(predicted: Any, truth: Any) -> float:
    """CMMD of two sets of CLIP features, times 1000 (Jayasumana et al. 2024): 0 for equal sets.

    Args:
        predicted, truth: (n, d) and (m, d) floats, n, m >= 2; rows are brought to unit length.

    >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> rsw.metrics.cmmd(features, features)
    0.0
    """
    return kernel_distances.cmmd(np.asarray(predicted), np.asarray(truth))
