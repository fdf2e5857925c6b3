"""Adapter ``mhn-rsicd``: RSICD as Txt2Img-MHN asks for it (arXiv 2208.04441, github.com/YonghaoXu/Txt2Img-MHN): an image for a caption.

Expected: the authors' list ``RSICD_test.txt`` (of 2,187 names, in their folder ``taming-transformers-master``) put into the source,
and ``dataset_rsicd.json`` with ``RSICD_images``, as the adapter ``rsicd`` takes them. The class is the name's part before its number;
133 of the 2,187 images have a number for a name and no class. The caption is an image's first sentence up to its first `` .``, as
the authors' data_preparation.py cuts it; for a sentence without one, as in 00744.jpg of the list, it has a text of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import Captioned, Reading, read_captioned
from rsw_rewards.data.layout import ImageFolder, data_folder, find_entry, find_folder, needed
from rsw_rewards.data.rsicd import CAPTIONS, captions_file
from rsw_rewards.errors import InputError, as_input_error

LIST = "RSICD_test.txt"
CANDIDATES = 10
WITHOUT_STOP = "a bustling block includes a few buildings, many cars and a football field marked with 'spartanas'"
"""The authors' text for a sentence without a full stop."""


def before_stop(raw: str) -> str:
    """What stands in ``raw`` before the first full stop that follows a blank, without outer blanks; ``WITHOUT_STOP`` where there is none.

    >>> before_stop("many planes are parked . some are white .")
    'many planes are parked'
    """
    caption, stop, _ = raw.partition(" .")
    return caption.strip() if stop else WITHOUT_STOP


def class_of(stem: str) -> str | None:
    """``airport_348`` -> ``airport``; None for a name without a class, such as ``00594``."""
    name, dash, number = stem.rpartition("_")
    return name if dash and name.isalpha() and number.isdecimal() else None


def _names(source: Path) -> list[str]:
    file = needed(
        find_entry(source, LIST),
        f"{source} has no {LIST}; put the authors' list of 2,187 names there (taming-transformers-master/{LIST})",
    )
    with as_input_error(f"{file} cannot be read", OSError, UnicodeDecodeError):
        names = file.read_text(encoding="utf-8").split()
    if not names or len(set(names)) != len(names):
        raise InputError(f"{file} names {'an image twice' if names else 'no image'}")
    return names


def _samples(
    names: list[str], entries: dict[str, Captioned], images: ImageFolder, file: Path
) -> Iterator[dict[str, Any]]:
    for name in names:
        entry = needed(entries.get(name), f"{file} has no captions for {name}, which {LIST} names")
        label = class_of(name)
        reference = {"images": [images[entry.name]], "text": entry.captions[0]}
        yield {
            "id": f"mhn-rsicd/{name}",
            "task": "forecast",
            "scene": f"rsicd/{name}",
            "kind": label,
            "images": [],
            "prompt": entry.captions[0],
            "reference": reference if label is None else {**reference, "label": label},
            "metadata": {"dataset": "rsicd", "split": "txt2img-mhn"},
        }


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write a forecast sample without input images per name of the list. See :class:`rsw_rewards.data.adapter.Adapter`."""
    source = data_folder(source, f"{LIST}, {CAPTIONS} and RSICD_images")
    if split not in (None, "test"):
        raise InputError(f"the list {LIST} has one part, 'test', not {split!r}")
    names, captions = _names(source), captions_file(source)
    folder = needed(find_folder(source, "RSICD_images", "images"), f"{source} has no folder RSICD_images")
    entries = {entry.stem: entry for entry in read_captioned(captions, source, None, Reading("raw", before_stop))}
    unnamed = sum(class_of(name) is None for name in names[:limit])
    notes = [
        f"predictions: {CANDIDATES} candidates a sample; the authors' scripts write candidate N of a name as <name>_N.png",
        f"{unnamed} images have no class in their name; zero_shot_cls leaves them out" if unnamed else "",
    ]
    samples = _samples(names, entries, ImageFolder(folder, source), captions)
    return conversion(out, samples, limit, f"{LIST} names no image", [source], notes)
