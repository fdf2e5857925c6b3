"""Adapter ``fmow``: sequences of fMoW (arXiv 1711.07846), frames of one place over time with the metadata of each.

Read in github.com/fMoW/baseline@26a59ed ``code/data_ml_functions/dataFunctions.py:49-75,111-158,240-253``, ``code/params.py:78`` and github.com/fMoW/dataset@035ab5e ``README.md:82-84``:
``{train,val}/<category>/<category>_<place>/<name>_rgb.json`` beside an image of that name, with ``timestamp``, ``gsd``, ``cloud_cover`` and ``bounding_boxes``, a list or one object of ``box``
(left, top, width, height in pixels) and ``category``. The frames of a folder are a sequence; they are shown by their timestamps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import IMAGE_SUFFIXES, choose_parts, data_folder, find_folder, inside, read_json
from rsw_rewards.data.scene_folders import spoken
from rsw_rewards.errors import InputError

CATEGORIES = (
    "airport", "airport_hangar", "airport_terminal", "amusement_park", "aquaculture", "archaeological_site", "barn", "border_checkpoint", "burial_site",
    "car_dealership", "construction_site", "crop_field", "dam", "debris_or_rubble", "educational_institution", "electric_substation",
    "factory_or_powerplant", "fire_station", "flooded_road", "fountain", "gas_station", "golf_course", "ground_transportation_station", "helipad",
    "hospital", "interchange", "lake_or_pond", "lighthouse", "military_facility", "multi-unit_residential", "nuclear_powerplant", "office_building",
    "oil_or_gas_facility", "park", "parking_lot_or_garage", "place_of_worship", "police_station", "port", "prison", "race_track", "railway_bridge",
    "recreational_facility", "impoverished_settlement", "road_bridge", "runway", "shipyard", "shopping_mall", "single-unit_residential", "smokestack",
    "solar_farm", "space_facility", "stadium", "storage_tank", "surface_mine", "swimming_pool", "toll_booth", "tower", "tunnel_opening", "waste_disposal",
    "water_treatment_facility", "wind_farm", "zoo",
)  # fmt: skip
"""The categories as folders name them; the loader's 63rd, ``false_detection``, is none of train and val."""
VOCABULARY = tuple(map(spoken, CATEGORIES))
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


def _sequence(place: Path, source: Path, split: str) -> dict[str, Any] | None:
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
        "prompt": f"The images show one place over time. What is it? Answer with one of: {', '.join(VOCABULARY)}.",
        "reference": {"label": spoken(category), "vocabulary": list(VOCABULARY)},
        "metadata": {"dataset": "fmow", "split": split, "frames": [frame[2] for frame in frames]},
    }


def _samples(source: Path, places: dict[str, Path]) -> Iterator[dict[str, Any]]:
    for split, place in places.items():
        for folder in sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            if folder.name not in CATEGORIES:
                raise InputError(
                    f"{folder} is called after none of fMoW's {len(CATEGORIES)} categories, such as airport"
                )
            for entry in sorted(folder.iterdir()):
                made = _sequence(entry, source, split) if entry.is_dir() else None
                if made is not None:
                    yield made


def fmow(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write a sample a place. See :class:`rsw_rewards.data.adapter.Adapter`.

    Boxes of a frame are in its metadata as left, top, right, bottom in pixels. ``test`` and ``seq`` have no categories in their names and are not read.
    """
    source = data_folder(source, "train and val")
    places = {name: find_folder(source, name) for name in ("train", "val")}
    chosen = choose_parts(places, split, source, "train or val, in each a folder for every category")
    return conversion(out, _samples(source, chosen), limit, f"{source} holds no *_rgb.json", [source])
