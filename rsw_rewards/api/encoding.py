"""What an encoder is worth: retrieval and zero-shot classification on samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.api.common import File, check_device
from rsw_rewards.core.fields import limit_of
from rsw_rewards.errors import ConfigError, did_you_mean
from rsw_rewards.io.in_memory import as_samples


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
    """Evaluate an encoder of images and texts: retrieval, or zero-shot accuracy.

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
    from rsw_rewards.core.files import write_json
    from rsw_rewards.encoders import load_encoder
    from rsw_rewards.evaluation.encoder_benchmarks import READINGS
    from rsw_rewards.evaluation.encoder_run import measure_encoder

    if reading not in READINGS:
        raise ConfigError(f"there is no reading {reading!r} of captions; {did_you_mean(reading, READINGS)}")
    check_device(device)
    asked = as_samples(samples, [Path(root) for root in roots])[: limit_of(limit)]
    used = load_encoder(encoder, device) if isinstance(encoder, str) else encoder
    found = measure_encoder(used, asked, reading, templates)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_json(Path(out) / "encoder.json", found)
    return found
