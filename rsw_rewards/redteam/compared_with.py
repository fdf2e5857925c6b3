"""The outputs that attacks are compared with: the truth, and a mediocre output that tries to answer and makes usual mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.io.images import read_index, read_mask
from rsw_rewards.redteam.kit import Pool
from rsw_rewards.rollouts.baselines import Oracle, true_text
from rsw_rewards.rollouts.baselines.base import drawn_as, in_memory, stored
from rsw_rewards.rollouts.baselines.pictures import newest
from rsw_rewards.verifiers.caption_base import is_changed
from rsw_rewards.verifiers.maps import in_levels

RIGHT = 3
"""Of four closed questions, a mediocre answerer has this many right."""

MEDIOCRE = {
    Task.CHANGE_CAPTION: "another person's caption of the same pair, cut after two thirds of its words; of an unchanged pair, a true sentence",
    Task.CHANGE_QA: "right on three of four samples, and another answer on the fourth",
    Task.CLASSIFICATION: "right on three of four samples, and another label on the fourth",
    Task.FORECAST: "half way between the newest input and the truth; without an input, the truth under a blur of two pixels",
    Task.CHANGE_MASK: "the truth, drawn a 32nd of the side off",
    Task.SEMANTIC_CHANGE: "the truth, drawn a 32nd of the side off",
    Task.DAMAGE: "the truth, drawn a 32nd of the side off",
    Task.GROUNDING: "the truth, drawn a quarter of its own size off; a mask a 32nd of the side",
}
"""What a mediocre output is, by task."""


def as_scored(sample: Sample) -> Sample:
    """A sample as outputs are scored on it: of a changed pair with several captions, the last is kept for the mediocre output."""
    captions = sample.reference.get("captions")
    if sample.task is not Task.CHANGE_CAPTION or not captions or len(captions) < 2 or not is_changed(sample):
        return sample
    return replace(sample, reference={**sample.reference, "captions": list(captions[:-1]), "changed": True})


def truth(sample: Sample) -> Output:
    """The truth as an output. Raises ``KeyError`` where the sample has none."""
    return Oracle().answer(sample)


def mediocre(sample: Sample, pool: Pool) -> Output | None:
    """A mediocre output for a sample, as :data:`MEDIOCRE` says; None where none can be made.

    Args:
        sample: as it is in the file, not as it is scored.
        pool: all samples of its task.
    """
    if OUTPUT_FIELDS[sample.task] == ("text",):
        text = _caption(sample) if sample.task is Task.CHANGE_CAPTION else _answer(sample, pool)
        return None if text is None else Output(sample.id, text=text)
    if sample.task is Task.FORECAST:
        return _forecast(sample)
    if sample.task is Task.GROUNDING and "mask" not in sample.reference:
        return Output(sample.id, boxes=tuple(map(_shifted_box, sample.reference["boxes"])))
    true = truth(sample)
    moved: dict[str, Any] = {
        name: _shifted(image)
        for name in OUTPUT_FIELDS[sample.task]
        if isinstance(image := getattr(true, name), ImageRef)
    }
    return replace(true, **moved)


def _caption(sample: Sample) -> str:
    captions = [str(caption) for caption in sample.reference["captions"]]
    if not is_changed(sample):
        return captions[0]
    words = captions[-1].rstrip(" .").split()
    return " ".join(words[: max(3, -(-2 * len(words) // 3))])


def _answer(sample: Sample, pool: Pool) -> str | None:
    changes = sample.reference.get("changes")
    if pool.number(sample, "mediocre") % 4 < RIGHT:
        return true_text(sample)
    return "[]" if changes else pool.wrong_text(sample)


def _forecast(sample: Sample) -> Output:
    from scipy.ndimage import gaussian_filter

    made = []
    for future in sample.reference["images"]:
        true = stored(sample, future).astype(np.float64)
        start = stored(sample, newest(sample)) if sample.images else None
        if start is not None and start.shape == true.shape:
            drawn = (start.astype(np.float64) + true) / 2
        else:
            drawn = gaussian_filter(true, (2, 2, 0))
        made.append(drawn_as(future, drawn, stored(sample, future).dtype))
    return Output(sample.id, images=tuple(made)) if len(made) > 1 else Output(sample.id, image=made[0])


def true_pixels(image: ImageRef) -> np.ndarray:
    """A true mask or map as (H, W) uint8: a mask of 0 and 255, or the indices of a map."""
    if image.levels is None and image.palette is None:
        plain = image.pixels(bands=1)
        has_indices = plain.ndim == 2 and plain.dtype == np.uint8 and bool(set(np.unique(plain)) - {0, 255})
    else:
        has_indices = len(image.levels or image.palette or ()) > 2
    return read_index(image).astype(np.uint8) if has_indices else read_mask(image).astype(np.uint8) * 255


def _shifted(image: ImageRef) -> ImageRef:
    pixels = true_pixels(image)
    return in_memory(np.roll(pixels, max(1, pixels.shape[1] // 32), axis=1))


def _shifted_box(box: list[float]) -> tuple[float, ...]:
    xs = np.array(box[::2], float)
    moved = np.array(box, float)
    moved[::2] += (xs.max() - xs.min()) / 4
    return tuple(moved.tolist())


def true_levels(sample: Sample) -> ImageRef | None:
    """The true mask of a sample with its declared levels; None where it has none."""
    mask = sample.reference.get("mask")
    return in_levels(mask, sample.reference.get("levels")) if isinstance(mask, ImageRef) else None
