"""Held-out outputs before and after training, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.evaluation.gallery import data_uri, shortened, truth_of
from rsw_rewards.io.images import read_rgb
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.verifiers.forecast_case import as_future

_RAMP = np.array([(32, 36, 42), (0, 114, 178), (86, 180, 233), (240, 228, 66), (255, 255, 255)], np.float64)
"""From no difference to a large one."""
LARGE = 64.0
"""Mean absolute difference of 8-bit values that is drawn as the largest."""


def before_and_after(folder: Path) -> list[dict[str, Any]]:
    """The kept held-out outputs of a run, for the template; ``after`` is missing until training has ended.

    Args:
        folder: ``heldout/`` of the run, which holds ``outputs_before`` and ``outputs_after``.
    """
    if not (folder / "outputs_before" / "samples.jsonl").is_file():
        return []
    samples = load_samples(folder / "outputs_before" / "samples.jsonl")
    sides = [_outputs(folder / f"outputs_{when}", samples) for when in ("before", "after")]
    return [_shown(sample, *(side.get(sample.id) for side in sides)) for sample in samples]


def _outputs(folder: Path, samples: list[Sample]) -> dict[str, Output]:
    file = folder / "predictions.jsonl"
    if not file.is_file():
        return {}
    return {output.sample_id: output for output in load_outputs(file, samples, own=True)[0]}


def _shown(sample: Sample, before: Output | None, after: Output | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": sample.id,
        "task": str(sample.task),
        "prompt": shortened(sample.prompt),
        "truth": shortened(truth_of(sample)),
        "before": _said(before),
        "after": _said(after),
    }
    if sample.task is not Task.FORECAST:
        return shown
    future = (sample.reference.get("images") or (None,))[-1]
    made = [_pixels(sample, output) for output in (before, after)]
    input_, true = (_read(image) for image in (sample.images[-1] if sample.images else None, future))
    shown["images"] = {
        name: data_uri(pixels, photo=True)
        for name, pixels in zip(("input", "before", "after", "truth"), (input_, *made, true), strict=True)
        if pixels is not None
    }
    pairs = {
        "before to after": (made[0], made[1]),
        "before to truth": (made[0], true),
        "after to truth": (made[1], true),
    }
    for name, (one, other) in pairs.items():
        if one is not None and other is not None and one.shape == other.shape:
            shown.setdefault("differences", {})[name] = data_uri(difference_map(one, other))
    return shown


def _said(output: Output | None) -> str:
    if output is None:
        return ""
    return shortened(output.text or output.invalid or output.lost or "")


def _pixels(sample: Sample, output: Output | None) -> np.ndarray | None:
    if output is None or output.forecast is None:
        return None
    try:
        return _read(as_future(output.forecast, (sample.reference.get("images") or (None,))[-1]))
    except ImageError:
        return None


def _read(image: Any) -> np.ndarray | None:
    try:
        return None if image is None else read_rgb(image)
    except ImageError:
        return None


def difference_map(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the mean absolute difference over channels of two (H, W, 3) uint8 images, dark where they agree and white from
    :data:`LARGE` on.

    >>> difference_map(np.zeros((1, 2, 3), np.uint8), np.array([[[0] * 3, [200] * 3]], np.uint8)).tolist()
    [[[32, 36, 42], [255, 255, 255]]]
    """
    apart = np.abs(one.astype(np.float64) - other).mean(axis=-1)
    place = np.clip(apart / LARGE, 0.0, 1.0) * (len(_RAMP) - 1)
    marks = np.arange(len(_RAMP))
    return np.stack([np.interp(place, marks, channel) for channel in _RAMP.T], axis=-1).round().astype(np.uint8)
