"""Adapter ``fmow``: sequences of fMoW (arXiv 1711.07846), frames of one place over time with the metadata of each.

Read in github.com/fMoW/baseline@26a59ed ``code/data_ml_functions/dataFunctions.py:49-75,111-158,240-253``, ``code/params.py:78`` and github.com/fMoW/dataset@035ab5e ``README.md:82-84``:
``{train,val}/<category>/<category>_<place>/<name>_rgb.json`` beside an image of that name, with ``timestamp``, ``gsd``, ``cloud_cover`` and ``bounding_boxes``, a list or one object of ``box``
(left, top, width, height in pixels) and ``category``. The frames of a folder are a sequence; they are shown by their timestamps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, write_samples
from rsw_rewards.data.layout import IMAGE_SUFFIXES, choose_splits, data_folder, find_folder, inside, read_json, take
from rsw_rewards.data.scene_folders import spoken
from rsw_rewards.errors import InputError

CATEGORIES = 62
_KEPT = (
    "gsd",
    "cloud_cover",
    "country_code",
    "utm",
    "off_nadir_angle_dbl",
    "sun_elevation_dbl",
    "sensor_platform_name",
)


def _frame(file: Path, source: Path) -> tuple[str, dict[str, Any], dict[str, Any], list[str]]:
    """When a frame was taken, its image entry, its metadata, and the categories of its boxes. Raises :class:`InputError`."""
    told = read_json(file, source)
    when = told.get("timestamp") if isinstance(told, dict) else None
    if not isinstance(when, str):
        raise InputError(f"{file} has no 'timestamp'")
    images = [place for place in sorted(file.parent.glob(f"{file.stem}.*")) if place.suffix.lower() in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise InputError(f"{file} should stand beside one image of its name, not {len(images)}")
    boxes = told.get("bounding_boxes", [])
    boxes = boxes if isinstance(boxes, list) else [boxes]
    if not all(isinstance(box, dict) and isinstance(box.get("box"), list) and len(box["box"]) == 4 for box in boxes):
        raise InputError(f"{file}: 'bounding_boxes' should hold objects with a 'box' of four numbers")
    known = {key: told[key] for key in _KEPT if key in told}
    marked = [[left, top, left + width, top + height] for left, top, width, height in (box["box"] for box in boxes)]
    entry = {"path": inside(images[0], source).relative_to(source).as_posix(), "date": when[:10]}
    return when, entry, {"timestamp": when, **known, "boxes": marked}, [str(box.get("category")) for box in boxes]


def _sequence(place: Path, source: Path, split: str, vocabulary: list[str]) -> dict[str, Any] | None:
    frames = sorted((_frame(file, source) for file in place.glob("*_rgb.json")), key=lambda frame: frame[0])
    if not frames:
        return None
    category = place.parent.name
    if others := sorted({name for frame in frames for name in frame[3]} - {category, "None"}):
        raise InputError(f"{place}: a box is of the category {others[0]!r}, and the folder is {category!r}")
    return {
        "id": f"fmow/{split}/{place.name}",
        "task": "classification",
        "scene": f"fmow/{place.name}",
        "kind": None,
        "images": [frame[1] for frame in frames],
        "prompt": f"The images show one place over time. What is it? Answer with one of: {', '.join(vocabulary)}.",
        "reference": {"label": spoken(category), "vocabulary": vocabulary},
        "metadata": {"dataset": "fmow", "split": split, "frames": [frame[2] for frame in frames]},
    }


def _samples(source: Path, places: dict[str, Path], notes: list[str]) -> Iterator[dict[str, Any]]:
    for split, place in places.items():
        folders = sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if len(folders) != CATEGORIES:
            notes.append(
                f"{place} holds {len(folders)} categories; fMoW has {CATEGORIES}, and the vocabulary is what is there"
            )
        vocabulary = [spoken(folder.name) for folder in folders]
        for folder in folders:
            for entry in sorted(folder.iterdir()):
                made = _sequence(entry, source, split, vocabulary) if entry.is_dir() else None
                if made is not None:
                    yield made


def fmow(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write a sample a place. See :class:`rsw_rewards.data.adapter.Adapter`.

    Boxes of a frame are in its metadata as left, top, right, bottom in pixels. ``test`` and ``seq`` have no categories in their names and are not read.
    """
    source = data_folder(source, "train and val")
    found = {name: find_folder(source, name) for name in ("train", "val")}
    places = {name: place for name, place in found.items() if place is not None}
    if not places:
        raise InputError(f"{source} should hold train or val, in each a folder for every category")
    chosen = {name: places[name] for name in choose_splits(places, split, source)}
    notes: list[str] = []
    count, file = write_samples(
        Path(out), take(_samples(source, chosen, notes), limit), f"{source} holds no *_rgb.json"
    )
    return Conversion(count, file, [source], notes)
