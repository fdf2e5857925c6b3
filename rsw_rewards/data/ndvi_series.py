"""Adapter ``ndvi-series``: a stack of NDVI frames with cloud masks becomes forecasts of its last dates, tile by tile.

Expected in one folder: one ``.npz`` with the arrays ``ndvi_int16_x10000`` (T, H, W), ``cloud_mask`` (T, H, W, 1 where a cloud hides the
ground) and optionally ``is_valid`` (T, H, W) and ``lulc`` (H, W land-cover codes), and ``timestamps.json`` with T ISO dates.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.earthnet import opened_npz
from rsw_rewards.data.layout import data_folder, read_json
from rsw_rewards.errors import InputError

SCALE = 10_000.0
TEXT = "Forecast the NDVI of the following dates."


def _stack(source: Path) -> tuple[np.ndarray, list[str], np.ndarray | None]:
    """(T, H, W) float32 NDVI with NaN where not observed, T dates, and the land cover where it is known."""
    files = sorted(source.glob("*.npz"))
    if len(files) != 1:
        raise InputError(f"{source} should hold one .npz with the series, not {len(files)}")
    with opened_npz(files[0], "arrays", "; cut it into parts") as stored:
        arrays = {name: stored[name] for name in stored.files}
    if missing := {"ndvi_int16_x10000", "cloud_mask"} - arrays.keys():
        raise InputError(f"{files[0]} lacks the array {min(missing)!r}; it holds {', '.join(sorted(arrays))}")
    values, clouded = arrays["ndvi_int16_x10000"], arrays["cloud_mask"].astype(bool)
    seen = (
        ~clouded & arrays.get("is_valid", np.ones(values.shape, bool)).astype(bool)
        if clouded.shape == values.shape
        else None
    )
    if values.ndim != 3 or seen is None or seen.shape != values.shape:
        raise InputError(f"{files[0]}: the series and its masks must have one shape (T, H, W)")
    dates = read_json(source / "timestamps.json", source)
    if not isinstance(dates, list) or len(dates) != len(values) or not all(isinstance(day, str) for day in dates):
        raise InputError(f"{source / 'timestamps.json'} should be a list of {len(values)} dates, one for every frame")
    days = [day[:10] for day in dates]
    if days != sorted(days):
        raise InputError(f"{source / 'timestamps.json'}: the dates are not in order")
    return np.where(seen, values / np.float32(SCALE), np.nan).astype(np.float32), days, arrays.get("lulc")


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, horizon: int = 20, tile: int = 16
) -> Conversion:
    """Write forecast samples of the last ``horizon`` dates. See :class:`rsw_rewards.data.adapter.Adapter`.

    Frames are written to ``out/frames`` as float32 ``.npy`` files, since a record names one image a frame. Tiles of one series are
    neighbours: each is a scene of its own (a declared block), and a note says that intervals over them are narrow.

    Args:
        horizon: dates to forecast, at the end of the series.
        tile: side of a tile in pixels; 0 for the whole frame.
    """
    source = data_folder(source, "the series and timestamps.json")
    if split is not None:
        raise InputError("a series has no splits; leave --split out")
    frames, days, cover = _stack(source)
    if not 0 < horizon < len(frames):
        raise InputError(f"a horizon of {horizon} does not fit a series of {len(frames)} dates")
    records = _records(frames, days, cover, Path(out), horizon, tile, source.name)
    note = f"tiles of {tile} pixels are counted as scenes; they are neighbours, so intervals over them are too narrow"
    what = "the frames are smaller than a tile"
    return conversion(out, records, limit, what, [Path(out)], [note if tile else ""])


def _records(
    frames: np.ndarray, days: list[str], cover: np.ndarray | None, out: Path, horizon: int, tile: int, name: str
) -> Iterator[dict[str, Any]]:
    height, width = frames.shape[1:]
    side_y, side_x = (tile, tile) if tile else (height, width)
    (out / "frames").mkdir(parents=True, exist_ok=True)
    for top in range(0, height - side_y + 1, side_y):
        for left in range(0, width - side_x + 1, side_x):
            place = f"{name}/{top}_{left}"
            cut = np.s_[top : top + side_y, left : left + side_x]
            entries = []
            for number, day in enumerate(days):
                path = f"frames/{top}_{left}_{number:03d}.npy"
                np.save(out / path, np.ascontiguousarray(frames[number][cut]), allow_pickle=False)
                entries.append({"path": path, "date": day})
            metadata: dict[str, Any] = {"dataset": "ndvi_series", "gsd_m": 10.0}
            if cover is not None:
                codes, counts = np.unique(cover[cut], return_counts=True)
                metadata["land_cover"] = int(codes[counts.argmax()])
            yield {
                "id": place,
                "task": "forecast",
                "scene": place,
                "images": entries[:-horizon],
                "prompt": TEXT,
                "reference": {"images": entries[-horizon:]},
                "metadata": metadata,
            }
