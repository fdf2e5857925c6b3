"""What an encoder is worth: retrieval and zero-shot classification on samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.api.common import File, check_device
from rsw_rewards.core.fields import limit_of
from rsw_rewards.errors import ConfigError, InputError, did_you_mean
from rsw_rewards.io.in_memory import as_samples

MICRO_BATCH = 32


def evaluate_encoder(
    encoder: Any,
    samples: Any,
    out: File | None = None,
    *,
    reading: str = "remoteclip",
    templates: Sequence[str] = (),
    roots: Sequence[File] = (),
    limit: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Recall of captions and images, or zero-shot accuracy, of an encoder with a text tower.

    Args:
        encoder: a name of :func:`names` or an object; see :class:`Encoder`.
        samples: of the task ``change_caption``, each with one image, for retrieval; or ``classification`` with a vocabulary. A file, or records.
        out: a folder to write ``encoder.json`` to.
        reading: of captions: ``remoteclip`` (each with a capital, equal ones are queries of their own) or ``skyscript`` (behind "a satellite
            image. ", equal ones are one query).
        templates: texts with ``{}`` for the name of a class; those of SkyScript where left out.
        roots, limit, device: as for :func:`evaluate`.

    Returns:
        ``encoder``, ``weights_sha256``, ``task``, ``reading`` or ``templates``, ``n_images``, ``n_texts``, ``metrics``, and ``chance``: what guessing reaches.

    Raises:
        InputError: the samples are of neither task, or have several images.
        ConfigError: there is no such encoder or reading, or its weights cannot be had.

    >>> class Colour:
    ...     name, weights_sha256, dim, id = "colour", "0" * 64, 3, "colour@1"
    ...
    ...     def encode_images(self, images, micro_batch):
    ...         return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)
    ...
    ...     def encode_texts(self, texts, micro_batch):
    ...         return np.array([["red" in text, "green" in text, "blue" in text] for text in texts], np.float32)
    >>> scenes = [
    ...     {"task": "classification", "images": [np.full((4, 4, 3), np.eye(3, dtype=np.uint8)[n] * 255)], "reference": {"label": name, "vocabulary": ["red", "green", "blue"]}}
    ...     for n, name in enumerate(["red", "green", "blue"])
    ... ]
    >>> rsw.evaluate_encoder(Colour(), scenes)["metrics"]
    {'zero_shot_accuracy': 1.0}
    """
    import numpy as np

    from rsw_rewards.core.files import write_json
    from rsw_rewards.core.records import Task
    from rsw_rewards.encoders import load_encoder
    from rsw_rewards.evaluation import encoder_benchmarks as benchmarks
    from rsw_rewards.io.images import read_rgb

    if reading not in benchmarks.READINGS:
        raise ConfigError(f"there is no reading {reading!r} of captions; {did_you_mean(reading, benchmarks.READINGS)}")
    check_device(device)
    asked = as_samples(samples, [Path(root) for root in roots])[: limit_of(limit)]
    tasks = {sample.task for sample in asked}
    if len(tasks) != 1 or not tasks <= {Task.CHANGE_CAPTION, Task.CLASSIFICATION}:
        raise InputError(
            f"an encoder is measured on samples of change_caption or of classification; these are {', '.join(sorted(tasks))}"
        )
    if several := next((sample.id for sample in asked if len(sample.images) != 1), None):
        raise InputError(f"the sample {several!r} has not one image, which retrieval and zero-shot classification need")
    used = load_encoder(encoder, device) if isinstance(encoder, str) else encoder

    if not hasattr(used, "encode_texts"):
        raise ConfigError(f"the encoder {getattr(used, 'id', used)!r} reads no text; it has no encode_texts")

    def encode(items: Sequence[Any], how: Any) -> np.ndarray:
        parts = [how(items[start : start + MICRO_BATCH], MICRO_BATCH) for start in range(0, len(items), MICRO_BATCH)]
        return np.concatenate(parts)

    def pictures() -> np.ndarray:
        parts = [
            used.encode_images([read_rgb(one.images[0]) for one in asked[start : start + MICRO_BATCH]], MICRO_BATCH)
            for start in range(0, len(asked), MICRO_BATCH)
        ]
        return np.concatenate(parts)

    found: dict[str, Any] = {
        "encoder": used.id,
        "weights_sha256": used.weights_sha256,
        "task": str(next(iter(tasks))),
        "n_images": len(asked),
    }
    if tasks == {Task.CHANGE_CAPTION}:
        rule = benchmarks.READINGS[reading]
        pairs = [
            (rule.text(str(caption)), place)
            for place, one in enumerate(asked)
            for caption in one.reference.get("captions") or ()
        ]
        if len({place for _, place in pairs}) < len(asked):
            raise InputError("a sample has no caption, so that no text could find its image")
        keys = [text if rule.merged else (text, number) for number, (text, _) in enumerate(pairs)]
        query = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        right = np.zeros((len(query), len(asked)), bool)
        for key, (_, place) in zip(keys, pairs, strict=True):
            right[query[key], place] = True
        texts = encode([key if isinstance(key, str) else key[0] for key in query], used.encode_texts)
        found |= {"reading": reading, "n_texts": len(query), "metrics": benchmarks.retrieval(pictures(), texts, right),
                  "chance": {f"text_to_image_r@{depth}": min(1.0, depth / len(asked)) for depth in benchmarks.DEPTHS}}  # fmt: skip
    else:
        names = list(dict.fromkeys(str(name) for one in asked for name in one.reference.get("vocabulary") or ()))
        labels = [str(one.reference.get("label")) for one in asked]
        if lacking := set(labels) - set(names):
            raise InputError(f"the label {min(lacking)!r} is in no vocabulary of the samples")
        chosen = list(templates) or list(benchmarks.TEMPLATES)
        if bad := next((template for template in chosen if template.count("{}") != 1), None):
            raise ConfigError(f"a template holds {{}} once, for the name of a class; {bad!r} does not")
        classes = benchmarks.class_features(lambda texts: encode(texts, used.encode_texts), names, chosen)
        accuracy = benchmarks.zero_shot_accuracy(
            pictures(), classes, np.array([names.index(label) for label in labels])
        )
        found |= {
            "templates": chosen,
            "n_texts": len(names),
            "metrics": {"zero_shot_accuracy": accuracy},
            "chance": {"zero_shot_accuracy": 1 / len(names)},
        }
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_json(Path(out) / "encoder.json", found)
    return found
