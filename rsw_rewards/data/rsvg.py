"""DIOR-RSVG and OPT-RSVG: boxes of what an expression means, in one layout.

Read in github.com/ZhanYang-nwpu/RSVG-pytorch@fca7865 ``data_loader.py`` and github.com/like413/OPT-RSVG@ff0fc20 ``datasets/data_loader.py``:
``Annotations/*.xml``, ``JPEGImages`` and ``train.txt``, ``val.txt``, ``test.txt``. The lists hold running numbers of objects, not names of
images: all annotation files in order, in each all ``<object>`` in their order, counted from 0. An object has ``name``, ``bndbox``
(xmin, ymin, xmax, ymax in pixels) and ``description``, the expression. Objects of one image may fall into different splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import SPLITS, ImageFolder, data_folder, find_folder, inside, plain_name, read_xml
from rsw_rewards.errors import InputError, as_input_error

PROMPT = "Give the box of what this refers to: {}"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _numbers(file: Path, source: Path) -> set[int]:
    with as_input_error(f"the list {file} cannot be read as numbers of objects", OSError, ValueError):
        return {int(line) for line in inside(file, source).read_text("utf-8-sig").split()}


def _object(entry: Element, where: str) -> tuple[list[float], str, str | None]:
    box = [entry.findtext(f"bndbox/{side}") for side in _SIDES]
    text = entry.findtext("description")
    try:
        sides = [float(side) for side in box if side is not None]
    except ValueError:
        sides = []
    if len(sides) != 4 or not text or not text.strip():
        raise InputError(f"{where} lacks a bndbox of four numbers or a description")
    return sides, text.strip(), entry.findtext("name")


def _samples(name: str, source: Path, splits: dict[str, set[int]]) -> Iterator[dict[str, Any]]:
    notes = find_folder(source, "Annotations")
    pictures = find_folder(source, "JPEGImages")
    if notes is None or pictures is None:
        raise InputError(f"{source} should hold Annotations, JPEGImages and the lists train.txt, val.txt and test.txt")
    images, number = ImageFolder(pictures, source), 0
    for file in sorted(inside(notes, source).rglob("*.xml"), key=str):
        root = read_xml(file, source)
        image = plain_name(root.findtext("filename"), str(file))
        for entry in root.findall("object"):
            for split, chosen in splits.items():
                if number in chosen:
                    box, text, kind = _object(entry, f"{file}: object {number}")
                    yield {
                        "id": f"{name}/{split}/{number}",
                        "task": "grounding",
                        "scene": f"{name}/{Path(image).stem}",
                        "kind": kind,
                        "images": [images[image]],
                        "prompt": PROMPT.format(text),
                        "reference": {"boxes": [box]},
                        "metadata": {"dataset": name, "split": split, "expression": text},
                    }
            number += 1
    if max((max(chosen) for chosen in splits.values() if chosen), default=-1) >= number:
        raise InputError(f"the lists in {source} name more objects than the {number} in {notes}")


def _convert(name: str, source: Path, out: Path, split: str | None, limit: int | None, note: str = "") -> Conversion:
    source = data_folder(source, "Annotations, JPEGImages and the lists of a split")
    lists = {part: source / f"{part}.txt" for part in SPLITS if (source / f"{part}.txt").is_file()}
    split = split and split.lower()
    if split is not None and split not in lists:
        raise InputError(f"{source} holds the lists {', '.join(lists) or 'none'}, not {split}.txt")
    if not lists:
        raise InputError(f"{source} should hold train.txt, val.txt or test.txt beside Annotations and JPEGImages")
    chosen = {part: _numbers(file, source) for part, file in lists.items() if split in (None, part)}
    what = f"the lists in {source} name no object"
    return conversion(out, _samples(name, source, chosen), limit, what, [source], [note])


def dior_rsvg(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write DIOR-RSVG's expressions (arXiv 2210.12634). Without ``split`` all are written. See :class:`rsw_rewards.data.adapter.Adapter`."""
    return _convert("dior_rsvg", source, out, split, limit)


def opt_rsvg(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write OPT-RSVG's expressions (IEEE TGRS 2024, document 10584552). Without ``split`` all are written.

    Its loader counts files in the order of the file system; here they are counted by name, and a note says so.
    """
    note = "the authors' loader counts annotation files in the order of the file system; here they are counted by name"
    return _convert("opt_rsvg", source, out, split, limit, note)
