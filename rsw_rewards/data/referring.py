"""What data sets of referring segmentation share: run-length encoded masks, masks as PNG, and the record of one expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.pixels import MAX_PIXELS

PROMPT = "Mark what this refers to: {}"
MASKS = "masks"
"""Folder in the output for masks that could not stay where they are."""


def _counts(text: str, where: str) -> list[int]:
    """Run lengths out of COCO's compressed form: six bits a character, of which five are digits, lowest first.

    The sixth says that more follow; from the third run on, a number is the difference to the run two places before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise InputError(f"{where} holds {character!r}, which is no part of a compressed mask")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError(f"{where} ends in the middle of a number")
    return counts


def decode_rle(encoded: Any, where: str) -> np.ndarray:
    """The mask of ``{"size": [height, width], "counts": ..}`` as (height, width) bool.

    ``counts`` is a list of run lengths down the columns, off first, or its compressed text, as github.com/cocodataset/cocoapi
    defines them (``common/maskApi.c``).

    Raises:
        InputError: another form, more than ``MAX_PIXELS`` pixels, or runs that do not fill the mask.
    """
    size = encoded.get("size") if isinstance(encoded, Mapping) else None
    counts = encoded.get("counts") if isinstance(encoded, Mapping) else None
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise InputError(f"{where} should have a 'size' [height, width]")
    height, width = size
    if height * width > MAX_PIXELS:
        raise InputError(f"{where} declares {width} x {height} pixels, more than the {MAX_PIXELS:,} that are read")
    if isinstance(counts, str):
        counts = _counts(counts, where)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise InputError(f"{where} should have 'counts', run lengths or their compressed text")
    if sum(counts) != height * width:
        raise InputError(f"the runs of {where} fill {sum(counts)} of {height * width} pixels")
    on = np.arange(len(counts)) % 2 == 1
    return np.repeat(on, counts).reshape(width, height).T


def write_mask(out: Path, name: str, mask: np.ndarray) -> str:
    """Write an (H, W) bool mask as ``masks/<name>.png`` (0 and 255) and return that path, relative to ``out``."""
    path = f"{MASKS}/{name}.png"
    (out / MASKS).mkdir(parents=True, exist_ok=True)
    write_png(out / path, mask.astype(np.uint8) * 255)
    return path


def expression(
    dataset: str, split: str, key: str, image: str, text: str, mask: str, boxes: Sequence[Sequence[float]] = (),
    kind: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The record of one expression. ``key`` tells it from the others of its split; the place is the image."""
    reference: dict[str, Any] = {"mask": mask}
    if boxes:
        reference["boxes"] = [list(box) for box in boxes]
    return {
        "id": f"{dataset}/{split}/{key}",
        "task": "grounding",
        "scene": f"{dataset}/{Path(image).stem}",
        "kind": kind,
        "images": [image],
        "prompt": PROMPT.format(text),
        "reference": reference,
        "metadata": {"dataset": dataset, "split": split, "expression": text},
    }
