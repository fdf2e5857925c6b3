"""Adapter ``rrsis-d``: RRSIS-D (Liu et al., arXiv 2312.10472, github.com/Lsan2401/RMSIN, README and ``refer/refer.py``).

Expected: ``rrsisd/instances.json`` (COCO's form: masks as run lengths; here a ``bbox`` is x1, y1, x2, y2) and
``images/rrsisd`` with ``JPEGImages`` and ``ann_split``, one XML file per image with its ``split``, its ``object`` and the
object's ``description``, the expression. Of a mask in several parts the pixels of exactly one are meant, as in RMSIN's data set. ``refs(unc).p`` holds splits and expressions too, but it is a pickle, which may run
code when it is opened, so it is never read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    ImageFolder,
    data_folder,
    find_file,
    find_folder,
    inside,
    natural,
    plain_name,
    read_records,
    read_xml,
)
from rsw_rewards.data.referring import decode_rle, expression, write_mask
from rsw_rewards.errors import InputError


def read_annotation(file: Path, source: Path) -> dict[str, str]:
    """``filename``, ``split``, and the ``name`` and ``description`` of the only object of an annotation file.

    Raises:
        InputError: unreadable, too large, with a document type (entities could grow without bounds), or not of that form.
    """
    root = read_xml(file, source)
    objects = root.findall("object")
    if len(objects) != 1:
        raise InputError(f"{file} describes {len(objects)} objects; RRSIS-D has one in every image")
    found = {key: root.findtext(key) for key in ("filename", "split")}
    found |= {key: objects[0].findtext(key) for key in ("name", "description")}
    texts = {key: text.strip() for key, text in found.items() if text is not None and text.strip()}
    for key in ("filename", "split", "description"):
        if key not in texts:
            raise InputError(f"{file} has no {key!r}")
    return texts


class _Instances:
    """Masks and boxes of ``instances.json`` by the name of the image."""

    def __init__(self, file: Path, source: Path) -> None:
        self.file = file
        names = {record.get("id"): record.get("file_name") for record in read_records(file, source, "images")}
        self._by_name: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for record in read_records(file, source, "annotations"):
            self._by_name[names.get(record.get("image_id"))].append(record)

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        found = self._by_name.get(name, [])
        if len(found) != 1:
            raise InputError(f"{self.file} has {len(found)} annotations of the image {name}; RRSIS-D has one for each")
        return found[0]


def _box(bbox: Any, height: int, width: int) -> list[float] | None:
    """A box x1, y1, x2, y2 within the image, or None where ``bbox`` is none."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(type(side) in (int, float) for side in bbox):
        return None
    x1, y1, x2, y2 = map(float, bbox)
    return [x1, y1, x2, y2] if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height else None


def _samples(
    source: Path, out: Path, folders: Mapping[str, Path], instances: Path, split: str | None, boxless: list[str]
) -> Iterator[dict[str, Any]]:
    images, known = ImageFolder(folders["JPEGImages"], source), _Instances(instances, source)
    files = sorted(folders["ann_split"].rglob("*.xml"), key=lambda file: natural(file.name))
    seen: set[str] = set()
    splits: set[str] = set()
    for file in files:
        found = read_annotation(file, source)
        splits.add(found["split"])
        if split not in (None, found["split"]):
            continue
        name = plain_name(found["filename"], str(file))
        if name in seen:
            raise InputError(f"{file} is the second annotation of the image {name}")
        seen.add(name)
        record, key = known[name], Path(name).stem
        where = f"the mask of {name} in {instances}"
        parts = record.get("segmentation")
        masks = [decode_rle(part, where) for part in (parts if isinstance(parts, list) else [parts])]
        if not masks or any(mask.shape != masks[0].shape for mask in masks):
            raise InputError(f"{where} is empty or has parts of different sizes")
        mask = np.sum(masks, axis=0) == 1
        box = _box(record.get("bbox"), *mask.shape)
        if box is None:
            boxless.append(name)
        yield expression(
            "rrsis_d", found["split"], key, images[name], found["description"], write_mask(out, key, mask),
            [box] if box else [], kind=found.get("name"),
        )  # fmt: skip
    if split is not None and splits and split not in splits:
        raise InputError(f"{folders['ann_split']} holds the splits {', '.join(sorted(splits))}, not {split!r}")


def _layout(source: Path) -> tuple[dict[str, Path], Path]:
    above = (source / "images" / "rrsisd", source / "images", source)
    found = {
        name: next((place for parent in above if (place := find_folder(parent, name)) is not None), None)
        for name in ("JPEGImages", "ann_split")
    }
    instances = find_file(source / "rrsisd" / "instances.json", source / "instances.json")
    lacking = [name for name, place in found.items() if place is None]
    if lacking or instances is None:
        pickled = next((file.name for folder in (source, source / "rrsisd") for file in folder.glob("refs*.p")), None)
        hint = f"; {pickled} is a pickle and is not read in their place" if pickled else ""
        raise InputError(
            f"{source} should hold rrsisd/instances.json, images/rrsisd/JPEGImages and images/rrsisd/ann_split{hint}"
        )
    return {name: inside(place, source) for name, place in found.items() if place is not None}, instances


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write referring segmentation samples. See :class:`rsw_rewards.data.adapter.Adapter`.

    Without ``split`` (``train``, ``val``, ``test``) all are written. Masks are decoded into ``out/masks``; ``kind`` is the
    class of the object.
    """
    source, out = data_folder(source, "RRSIS-D's rrsisd and images"), Path(out)
    folders, instances = _layout(source)
    boxless: list[str] = []
    records = _samples(source, out, folders, instances, split, boxless)
    done = conversion(out, records, limit, f"{folders['ann_split']} has no XML file", [source])
    if boxless:
        done.notes.append(f"{len(boxless)} boxes of {instances} lie outside their image and were left out, such as that of {boxless[0]}")  # fmt: skip
    return done
