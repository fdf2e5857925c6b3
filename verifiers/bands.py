"""Rasters with any number of bands as input, future and forecast: read as they are stored, with the pixels that count.

What a sample says of its rasters, in ``metadata`` (the last three are the names of the CF conventions):

* ``bands``: a name for every band in the order of the file, from :data:`rsw_rewards.data.spectral.BANDS`;
* ``valid_range``: ``[least, most]`` that the sensor can give, in stored numbers;
* ``scale_factor``, ``add_offset``: reflectance = stored * scale_factor + add_offset.

A pixel counts where ``reference.valid`` says so, where input and future are finite and hold their ``nodata`` value in no
band, and where ``reference.clouds`` does not lie over it. ``nodata`` of a forecast means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.data.rasters import Georeference, georeference_of, grid_offset
from rsw_rewards.data.spectral import BANDS
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_data

GRID_TOLERANCE_PX = 0.5
"""How far the corners of a georeferenced forecast may lie from where they should, in pixels."""


def stored_bands(image: ImageRef, count: int | None = None) -> np.ndarray:
    """All bands of an image, (H, W, C) in the type it is stored in. Raises :class:`ImageError` for what holds no real numbers.

    An alpha band is left out where ``count`` others are there; where that is not said, as many as its stretch has.
    """
    if count is None and image.stretch is not None:
        count = len(image.stretch)
    pixels = image.pixels(bands=count)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.dtype.kind not in "uif" or 0 in pixels.shape:
        raise ImageError(
            f"{image} has shape {pixels.shape} of {pixels.dtype}; a raster is (H, W, bands) of real numbers"
        )
    return pixels


@dataclass(frozen=True, slots=True)
class Units:
    """What the stored numbers of a sample mean."""

    names: tuple[str, ...] | None
    """One per band; None where the sample does not say."""
    low: float
    """Least number that the sensor gives, as stored."""
    high: float
    factor: float
    offset: float

    def reflectance(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, C) stored pixels as (H, W) float64 reflectance by name; bands named ``other`` are left out."""
        assert self.names is not None
        return {
            name: pixels[..., place].astype(np.float64) * self.factor + self.offset
            for place, name in enumerate(self.names)
            if name != "other"
        }


def read_units(metadata: Mapping[str, Any], dtype: np.dtype[Any]) -> Units:
    """What ``metadata`` says of stored numbers of type ``dtype``.

    Without ``valid_range`` floats are reflectance in [0, 1] (before ``scale_factor``), and integers may hold all that their type can.

    Raises:
        ImageError: an unknown band or one named twice, or a range or scale that is no such thing.
    """
    names = metadata.get("bands")
    if names is not None:
        known = isinstance(names, Sequence) and not isinstance(names, str) and all(name in BANDS for name in names)
        if not known or len({*names} - {"other"}) != sum(name != "other" for name in names):
            raise ImageError(
                f"metadata.bands is {str(names)[:80]!r}; it must name each band once, from {', '.join(BANDS)}"
            )
        names = tuple(names)
    whole = dtype.kind in "ui"
    default = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if whole else (0.0, 1.0)
    low, high = _numbers(metadata, "valid_range", default)
    (factor,) = _numbers(metadata, "scale_factor", (1.0,))
    (offset,) = _numbers(metadata, "add_offset", (0.0,))
    if not low < high or factor <= 0:
        raise ImageError(
            f"metadata.valid_range [{low:g}, {high:g}] or scale_factor {factor:g} is no range or scale above 0"
        )
    return Units(names, low, high, factor, offset)


def _numbers(metadata: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = metadata.get(key)
    if value is None:
        return default
    found = value if isinstance(value, list | tuple) else [value]
    numbers = tuple(float(number) for number in found if isinstance(number, int | float) and np.isfinite(number))
    if len(numbers) != len(default) or len(found) != len(default):
        raise ImageError(f"metadata.{key} is {str(value)[:40]!r}; it must be {len(default)} number(s)")
    return numbers


SCALES = 50.0
"""How many times as large, or as small, the numbers of a forecast may be before they are on another scale. Reflectance and its
counts are 10,000 apart, or a few hundred in 8 bits; a dark forecast of a bright scene, or a green one of bare ground, stays below."""
LOOKED_AT = 100_000
"""Numbers of a raster, evenly spread, whose magnitude is taken."""


def check_numbers(forecast: np.ndarray, future: np.ndarray, valid: np.ndarray) -> None:
    """Raise :class:`ImageError` for a forecast on another scale of values than the true future, as its type or its numbers tell.

    The 99th percentile of the magnitudes may differ by a factor of :data:`SCALES`. Integers of 8 bits are another scale where the
    future's have more. A forecast of nothing but zeros is wrong, and on any scale.

    Args:
        forecast: (H, W, C) as stored; it may hold NaN.
        future: (H, W, C) as stored.
        valid: (H, W) bool, pixels that count.
    """
    made, true = forecast[valid], future[valid]
    other = "f" not in (made.dtype.kind, true.dtype.kind) and made.dtype.itemsize == 1 < true.dtype.itemsize
    if not other:
        sizes = _magnitude(made), _magnitude(true)
        other = min(sizes) > 0 and not 1 / SCALES < sizes[0] / sizes[1] < SCALES
    if other:
        raise ImageError(
            f"the forecast holds {forecast.dtype} values, the true future {future.dtype} ones on another scale; write the forecast"
            " in the numbers of the sample"
        )


def _magnitude(numbers: np.ndarray) -> float:
    """99th percentile of the absolute values that are finite; 0 where there is none."""
    some = numbers.reshape(-1)[:: max(1, numbers.size // LOOKED_AT)].astype(np.float64)
    some = np.abs(some[np.isfinite(some)])
    return float(np.quantile(some, 0.99)) if some.size else 0.0


def check_place(forecast: ImageRef, grid: Georeference | None, shape: tuple[int, ...]) -> None:
    """Raise :class:`ImageError` for a georeferenced forecast that lies elsewhere than ``grid``; ``shape`` is (H, W)."""
    own = None if grid is None else grid_of(forecast)
    if own is None or grid is None:
        return
    if own.crs != grid.crs:
        raise ImageError(f"the forecast is in {own.crs}, the sample in {grid.crs}")
    offset = grid_offset(grid, own, *shape)
    if offset > GRID_TOLERANCE_PX:
        raise ImageError(f"a corner of the forecast lies {offset:.3g} pixels from that of the sample")


def check_holes(forecast: ImageRef, count: int, valid: np.ndarray | None) -> None:
    """Raise :class:`ImageError` for a file whose own mask or alpha band says that it has no data at pixels that count.

    Args:
        forecast: of the size of ``valid``.
        count: bands that it has beside an alpha band, at least.
        valid: (H, W) bool, pixels that count; None for all.
    """
    data = read_data(forecast, count)
    if data is not None and (holes := int((~data if valid is None else valid & ~data).sum())):
        raise ImageError(
            f"the forecast has no data at {holes} of {data.size if valid is None else int(valid.sum())} pixels that count, as its mask or"
            " alpha band says"
        )


def check_raster(forecast: ImageRef, future: ImageRef, valid: np.ndarray | None) -> None:
    """Raise :class:`ImageError` for a forecast raster that cannot be shown as the true future is.

    It has holes where pixels count (a stretch would draw them black), another number of bands, numbers on another scale, or lies
    elsewhere.

    Args:
        forecast, future: rasters of one height and width.
        valid: (H, W) bool, pixels that count; None for all.
    """
    true = stored_bands(future)
    made = stored_bands(forecast, true.shape[2])
    if made.shape != true.shape:
        raise ImageError(f"the forecast is {size_of(made)}, the true future {size_of(true)}")
    counted = np.ones(made.shape[:2], dtype=bool) if valid is None else valid
    if made.dtype.kind == "f" and (holes := int((counted & ~np.isfinite(made).all(axis=-1)).sum())):
        raise ImageError(f"the forecast has no number at {holes} of {int(counted.sum())} pixels that count")
    check_numbers(made, true, counted)
    check_place(forecast, grid_of(future), counted.shape)


def grid_of(image: ImageRef) -> Georeference | None:
    """Where an image lies, if its file says so."""
    return None if image.path is None else georeference_of(image.path)


def size_of(pixels: np.ndarray) -> str:
    """Width, height and bands in words."""
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels of {pixels.shape[2]} bands"
