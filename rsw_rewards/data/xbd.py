"""Adapter ``xbd``: xBD, the data of the xView2 challenge (Gupta et al., arXiv 1911.09296, xview2.org).

Expected, as the challenge's archives unpack: ``train``, ``tier3``, ``test`` and ``hold`` (or one of them as the source), each with
``images`` (``<event>_<number>_pre_disaster.png`` and ``_post_disaster.png``) and ``targets`` (the same names with ``_target``:
buildings 0/1 before, damage 0 to 4 after). Where only ``labels`` (JSON with WKT polygons) came along, targets are drawn from them as
the authors' code draws: corners cut to whole numbers, edges filled, holes ignored (``utils/mask_polygons.py`` and
``utils/inference_image_output.py`` of DIUx-xView/xView2_baseline). Where polygons overlap, there is no building, and the later damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    ImageFolder,
    choose_parts,
    data_folder,
    find_folder,
    inside,
    read_json,
)
from rsw_rewards.data.polygons import fill_polygon
from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.io.images import write_png
from rsw_rewards.pixels import MAX_PIXELS

SPLITS = ("train", "tier1", "tier3", "test", "hold")
PROMPT = "Map the buildings before the disaster, and how badly each was damaged by it."

DAMAGE = {"no-damage": 1, "minor-damage": 2, "major-damage": 3, "destroyed": 4, "un-classified": 1}
"""Subtype of a polygon -> value, as DIUx-xView/xView2_baseline has them (``utils/inference_image_output.py``)."""

DRAWN = "drawn"
"""Folder in the output for targets that are drawn from polygons."""

FAR = 1 << 16
"""Largest coordinate of a corner, in pixels; the images have 1,024 a side."""

_PRE, _POST = "_pre_disaster", "_post_disaster"
_RING = re.compile(r"\(([^()]*)\)")


def parse_polygon(wkt: Any, where: str) -> np.ndarray:
    """The outer ring of a WKT ``POLYGON`` in pixels as (n, 2) whole numbers x, y, cut towards 0.

    Raises:
        InputError: anything else, or a corner further out than ``FAR``.
    """
    if not isinstance(wkt, str) or not wkt.upper().startswith("POLYGON") or "EMPTY" in wkt.upper():
        raise InputError(f"{where} is {str(wkt)[:40]!r}, not a WKT polygon")
    ring = _RING.search(wkt)
    with as_input_error(f"{where} holds a point that is not two numbers", ValueError):
        corners = [[float(number) for number in point.split()[:2]] for point in ring[1].split(",")] if ring else []
    if len(corners) < 4 or any(len(corner) != 2 for corner in corners) or not np.isfinite(corners).all():
        raise InputError(f"{where} is no closed polygon")
    if np.abs(corners).max() > FAR:
        raise InputError(f"{where} has a corner more than {FAR:,} pixels from the image's corner")
    return np.array(corners).astype(np.int64)


def _polygons(label: Any, where: str) -> tuple[tuple[int, int], list[tuple[np.ndarray, Any]]]:
    """Height and width of a label file, and corners and subtype of each of its polygons."""
    try:
        height, width = int(label["metadata"]["height"]), int(label["metadata"]["width"])
        features = list(label["features"]["xy"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where} should hold 'metadata' with 'width' and 'height', and 'features' with 'xy'"
        ) from error
    if not 0 < height * width <= MAX_PIXELS or min(height, width) < 1:
        raise InputError(f"{where} declares {width} x {height} pixels; up to {MAX_PIXELS:,} are drawn")
    polygons = []
    for number, feature in enumerate(features):
        place = f"{where}: polygon {number}"
        if not isinstance(feature, Mapping):
            raise InputError(f"{place} is not an object")
        properties = feature.get("properties")
        subtype = properties.get("subtype") if isinstance(properties, Mapping) else None
        polygons.append((parse_polygon(feature.get("wkt"), place), subtype))
    return (height, width), polygons


def draw_buildings(label: Any, where: str) -> np.ndarray:
    """The buildings of a label file as (height, width) uint8 0/1: a pixel of exactly one polygon is a building.

    Args:
        label: the JSON object: ``metadata`` with ``width`` and ``height``, ``features.xy`` with ``wkt`` and ``properties``.
        where: the file, for messages.

    Raises:
        InputError: anything of the above is missing or of another form.
    """
    size, polygons = _polygons(label, where)
    times = np.zeros(size, np.uint16)
    for corners, _ in polygons:
        times += fill_polygon(corners, *size)
    return (times == 1).astype(np.uint8)


def draw_damage(label: Any, where: str) -> np.ndarray:
    """The damage of a label file as (height, width) uint8 0 to 4, arguments and errors as in :func:`draw_buildings`."""
    size, polygons = _polygons(label, where)
    drawn = np.zeros(size, np.uint8)
    for number, (corners, subtype) in enumerate(polygons):
        if subtype not in DAMAGE:
            raise InputError(f"{where}: polygon {number} has the damage {subtype!r}; known are {', '.join(DAMAGE)}")
        drawn[fill_polygon(corners, *size)] = DAMAGE[subtype]
    return drawn


class _Targets:
    """The two reference maps of a chip: the authors', or ones drawn from polygons into the output."""

    def __init__(self, folder: Path, source: Path, out: Path) -> None:
        targets, labels = find_folder(folder, "targets"), find_folder(folder, "labels")
        if targets is None and labels is None:
            raise InputError(f"{folder} has neither targets nor labels beside images; xBD's archives come with both")
        self.images = None if targets is None else ImageFolder(targets, source)
        self.labels, self.source, self.out = labels, source, out

    def __call__(self, stem: str, split: str) -> dict[str, str]:
        names = {"buildings": f"{stem}{_PRE}", "damage": f"{stem}{_POST}"}
        if self.images is not None:
            return {role: self.images[f"{name}_target.png"] for role, name in names.items()}
        assert self.labels is not None
        (self.out / DRAWN / split).mkdir(parents=True, exist_ok=True)
        drawn = {}
        for role, name in names.items():
            file = self.labels / f"{name}.json"
            draw = draw_damage if role == "damage" else draw_buildings
            pixels = draw(read_json(file, self.source), str(file))
            drawn[role] = f"{DRAWN}/{split}/{name}_target.png"
            write_png(self.out / drawn[role], pixels)
        return drawn


def _part(folder: Path, source: Path, out: Path, split: str, notes: list[str]) -> Iterator[dict[str, Any]]:
    place = find_folder(folder, "images")
    assert place is not None
    images, targets = ImageFolder(place, source), _Targets(folder, source, out)
    if targets.images is None:
        notes.append(
            f"{folder} has no targets: they were drawn from its labels into {out / DRAWN}, as the authors' code draws them"
        )
    for stem in [name.removesuffix(_PRE) for name in images.stems if name.endswith(_PRE)]:
        event = stem.rpartition("_")[0] or stem
        yield {
            "id": f"xbd/{split}/{stem}",
            "task": "damage",
            "scene": f"xbd/{stem}",
            "kind": event,
            "images": [images[f"{stem}{_PRE}.png"], images[f"{stem}{_POST}.png"]],
            "prompt": PROMPT,
            "reference": targets(stem, split),
            "metadata": {"dataset": "xbd", "split": split, "event": event},
        }


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write building damage samples. See :class:`rsw_rewards.data.adapter.Adapter`.

    Without ``split`` all of ``train``, ``tier3``, ``test`` and ``hold`` that are there are written. ``kind`` is the event.
    """
    source, out = data_folder(source, "xBD's train, tier3, test or hold", split), Path(out)
    if find_folder(source, "images") is not None:
        if split not in (None, source.name):
            raise InputError(f"{source} is the split {source.name} itself; for {split} give the folder above it")
        found = {source.name or "xbd": source}
    else:
        places = dict.fromkeys((*SPLITS, split) if split else SPLITS)
        found = {name: source / name for name in places if find_folder(source / name, "images") is not None}
    notes: list[str] = []
    chosen = choose_parts(found, split, source, "train, tier3, test or hold, each with images and targets")
    records = (
        record for name, place in chosen.items() for record in _part(inside(place, source), source, out, name, notes)
    )
    return conversion(out, records, limit, f"{source} holds no image named *{_PRE}.png", [source], notes)
