"""Scene classification in folders of classes: AID, UC Merced, NWPU-RESISC45, WHU-RS19, FireRisk.

Read in github.com/torchgeo/torchgeo@65507dc ``torchgeo/datasets/{ucmerced,resisc45,fire_risk}.py``: a folder a class with its images, below ``Images`` for UC Merced,
below ``train`` and ``val`` for FireRisk; lists of splits for UC Merced and RESISC45. AID and WHU-RS19 in github.com/isaaccorley/torchrs@baafb7e ``torchrs/datasets/{aid,whu_rs19}.py``: a folder a class. The label is the folder's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import ImageFolder, data_folder, find_file, find_folder, plain_name, read_list
from rsw_rewards.errors import InputError


class _Set(NamedTuple):
    name: str
    classes: int
    below: tuple[str, ...] = ()
    """A folder that may hold the classes."""
    splits: tuple[str, ...] = ()
    lists: str = ""
    """The beginning of the names of lists that may lie beside the classes or one folder up: ``<lists>-<split>.txt``, a file name a line."""


def spoken(folder: str) -> str:
    """The name of a class folder in words, in lower case.

    >>> spoken("MediumResidential"), spoken("golf_course"), spoken("High"), spoken("denseresidential")
    ('medium residential', 'golf course', 'high', 'denseresidential')
    """
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])|[_\s]+", " ", folder).split()).lower()


def _listed(source: Path, name: str) -> set[str] | None:
    """The stems of the files in a list of a split; None where there is none. Raises :class:`InputError`."""
    file = find_file(source / name, source.parent / name)
    return None if file is None else {Path(line.strip()).stem for line in read_list(file).splitlines()}


def _samples(
    kind: _Set, source: Path, places: dict[str, Path], notes: list[str], listed: set[str] | None
) -> Iterator[dict[str, Any]]:
    for split, place in places.items():
        folders = sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        found = {folder: ImageFolder(folder, source) for folder in folders}
        filled = {folder: images for folder, images in found.items() if len(images)}
        if not filled:
            raise InputError(f"{place} should hold a folder for every class, with images in it")
        if len(filled) != kind.classes:
            notes.append(f"{place} holds {len(filled)} classes; {kind.name} has {kind.classes}")
        vocabulary = [spoken(folder.name) for folder in filled]
        prompt = f"Which class is the scene? Answer with one of: {', '.join(vocabulary)}."
        for folder, images in filled.items():
            for stem in images.stems if listed is None else [stem for stem in images.stems if stem in listed]:
                part = (
                    f"{split}/" if split and listed is None else ""
                )  # the same image is one scene in any split of a list
                yield {
                    "id": f"{kind.name}/{part}{folder.name}/{stem}",
                    "task": "classification",
                    "scene": f"{kind.name}/{part}{folder.name}/{stem}",
                    "kind": None,
                    "images": [images[stem]],
                    "prompt": prompt,
                    "reference": {"label": spoken(folder.name), "vocabulary": vocabulary},
                    "metadata": {"dataset": kind.name, **({"split": split} if split else {}), "folder": folder.name},
                }


def _converter(kind: _Set) -> Callable[..., Conversion]:
    def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
        """Write classification samples. See :class:`rsw_rewards.data.adapter.Adapter`."""
        source = data_folder(source, "a folder for every class")
        places: dict[str, Path] = {
            name: found for name in kind.splits if (found := find_folder(source, name)) is not None
        }
        if kind.splits and not places:
            raise InputError(f"{source} should hold {' and '.join(kind.splits)}, in each a folder for every class")
        listed = (
            None
            if split is None or not kind.lists
            else _listed(source, f"{kind.lists}-{plain_name(split, '--split')}.txt")
        )
        if split is not None and split not in places and listed is None:
            raise InputError(f"{source} holds {', '.join(places) or 'no splits'}, not {split!r}")
        if split in places:
            places = {split: places[split]}
        if not kind.splits:
            places = {split or "": find_folder(source, *kind.below) or source if kind.below else source}
        notes: list[str] = []
        records = _samples(kind, source, places, notes, listed)
        return conversion(out, records, limit, f"{source} holds no image", [source], notes)

    return convert


aid = _converter(_Set("aid", 30))
ucm = _converter(_Set("ucm", 21, below=("Images",), lists="uc_merced"))
resisc45 = _converter(_Set("resisc45", 45, lists="resisc45"))
whu_rs19 = _converter(_Set("whu_rs19", 19))
firerisk = _converter(_Set("firerisk", 7, splits=("train", "val")))
