"""What all baselines share: one rule per sample, one candidate, no chance."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_rgb
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request


class Baseline(Policy):
    """A policy of one rule per sample; it makes one candidate and knows no chance."""

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        outputs = []
        for sample in (request.sample for request in requests):
            try:
                outputs.append(self.answer(sample))
            except ImageError as error:
                outputs.append(Output(sample.id, lost=str(error)))  # the sample's picture is the data's fault
            except KeyError as error:  # so is a truth that it does not have
                outputs.append(Output(sample.id, lost=f"sample {sample.id!r} has no reference.{error.args[0]}"))
        return outputs

    @abstractmethod
    def answer(self, sample: Sample) -> Output:
        """The one output for a sample."""


def in_memory(pixels: np.ndarray) -> ImageRef:
    """Pixels as an image reference that knows its content."""
    return ImageRef(array=pixels, sha256=content_hash(pixels))


def stored(sample: Sample, image: ImageRef) -> np.ndarray:
    """What a forecast like ``image`` of a sample is made of: of a raster all bands in its own numbers, (H, W, C), otherwise RGB in uint8.

    Raises:
        ImageError: the image cannot be read.
    """
    if not is_raster(sample, image):
        return read_rgb(image)
    pixels = image.pixels()
    return pixels[..., None] if pixels.ndim == 2 else pixels


def is_raster(sample: Sample, image: ImageRef) -> bool:
    """Whether an image of a sample is more than a picture: its bands are named, or it is said how they are shown."""
    return image.is_mapped or bool(sample.metadata.get("bands"))


def drawn_as(image: ImageRef, values: np.ndarray, dtype: np.dtype[Any]) -> ImageRef:
    """Values in the numbers of ``image``, rounded where its type is whole, and shown as it is."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(np.nan_to_num(values)), limits.min, limits.max)
    pixels = values.astype(dtype)
    return ImageRef(array=pixels, sha256=content_hash(pixels), bands=image.bands, stretch=image.stretch)


def whole_future(sample: Sample, image: ImageRef) -> Output:
    """One image as all the images that a forecast sample asks for."""
    steps = len(sample.reference.get("images") or ())
    return Output(sample.id, images=(image,) * steps) if steps > 1 else Output(sample.id, image=image)


def listed(labels: Iterable[object], separator: str = ", ") -> str:
    """A set of labels as an answer: joined by the separator, or a JSON list where a label itself holds a separator."""
    words = [str(label) for label in labels]
    return json.dumps(words) if any(mark in word for word in words for mark in ",;\n") else separator.join(words)


def true_text(sample: Sample) -> str | None:
    """The text that answers a sample best: its answer (of several annotators, the most common), its label, all its labels, its
    first caption, or its list of changes. None where the sample has none."""
    reference = sample.reference
    if answers := reference.get("answers"):
        return str(answers[0]) if len(answers) == 1 else Counter(map(str, answers)).most_common(1)[0][0]
    if reference.get("label") is not None:
        return str(reference["label"])
    if reference.get("labels") is not None:
        return listed(reference["labels"]) or "none"
    if captions := reference.get("captions"):
        return str(captions[0])
    if (changes := reference.get("changes")) is not None:
        return json.dumps(changes)
    return None
