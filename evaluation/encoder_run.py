"""An encoder on samples: which of the two measures fits them, what it reads and sees, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rsw_rewards.core.records import Sample, Task
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.encoder_benchmarks import (
    DEPTHS,
    READINGS,
    TEMPLATES,
    class_features,
    retrieval,
    zero_shot_accuracy,
)
from rsw_rewards.io.images import read_rgb

MICRO_BATCH = 32


def measure_encoder(encoder: Any, samples: Sequence[Sample], reading: str, templates: Sequence[str]) -> dict[str, Any]:
    """What :func:`rsw_rewards.evaluate_encoder` gives back.

    Args:
        encoder: with ``encode_images`` and ``encode_texts``.
        samples: of one task, each with one image.
        reading: a name of :data:`READINGS`, for captions.
        templates: for names of classes; :data:`TEMPLATES` where empty.

    Raises:
        InputError: the samples are of neither task, have several images, or lack a caption or a label.
        ConfigError: the encoder reads no text, or a template has no place for a name.
    """
    tasks = {sample.task for sample in samples}
    if len(tasks) != 1 or not tasks <= {Task.CHANGE_CAPTION, Task.CLASSIFICATION}:
        raise InputError(
            f"an encoder is measured on samples of change_caption or of classification; these are {', '.join(sorted(tasks))}"
        )
    if several := next((sample.id for sample in samples if len(sample.images) != 1), None):
        raise InputError(
            f"the sample {several!r} must have exactly one image for retrieval and zero-shot classification"
        )
    if not hasattr(encoder, "encode_texts"):
        raise ConfigError(f"the encoder {getattr(encoder, 'id', encoder)!r} reads no text; it has no encode_texts")
    if tasks == {Task.CHANGE_CAPTION}:
        found = {"reading": reading, **_retrieval(encoder, samples, reading)}
    else:
        chosen = list(templates) or list(TEMPLATES)
        found = {"templates": chosen, **_zero_shot(encoder, samples, chosen)}
    return {
        "encoder": encoder.id,
        "weights_sha256": encoder.weights_sha256,
        "task": str(samples[0].task),
        "n_images": len(samples),
        **found,
    }


def _retrieval(encoder: Any, samples: Sequence[Sample], reading: str) -> dict[str, Any]:
    rule = READINGS[reading]
    pairs = [
        (rule.text(str(caption)), place)
        for place, sample in enumerate(samples)
        for caption in sample.reference.get("captions") or ()
    ]
    if len({place for _, place in pairs}) < len(samples):
        raise InputError("a sample has no caption; retrieval needs one for every image")
    keys = [text if rule.merged else (text, number) for number, (text, _) in enumerate(pairs)]
    query = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    right = np.zeros((len(query), len(samples)), bool)
    for key, (_, place) in zip(keys, pairs, strict=True):
        right[query[key], place] = True
    texts = _read(encoder, [key if isinstance(key, str) else key[0] for key in query])
    return {
        "n_texts": len(query),
        "metrics": retrieval(_seen(encoder, samples), texts, right),
        "chance": {f"text_to_image_r@{depth}": min(1.0, depth / len(samples)) for depth in DEPTHS},
    }


def _zero_shot(encoder: Any, samples: Sequence[Sample], templates: Sequence[str]) -> dict[str, Any]:
    names = list(dict.fromkeys(str(name) for one in samples for name in one.reference.get("vocabulary") or ()))
    labels = [str(one.reference.get("label")) for one in samples]
    if lacking := set(labels) - set(names):
        raise InputError(f"the label {min(lacking)!r} is in no vocabulary of the samples")
    if bad := next((template for template in templates if template.count("{}") != 1), None):
        raise ConfigError(f"a template holds {{}} once, for the name of a class; {bad!r} does not")
    classes = class_features(lambda texts: _read(encoder, texts), names, templates)
    numbers = np.array([names.index(label) for label in labels])
    return {
        "n_texts": len(names),
        "metrics": {"zero_shot_accuracy": zero_shot_accuracy(_seen(encoder, samples), classes, numbers)},
        "chance": {"zero_shot_accuracy": 1 / len(names)},
    }


def _read(encoder: Any, texts: Sequence[str]) -> np.ndarray:
    return _in_parts(texts, lambda part: encoder.encode_texts(part, MICRO_BATCH))


def _seen(encoder: Any, samples: Sequence[Sample]) -> np.ndarray:
    return _in_parts(
        samples, lambda part: encoder.encode_images([read_rgb(one.images[0]) for one in part], MICRO_BATCH)
    )


def _in_parts(items: Sequence[Any], encode: Callable[[Sequence[Any]], np.ndarray]) -> np.ndarray:
    """(n, d) features, a few items at a time, so that not all images are in memory."""
    return np.concatenate([encode(items[start : start + MICRO_BATCH]) for start in range(0, len(items), MICRO_BATCH)])
