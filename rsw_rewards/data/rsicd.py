"""Adapter ``rsicd``: RSICD (arXiv 1712.07835, github.com/201528014227051/RSICD_optimal), captions of single images.

Expected: ``dataset_rsicd.json`` in the source or in ``annotations_rsicd`` below it, and ``RSICD_images`` with ``airport_1.jpg`` and
so on, which is how the archives unpack. The file has the form of Karpathy's captioning splits.
References are the words of ``tokens``; the authors publish no code that reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import TOKENS, Captioned, read_captioned
from rsw_rewards.data.layout import ImageFolder, data_folder, find_entry, find_folder, needed

CAPTIONS = "dataset_rsicd.json"
PROMPT = "Describe the image."

_IMAGES = ("RSICD_images", "images")


def captions_file(source: Path) -> Path:
    """The file of captions, in the source or in a folder of annotations. Raises :class:`InputError` where there is none."""
    below = find_folder(source, "annotations_rsicd", "annotations")
    found = find_entry(source, CAPTIONS) or (below and find_entry(below, CAPTIONS))
    return needed(found, f"{source} has no {CAPTIONS}, and neither has annotations_rsicd below it")


def _samples(entries: list[Captioned], images: ImageFolder | None) -> Iterator[dict[str, Any]]:
    for entry in entries:
        name = f"rsicd/{entry.stem}"
        yield {
            "id": name,
            "task": "change_caption",
            "scene": name,
            "images": [f"{_IMAGES[0]}/{entry.name}" if images is None else images[entry.name]],
            "prompt": PROMPT,
            "reference": {"captions": entry.captions},
            "metadata": {"dataset": "rsicd", "split": entry.split},
        }


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write a caption sample per image of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`.

    The task is the caption task, with one image: nothing in it asks for change. Without the imagery the samples are written all
    the same, so that captions made elsewhere can be scored; a note says so.
    """
    source = data_folder(source, f"{CAPTIONS} and {_IMAGES[0]}")
    captions = captions_file(source)
    entries = read_captioned(captions, source, split, TOKENS)
    folder = find_folder(source, *_IMAGES)
    images = ImageFolder(folder, source) if folder is not None else None
    absent = f"no folder {_IMAGES[0]} in {source}: captions can be scored, but no model can be shown the images"
    notes = [absent if images is None else ""]
    return conversion(out, _samples(entries, images), limit, f"{captions} has no entry", [source], notes)
