"""Tiles that keep every band of a raster: which numbers are stored, how they are shown, and how they are written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.data.raster_specs import PairSpec
from rsw_rewards.data.rasters import Georeference, Raster, Stretch
from rsw_rewards.errors import InputError
from rsw_rewards.extras import need
from rsw_rewards.pixels import RASTER_DRIVER


def check_kept(spec: PairSpec, rasters: tuple[Raster, Raster], stretch: str, dark_object: float | None) -> None:
    """Raise :class:`InputError` where the bands of a pair cannot be kept in one meaning of their numbers."""
    first, last = (raster.dtype for raster in rasters)
    if first != last:
        raise InputError(
            f"{spec.scene}: the dates hold {first} and {last}; 'keep_bands' needs one type, and one scale, for both"
        )
    if first.kind not in "uif":
        raise InputError(f"{spec.scene}: 'keep_bands' keeps numbers, not {first} values")
    if stretch == "raster":
        raise InputError(
            f"{spec.scene}: with 'keep_bands' a number must look the same on both dates; write stretch: pair"
        )
    if dark_object is not None and (spec.valid_range is not None or spec.add_offset is not None):
        raise InputError(
            f"{spec.scene}: 'dark_object' is for raw counts, 'valid_range' and 'add_offset' for calibrated numbers; leave one out"
        )


def whole_haze(haze: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Haze as it can be taken off stored numbers: whole where they are."""
    return np.rint(haze) if dtype.kind in "ui" else haze


def storable(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """A value for "no data" that pixels of this type can hold; None for any other."""
    if nodata is None or dtype.kind == "f":
        return nodata
    limits = np.iinfo(dtype)
    return nodata if float(nodata).is_integer() and limits.min <= nodata <= limits.max else None


def kept_bands(
    window: NDArray[Any], usable: NDArray[np.bool_], haze: NDArray[np.float64] | None, nodata: float | None
) -> NDArray[Any]:
    """A tile in all bands, (H, W, C), in the type of the raster (float32 for half floats).

    Args:
        window: (C, H, W) as stored.
        usable: (H, W). Other pixels hold ``nodata``, without one NaN or, in whole numbers, 0.
        haze: (C,) to take off, not below 0, or None.
        nodata: the raster's value for "no data"; None where haze is taken off, since a dark pixel may then come to hold it.
    """
    dtype = np.dtype(np.float32) if window.dtype == np.float16 else window.dtype.newbyteorder("=")
    pixels = np.moveaxis(window, 0, -1)
    if haze is not None:
        pixels = np.maximum(pixels.astype(np.float64) - haze, 0.0)
    hole = nodata if nodata is not None else (np.nan if dtype.kind == "f" else 0)
    kept: NDArray[Any] = np.where(usable[..., None], pixels, np.asarray(hole)).astype(dtype)
    return np.ascontiguousarray(kept)


def how_shown(bands: Sequence[str], stretch: Stretch | None, nodata: float | None) -> dict[str, Any]:
    """What an image reference says of such a tile. ``stretch`` holds limits of all bands; None for uint8 shown as it is."""
    limits = None if stretch is None else tuple(zip(stretch.low, stretch.high, strict=True))
    rgb = tuple(bands.index(name) for name in ("red", "green", "blue"))
    known = nodata is not None and np.isfinite(nodata)
    return {"bands": rgb, "stretch": limits, "nodata": nodata if known else None}


def meaning(spec: PairSpec) -> dict[str, Any]:
    """The metadata by which verifiers know the bands and numbers of a pair; see :mod:`rsw_rewards.verifiers.bands`."""
    said: Mapping[str, Any] = {
        "bands": list(spec.bands),
        "valid_range": None if spec.valid_range is None else list(spec.valid_range),
        "scale_factor": spec.scale_factor,
        "add_offset": spec.add_offset,
    }
    return {key: value for key, value in said.items() if value is not None}


def write_raster(
    path: Path, pixels: NDArray[Any], bands: Sequence[str], nodata: float | None, place: Georeference | None
) -> None:
    """Write an (H, W, C) tile as a GeoTIFF with named bands, none of them alpha; the file appears whole or not at all.

    Args:
        place: of the tile, if it is known where it lies.
    """
    need("a tile that is written as GeoTIFF", "rasterio")
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    height, width, count = pixels.shape
    where = {} if place is None else {"crs": place.crs, "transform": place.transform}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(
            partial, "w", driver=RASTER_DRIVER, height=height, width=width, count=count, dtype=pixels.dtype,
            nodata=nodata, compress="deflate", alpha="no", **where,
        ) as file,
    ):  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
        for number, name in enumerate(bands, start=1):
            file.set_band_description(number, name)
    partial.replace(path)


def tile_place(place: Georeference | None, row: int, col: int) -> Georeference | None:
    """Where the tile lies whose upper left pixel is (row, col)."""
    if place is None:
        return None
    from rasterio.windows import Window, transform

    return Georeference(place.crs, transform(Window(col, row, 1, 1), place.transform))
