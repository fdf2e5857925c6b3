"""Rasters with any number of bands, read by window: GeoTIFF, PNG and the like, ``.npy``, or one array of an ``.npz`` file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.pixels import (
    MAX_BYTES,
    MAX_PIXELS,
    RASTER_SUFFIXES,
    bands_of_raster,
    mask_of_raster,
    npy_header,
    open_tiff,
    read_pixels,
)

SAMPLED_PIXELS = 1 << 22
"""Percentiles of a larger GeoTIFF are taken from a regular subsample of about this many pixels."""

_GRID_TOLERANCE = 1e-3  # of a pixel, between the corners of two rasters that claim one grid


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a raster lies: ``crs`` is a rasterio CRS, ``transform`` the affine map from (column, row) to its coordinates."""

    crs: Any
    transform: Any

    def at(self, row: float, col: float) -> tuple[float, float]:
        """Coordinates in ``crs`` of a position in pixels."""
        t = self.transform
        return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f

    def lat_lon(self, row: float, col: float) -> tuple[float, float]:
        """Latitude and longitude (WGS 84, degrees) of a position in pixels, (0, 0) being the outer upper left corner."""
        from rasterio.warp import transform

        x, y = self.at(row, col)
        longitudes, latitudes = transform(self.crs, "EPSG:4326", [x], [y])[:2]
        return round(float(latitudes[0]), 5), round(float(longitudes[0]), 5)

    @property
    def gsd_m(self) -> float | None:
        """Side of a pixel in metres, None for coordinates that are no lengths."""
        if not self.crs.is_projected:
            return None
        return round(float(np.hypot(self.transform.a, self.transform.d)) * float(self.crs.linear_units_factor[1]), 6)


@dataclass(frozen=True, slots=True)
class Raster:
    """One date of a pair. Small files are held as an array; a larger GeoTIFF is read by window."""

    name: str
    """Path, and key of the array within it, for messages."""
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    array: NDArray[Any] | None = None
    """(bands, height, width)."""
    data: NDArray[np.bool_] | None = None
    """(height, width), the pixels of ``array`` that the file's own mask or alpha band says hold data; None where all do."""
    path: Path | None = None
    """The GeoTIFF to read windows from, where ``array`` is None."""
    nodata: float | None = None
    """The file's own nodata value."""
    georeference: Georeference | None = None

    def window(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The pixels (bands, height, width) from (row, col) on, in the raster's dtype, and which of them hold data, as ``data``."""
        if self.array is not None:
            here = slice(row, row + height), slice(col, col + width)
            return self.array[:, *here], None if self.data is None else self.data[here]
        from rasterio.windows import Window

        return self._read(window=Window(col, row, width, height))

    def overview(self) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The whole raster as :meth:`window` gives it, or of a large one a regular subsample of about ``SAMPLED_PIXELS`` pixels."""
        if self.array is not None:
            return self.array, self.data
        step = max(1, int(np.ceil(np.sqrt(self.height * self.width / SAMPLED_PIXELS))))
        # Nearest neighbour (the default) keeps real values, nodata among them.
        return self._read(size=(max(1, self.height // step), max(1, self.width // step)))

    def _read(self, size: tuple[int, int] | None = None, **part: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        assert self.path is not None
        with open_tiff(self.path) as source:
            used = bands_of_raster(source, self.bands)
            data = mask_of_raster(source, used, **part, **({} if size is None else {"out_shape": size}))
            shape = {} if size is None else {"out_shape": (self.bands, *size)}
            return source.read(used, **part, **shape), data


def _tiff(path: Path, bands: int | None) -> Raster:
    with open_tiff(path) as source:
        used = bands_of_raster(source, 1 if bands is None else bands)
        if len(set(source.dtypes)) != 1:
            raise InputError(f"{path} mixes the types {', '.join(source.dtypes)}; its bands must have one")
        if "complex" in source.dtypes[0]:
            raise InputError(f"{path} holds complex numbers; a raster holds real numbers")
        dtype = np.dtype(source.dtypes[0])
        pixels = source.height * source.width
        large = pixels > MAX_PIXELS or pixels * len(used) * dtype.itemsize > MAX_BYTES
        return Raster(
            name=str(path),
            height=source.height,
            width=source.width,
            bands=len(used),
            dtype=dtype,
            array=None if large else source.read(used),
            data=None if large else mask_of_raster(source, used),
            path=path,
            nodata=None if source.nodata is None else float(source.nodata),
            georeference=None if source.crs is None else Georeference(source.crs, source.transform),
        )


def _npz_array(path: Path, key: str) -> NDArray[Any]:
    """One named array of an ``.npz`` file; its declared size is checked before it is read, pickles are refused."""
    with (
        as_input_error(f"{path} cannot be read as NumPy arrays", ValueError, OSError, KeyError),
        np.load(path, allow_pickle=False) as loaded,
    ):
        if key not in loaded.files:
            raise InputError(f"{path} holds no array {key!r}; it holds {', '.join(loaded.files)}")
        with loaded.zip.open(key + ".npy") as member:
            shape, dtype = npy_header(member)
        if len(shape) not in (2, 3) or np.prod(sorted(shape)[-2:]) > MAX_PIXELS:
            raise InputError(
                f"{path}:{key} has shape {shape}; a raster is (bands, H, W) of at most {MAX_PIXELS:,} pixels"
            )
        if np.prod(shape) * dtype.itemsize > MAX_BYTES:
            raise InputError(
                f"{path}:{key} has shape {shape} of {dtype}, more than the {MAX_BYTES:,} bytes that are read"
            )
        array: NDArray[Any] = loaded[key]
        return array


def open_raster(path: Path, key: str | None = None, bands: int | None = None) -> Raster:
    """Open one date of a pair.

    Args:
        path: GeoTIFF, ``.npy``, ``.npz`` or any image that Pillow reads.
        key: name of the array within an ``.npz`` file that holds several.
        bands: how many bands are declared. NumPy arrays of three axes have their bands first unless only the last axis fits.

    Raises:
        InputError: missing or broken file, pixels that are not real numbers, or another number of bands than declared.
    """
    if not path.is_file():
        raise InputError(f"the raster {path} does not exist")
    if path.suffix.lower() in RASTER_SUFFIXES:
        raster = _tiff(path, bands)
    else:
        array = _npz_array(path, key) if key is not None else read_pixels(path)
        if array.ndim == 2:
            array = array[None]
        # Pictures have their bands last. NumPy files may have either, and 6 x H x W is the custom of remote sensing.
        elif path.suffix.lower() not in {".npy", ".npz"} or (bands == array.shape[-1] and bands != array.shape[0]):
            array = np.moveaxis(array, -1, 0)
        name = f"{path}:{key}" if key is not None else str(path)
        raster = Raster(name, array.shape[1], array.shape[2], array.shape[0], array.dtype, array)
    if raster.dtype.kind not in "uifb":
        raise InputError(f"{raster.name} holds {raster.dtype} values; a raster holds real numbers")
    if bands is not None and raster.bands != bands:
        raise InputError(f"{raster.name} has {raster.bands} bands, but {bands} are declared in 'bands'")
    return raster


def check_same_grid(before: Raster, after: Raster) -> None:
    """Two rasters must be co-registered: equal size and, where both say so, equal reference system and transform.

    Raises:
        InputError: naming what differs.
    """
    if (before.height, before.width) != (after.height, after.width):
        raise InputError(
            f"{before.name} is {before.width} x {before.height} pixels, {after.name} {after.width} x {after.height}; "
            f"the two dates of a pair must be co-registered on one grid"
        )
    here, there = before.georeference, after.georeference
    if here is None or there is None:
        return
    if here.crs != there.crs:
        raise InputError(f"{before.name} is in {here.crs}, {after.name} in {there.crs}; warp one of them first")
    if grid_offset(here, there, before.height, before.width) > _GRID_TOLERANCE:
        raise InputError(
            f"{before.name} and {after.name} have different transforms ({tuple(here.transform)[:6]} and "
            f"{tuple(there.transform)[:6]}); resample one of them onto the other's grid first"
        )


def grid_offset(here: Georeference, there: Georeference, height: int, width: int) -> float:
    """How far apart the corners of two grids of one size and reference system lie, in pixels of the first.

    A shift, another resolution and a rotation all move a corner.
    """
    pixel = max(abs(here.transform.a), abs(here.transform.b), abs(here.transform.d), abs(here.transform.e))
    corners = ((0, 0), (height, width), (0, width), (height, 0))
    apart = (abs(a - b) for corner in corners for a, b in zip(here.at(*corner), there.at(*corner), strict=True))
    return float(max(apart) / pixel)


def georeference_of(path: Path) -> Georeference | None:
    """Where a GeoTIFF lies, from its header; None for other files and for one that does not say. Raises :class:`ImageError`."""
    if path.suffix.lower() not in RASTER_SUFFIXES:
        return None
    with open_tiff(path) as source:
        return None if source.crs is None else Georeference(source.crs, source.transform)


def present(
    pixels: NDArray[Any], nodata: Sequence[float | None] = (), data: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """(H, W) bool of (bands, H, W) pixels: finite in every band, equal to no nodata value in any band, and among ``data`` if given.

    One missing band makes the pixel useless for indices, so it counts as missing as a whole.
    """
    usable = np.ones(pixels.shape[1:], bool) if data is None else data.copy()
    if pixels.dtype.kind == "f":
        usable &= np.isfinite(pixels).all(0)
    for value in nodata:
        if value is not None and np.isfinite(value):
            usable &= (pixels != value).all(0)
    return usable


def tile_origins(height: int, width: int, tile: int, stride: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of the upper left corners of all whole tiles, row by row."""
    for row in range(0, height - tile + 1, stride):
        for col in range(0, width - tile + 1, stride):
            yield row, col


@dataclass(frozen=True, slots=True)
class Stretch:
    """Limits per band (red, green, blue, or all of a raster) that become 0 and 255."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, rgb: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(3, H, W) pixels as (H, W, 3) uint8; pixels that are not usable are black."""
        low, high = np.array(self.low)[:, None, None], np.array(self.high)[:, None, None]
        scaled = (np.where(usable, rgb, 0).astype(np.float64) - low) / np.maximum(high - low, 1e-12)
        grey = np.where(usable, np.clip(scaled, 0, 1) * 255 + 0.5, 0).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(grey, 0, -1))


def fit_stretch(values: NDArray[Any], percentiles: tuple[float, float]) -> Stretch:
    """Percentile limits of (3, n) usable values; a band with one value only is given a range of one unit."""
    low, high = np.percentile(values.astype(np.float64), percentiles, axis=1)
    high = np.where(high > low, high, low + 1)
    return Stretch(tuple(low.round(6).tolist()), tuple(high.round(6).tolist()))
