"""How a folder says which raster pairs it holds: by ``pairs.yaml``, or by the names ``t1.*`` and ``t2.*`` of its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.data.rasters import open_raster
from rsw_rewards.errors import InputError
from rsw_rewards.io.text_files import read_records

DESCRIPTIONS = ("pairs.yaml", "pairs.yml", "pairs.json")
BUNDLE = "bands_uint8.npz"
"""A file with the arrays t1 and t2, each (6, H, W), bands as in ``LANDSAT_BANDS``."""
DARK_PERCENTILE = 0.1
"""Haze is taken off such a file by default: its 8-bit counts are not reflectance, and indices of raw counts are far off."""
LANDSAT_BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
_SUFFIXES = (".tif", ".tiff", ".npz", ".npy", ".png", ".jpg", ".jpeg", ".bmp")


def find_pairs(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """The pairs of a folder as they are described, options that hold for all, and the file or folder that says so.

    Raises:
        InputError: no folder, no pairs in it, or a description that is not one.
    """
    if not folder.is_dir():
        raise InputError(
            f"the folder {folder} with raster pairs does not exist; name the folder that holds the data in 'path' "
            f"(or set the environment variable that the path reads)"
        )
    for name in DESCRIPTIONS:
        if (folder / name).is_file():
            return _described(folder / name)
    plain = [folder] if _is_pair(folder) else sorted(child for child in folder.iterdir() if _is_pair(child))
    if not plain:
        raise InputError(
            f"{folder} holds no raster pairs: neither {DESCRIPTIONS[0]} nor files t1.* and t2.* were found"
        )
    raw_counts = any((place / BUNDLE).is_file() for place in plain)
    defaults = {"dark_object": DARK_PERCENTILE} if raw_counts else {}
    return [_recognise(place, folder) for place in plain], defaults, str(folder)


def _described(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    content = read_yaml(file)  # JSON is YAML, too
    pairs, options = content.get("pairs"), content.get("options") or {}
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, dict) for pair in pairs):
        raise InputError(f"{file} must hold 'pairs', a list of descriptions that is not empty")
    if not isinstance(options, dict):
        raise InputError(f"{file}: 'options' must be a mapping")
    strange = set(content) - {"pairs", "options"}
    if strange:
        raise InputError(f"{file}: unknown key {min(strange)!r}; known are pairs, options")
    return pairs, options, str(file)


def _one(folder: Path, stem: str) -> Path | None:
    """The file of that stem with the suffix that carries most."""
    found = (folder / f"{stem}{suffix}" for suffix in _SUFFIXES)
    return next((file for file in found if file.is_file()), None)


def _is_pair(folder: Path) -> bool:
    return folder.is_dir() and bool((folder / BUNDLE).is_file() or (_one(folder, "t1") and _one(folder, "t2")))


def _recognise(place: Path, folder: Path) -> dict[str, Any]:
    """A description of a plain folder, its paths relative to ``folder``."""
    prefix = "" if place == folder else f"{place.name}/"
    pair: dict[str, Any] = {"scene": place.resolve().name}
    if (place / BUNDLE).is_file():
        pair |= {"before": f"{prefix}{BUNDLE}:t1", "after": f"{prefix}{BUNDLE}:t2", "bands": list(LANDSAT_BANDS)}
    else:
        first, last = _one(place, "t1"), _one(place, "t2")
        assert first is not None and last is not None  # _is_pair
        bands = open_raster(first).bands
        if bands != 3:
            raise InputError(f"{first} has {bands} bands, and nothing says which; write {folder / DESCRIPTIONS[0]}")
        pair |= {"before": prefix + first.name, "after": prefix + last.name, "bands": ["red", "green", "blue"]}
    for mask in ("change", "unchanged", "nodata"):
        file = _one(place, mask)
        if file is not None:
            pair[mask] = prefix + file.name
    return pair | _manifest(place)


def _manifest(place: Path) -> dict[str, Any]:
    """Dates, resolution and sensor from a ``manifest.jsonl`` in the folder or beside it, where its id is the folder's name."""
    place = place.resolve()
    for file in (place / "manifest.jsonl", place.parent / "manifest.jsonl"):
        if not file.is_file():
            continue
        for _, record in read_records(file):
            if isinstance(record, Mapping) and record.get("id") == place.name:
                found = {key: record[key] for key in ("gsd_m", "sensor", "lat", "lon") if record.get(key) is not None}
                dates = record.get("dates") or [record.get("date_t1"), record.get("date_t2")]
                return found | ({"dates": dates} if all(dates) else {})
    return {}
