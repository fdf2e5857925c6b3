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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    SPLITS,
    ImageFolder,
    data_folder,
    find_folder,
    inside,
    plain_name,
    read_list,
    split_parts,
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

_NUMBER = re.compile(r"[0-9]{5}")


def scene_of(stem: str, dataset: str = "second") -> str:
    """The scene of a picture of SECOND, which is called by a number of five digits; ``dataset`` names the scenes of all others."""
    return f"{'second' if _NUMBER.fullmatch(stem) else dataset}/{stem}"


class Maps(NamedTuple):
    """How one data set of maps before and after is laid out."""

    name: str
    title: str
    palette: Mapping[str, tuple[int, int, int]]
    folders: tuple[tuple[str, ...], ...]
    """Names of the folders of images before and after, and of labels before and after."""
    scene: Callable[[str], str]


SECOND = Maps(
    "second", "SECOND", PALETTE, (("im1",), ("im2",), ("label1", "label1_rgb"), ("label2", "label2_rgb")), scene_of
)
LANDSAT = Maps(
    "landsat_scd",
    "Landsat-SCD",
    {
        "not changed": (255, 255, 255),
        "farmland": (0, 155, 0),
        "desert": (255, 165, 0),
        "building": (230, 30, 100),
        "water": (0, 170, 240),
    },
    (("im1", "A"), ("im2", "B"), ("label1", "labelA"), ("label2", "labelB")),
    lambda stem: f"landsat_scd/{stem}",
)


def map_reference(
    labels: Sequence[str], coloured: Sequence[bool], palette: Mapping[str, tuple[int, int, int]] = PALETTE
) -> dict[str, Any]:
    """The reference of a sample: its maps before and after, each with the palette if it is a picture in colours."""
    colours = [list(colour) for colour in palette.values()]
    before, after = (
        {"path": label, "palette": colours} if is_coloured else label
        for label, is_coloured in zip(labels, coloured, strict=True)
    )
    return {"map_before": before, "map_after": after, "classes": list(palette)}


def in_colours(source: Path, labels: ImageFolder, kind: Maps = SECOND) -> bool:
    """Whether the labels of a folder are pictures in colours; the first one tells. Raises :class:`InputError` for neither kind."""
    path = source / labels[labels.stems[0]]
    pixels = read_pixels(path, colours=True)
    if pixels.ndim == 3:
        return True
    if pixels.dtype.kind not in "ui" or pixels.max(initial=0) >= len(kind.palette):
        raise InputError(f"{path} holds neither the colours of {kind.title} nor indices below {len(kind.palette)}")
    return False


def _samples(kind: Maps, source: Path, split: str | None, folders: list[ImageFolder]) -> Iterator[dict[str, Any]]:
    before, after, label1, label2 = folders
    if not len(label1):
        return
    coloured = [in_colours(source, labels, kind) for labels in (label1, label2)]
    listed = source / f"{split}_list.txt"
    stems = _listed(listed, source) if split and not find_folder(source, split) else label1.stems
    for stem in stems:
        yield {
            "id": f"{kind.name}/{split}/{stem}" if split else f"{kind.name}/{stem}",
            "task": "semantic_change",
            "scene": kind.scene(stem),
            "images": [before[stem], after[stem]],
            "prompt": PROMPT,
            "reference": map_reference((label1[stem], label2[stem]), coloured, kind.palette),
            "metadata": {"dataset": kind.name, **({"split": split} if split else {})},
        }


def _listed(file: Path, source: Path) -> list[str]:
    lines = read_list(inside(file, source)).split("\n")
    return [Path(plain_name(line.strip(), str(file))).stem for line in lines if line.strip().endswith(".png")]


def _parts(kind: Maps, source: Path, split: str | None) -> dict[str | None, list[ImageFolder]]:
    """Split -> its four folders; the only key is None where the folders lie in the source itself, without lists."""
    *first, last = (names[0] for names in kind.folders)
    expected = f"{', '.join(first)} and {last}, or train, val and test with these folders in them"
    parts = split_parts(source, split, kind.folders, expected)
    if None not in parts:
        return parts
    if split is not None and not (source / f"{split}_list.txt").is_file():
        raise InputError(f"{source} holds the folders themselves and no split {split!r}; leave --split out")
    lists: list[str | None] = [name for name in SPLITS if (source / f"{name}_list.txt").is_file()]
    return dict.fromkeys([split] if split else lists or [None], parts[None])


def _convert(kind: Maps, source: Path, out: Path, split: str | None, limit: int | None, note: str = "") -> Conversion:
    source = data_folder(source, "im1, im2, label1 and label2", split)
    records = (
        record
        for name, folders in _parts(kind, source, split).items()
        for record in _samples(kind, source, name, folders)
    )
    return conversion(out, records, limit, f"the folders of labels in {source} hold no images", [source], [note])


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write semantic-change samples of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`."""
    return _convert(SECOND, source, out, split, limit)


def landsat_scd(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write Landsat-SCD's semantic changes, of five classes. See :class:`rsw_rewards.data.adapter.Adapter`.

    Read in github.com/likyoo/open-cd@790a197 ``configs/_base_/datasets/landsat.py:31-67`` and ``opencd/datasets/landsat.py:9-26`` (``<split>/{im1,im2,label1,label2}``), and in
    github.com/ggsDing/SCanNet@9c80d46 ``datasets/Landsat_SCD.py:11-13,78-110`` (``A``, ``B``, ``labelA``, ``labelB`` with ``<split>_list.txt``), which removes augmented copies first.
    """
    note = "every pair counts as a scene; the archive also holds augmented copies, which the authors of SCanNet remove"
    return _convert(LANDSAT, source, out, split, limit, note)
