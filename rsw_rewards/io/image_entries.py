"""Images as they stand in records: a path, or an object with a path and how its numbers are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rsw_rewards.core.records import ImageRef, Palette, Stretch
from rsw_rewards.errors import InputError

MAX_BANDS = 4096
"""Most bands that a stretch is read for."""


@lru_cache(maxsize=64)
def _shared(palette: Palette) -> Palette:
    """The same object for equal palettes: a data set repeats one in every record."""
    return palette


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(type(level) is int and 0 <= level <= 255 for level in value)
    )


def _palette(value: Any) -> Palette | None:
    if value is None:
        return None
    if not (isinstance(value, list) and 0 < len(value) <= 256 and all(map(_is_colour, value))):
        raise InputError(f"'palette' must be 1 to 256 colours [red, green, blue] from 0 to 255, not {str(value)[:80]}")
    palette = tuple((red, green, blue) for red, green, blue in value)
    if len(set(palette)) < len(palette):
        raise InputError("'palette' names a colour twice; every class needs its own")
    return _shared(palette)


def _bands(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and all(type(band) is int for band in value)):
        raise InputError(f"'bands' must be a list of whole numbers from 0, not {str(value)[:80]}")
    return tuple(value)


def _stretch(value: Any) -> Stretch | None:
    if value is None:
        return None
    pairs = value if isinstance(value, list) and 0 < len(value) <= MAX_BANDS else []
    limits = [
        (float(pair[0]), float(pair[1]))
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(type(side) in (int, float) for side in pair)
    ]
    if len(limits) != len(pairs) or not limits or not all(math.isfinite(a + b) and a < b for a, b in limits):
        raise InputError(
            f"'stretch' must hold [low, high] for every band, the numbers shown as 0 and 255, not {str(value)[:80]}"
        )
    return tuple(limits)


def image_from_json(entry: Any, resolve: Any) -> ImageRef:
    """An image entry of a record, a path or ``{path, date?, role?, bands?, stretch?, nodata?, palette?}``; ``resolve`` makes its path safe.

    Raises:
        InputError: the entry is of another form, or its path leaves the roots.
    """
    if isinstance(entry, str):
        return ImageRef(path=resolve(entry))
    if isinstance(entry, Mapping) and isinstance(entry.get("path"), str):
        return ImageRef(
            path=resolve(entry["path"]),
            date=entry.get("date"),
            role=entry.get("role"),
            bands=_bands(entry.get("bands")),
            stretch=_stretch(entry.get("stretch")),
            nodata=entry.get("nodata"),
            palette=_palette(entry.get("palette")),
        )
    raise InputError(f"an image must be a path or an object with 'path', not {str(entry)[:80]!r}")
