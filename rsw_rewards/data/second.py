"""Adapter ``second``: SECOND (arXiv 2010.05687, captain-whu.github.io/SCD), semantic change between two dates.

Expected: ``im1``, ``im2``, ``label1`` and ``label2`` with equal file names, in the source itself or in ``train``, ``val`` and
``test`` below it (Bi-SRNet writes them with a capital). Where ``label1_rgb`` and ``label2_rgb`` stand beside, they are not read unless ``label1`` is absent.

Labels are pictures in seven colours, white for "not changed". The records point at them as they are and carry the palette,
which is ``ST_COLORMAP`` of ggsDing/Bi-SRNet @datasets/RS_ST.py: index 0 not changed, 1 water, 2 ground, 3 low vegetation, 4 tree,
5 building, 6 playground. Labels that were converted to one band of indices are taken to be in that order, as Bi-SRNet and its
successors write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, write_samples
from rsw_rewards.data.layout import (
    ImageFolder,
    choose_splits,
    data_folder,
    image_folders,
    plain_name,
    split_folders,
    take,
)
from rsw_rewards.errors import InputError
from rsw_rewards.pixels import read_pixels

PALETTE: Mapping[str, tuple[int, int, int]] = {
    "not changed": (255, 255, 255),
    "water": (0, 0, 255),
    "ground": (128, 128, 128),
    "low vegetation": (0, 128, 0),
    "tree": (0, 255, 0),
    "building": (128, 0, 0),
    "playground": (255, 0, 0),
}
"""Class -> colour, in the order of the indices."""

PROMPT = "Mark what changed between the two images, and what was there before and is there after."

_FOLDERS = (("im1",), ("im2",), ("label1", "label1_rgb"), ("label2", "label2_rgb"))
_NUMBER = re.compile(r"[0-9]{5}")


def scene_of(stem: str, dataset: str = "second") -> str:
    """The scene of a picture of SECOND, which is called by a number of five digits; ``dataset`` names the scenes of all others."""
    return f"{'second' if _NUMBER.fullmatch(stem) else dataset}/{stem}"


def map_entry(source: Path, label: str, coloured: bool) -> str | dict[str, Any]:
    """A label as an image entry of a record: the path, with the palette if it is a picture in colours."""
    return {"path": label, "palette": [list(colour) for colour in PALETTE.values()]} if coloured else label


def in_colours(source: Path, labels: ImageFolder) -> bool:
    """Whether the labels of a folder are pictures in colours; the first one tells. Raises :class:`InputError` for neither kind."""
    path = source / labels[labels.stems[0]]
    pixels = read_pixels(path, colours=True)
    if pixels.ndim == 3:
        return True
    if pixels.dtype.kind not in "ui" or pixels.max(initial=0) >= len(PALETTE):
        raise InputError(f"{path} holds neither SECOND's colours nor indices below {len(PALETTE)}")
    return False


def _samples(source: Path, split: str | None, folders: list[ImageFolder]) -> Iterator[dict[str, Any]]:
    before, after, label1, label2 = folders
    if not len(label1):
        return
    coloured = [in_colours(source, labels) for labels in (label1, label2)]
    for stem in label1.stems:
        maps = [
            map_entry(source, labels[stem], colours) for labels, colours in zip((label1, label2), coloured, strict=True)
        ]
        yield {
            "id": f"second/{split}/{stem}" if split else f"second/{stem}",
            "task": "semantic_change",
            "scene": scene_of(stem),
            "images": [before[stem], after[stem]],
            "prompt": PROMPT,
            "reference": {"map_before": maps[0], "map_after": maps[1], "classes": list(PALETTE)},
            "metadata": {"dataset": "second", **({"split": split} if split else {})},
        }


def _parts(source: Path, split: str | None) -> dict[str | None, list[ImageFolder]]:
    """Split -> its four folders; the only key is None where the folders lie in the source itself."""
    found = {name: image_folders(place, source, _FOLDERS) for name, place in split_folders(source, split).items()}
    below = {name: folders for name, folders in found.items() if folders is not None}
    if below:
        return {name: below[name] for name in choose_splits(below, split, source)}
    own = image_folders(source, source, _FOLDERS)
    if own is None:
        raise InputError(
            f"{source} should hold im1, im2, label1 and label2, or train, val and test with these folders in them"
        )
    if split is not None:
        raise InputError(f"{source} holds im1 and label1 themselves and no split {split!r}; leave --split out")
    return {None: own}


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write semantic-change samples of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`."""
    source = data_folder(source, "im1, im2, label1 and label2")
    if split is not None:
        plain_name(split, "--split")
    records = (record for name, folders in _parts(source, split).items() for record in _samples(source, name, folders))
    count, file = write_samples(Path(out), take(records, limit), f"the folders label1 in {source} hold no images")
    return Conversion(count, file, [source])
