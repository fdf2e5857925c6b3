"""What the pixels of an image reference mean: a picture to look at, a mask, a map of classes, and which of them hold data.

An :class:`ImageRef` gives the stored numbers (``pixels``); :mod:`rsw_rewards.pixels` decodes a file, whose size is checked before that.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsw_rewards.core.files import atomic
from rsw_rewards.core.image_ref import ImageRef, named_in_errors
from rsw_rewards.core.image_values import Palette, Stretch
from rsw_rewards.errors import ImageError
from rsw_rewards.pixels import RASTER_SUFFIXES, picture_size, read_own_mask

Decoded = tuple[np.ndarray, "np.ndarray | None"]
"""An (H, W) map and the (H, W) bool pixels of it that hold data, None where all do."""


def read_size(image: ImageRef) -> tuple[int, int]:
    """Height and width of an image; of a picture file only the header is read. Raises :class:`ImageError`."""
    if image.path is None or image.path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        shape = image.pixels().shape
        return int(shape[0]), int(shape[1])
    with named_in_errors(image):
        return picture_size(image.path)


def declared_bands(image: ImageRef) -> int:
    """How many bands an image reference speaks of, at least: those beside an alpha band, if it has one."""
    return len(image.stretch) if image.stretch is not None else 1 + max(image.bands or (0,))


def read_data(image: ImageRef, bands: int | None = None) -> np.ndarray | None:
    """(H, W) bool, the pixels that a file's own mask or alpha band says hold data; None where all do. Raises :class:`ImageError`.

    ``bands`` are those beside an alpha band, at least: by default those of :func:`declared_bands`.
    """
    if image.path is None:
        return None
    with named_in_errors(image):
        return read_own_mask(image.path, declared_bands(image) if bands is None else bands)


def stretched(pixels: np.ndarray, limits: Stretch) -> np.ndarray:
    """(H, W, C) numbers as (H, W, C) uint8: ``limits`` of each band become 0 and 255, what is not a number 0."""
    low, high = (np.array(side, np.float64) for side in zip(*limits, strict=True))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (pixels.astype(np.float64) - low) / np.maximum(high - low, 1e-12)
    grey: np.ndarray = (np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
    return grey


def read_rgb(image: ImageRef) -> np.ndarray:
    """An image as (H, W, 3) uint8 in [0, 255].

    Grey images are repeated; rasters with more bands show those named by ``image.bands``. Only uint8 (and boolean) pixels
    have a defined brightness; numbers of other types are shown where ``image.stretch`` says between which of them.

    Raises:
        ImageError: unreadable, more than three bands and no band mapping, not uint8 and no stretch, or either does not fit.
    """
    pixels = image.pixels(colours=True, bands=declared_bands(image))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype != np.uint8 and image.stretch is None:
        raise ImageError(
            f"{image} holds {pixels.dtype} values; an image to look at is uint8 in 0..255, or says by 'stretch' which numbers are dark"
            " and bright",
            image,
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise ImageError(f"{image} has shape {pixels.shape}; an image is (H, W) or (H, W, bands)", image)
    count, limits = pixels.shape[-1], image.stretch
    if limits is not None and len(limits) != count:
        raise ImageError(f"{image} has {count} bands, but its stretch gives the limits of {len(limits)}", image)
    if count == 1:
        pixels, limits = np.repeat(pixels, 3, axis=-1), None if limits is None else limits * 3
    if image.bands is not None:
        if len(image.bands) != 3 or max(image.bands) >= pixels.shape[-1] or min(image.bands) < 0:
            raise ImageError(f"{image} has {count} bands; the band mapping {list(image.bands)} does not fit it", image)
        pixels = pixels[..., list(image.bands)]
        limits = None if limits is None else tuple(limits[band] for band in image.bands)
    if pixels.shape[-1] != 3:
        raise ImageError(f"{image} has shape {pixels.shape}; give its 'bands' [red, green, blue] to look at it", image)
    if limits is None:
        return pixels
    if pixels.dtype.kind not in "uif":
        raise ImageError(f"{image} holds {pixels.dtype} values; a raster holds real numbers", image)
    return stretched(pixels, limits)


def _indices_of(image: ImageRef, palette: Palette) -> np.ndarray:
    """(H, W) uint8 places in the palette of the (H, W, 3) or grey (H, W) uint8 colours of an image."""
    pixels = image.pixels(colours=True, bands=1)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise ImageError(
            f"{image} has shape {pixels.shape} of {pixels.dtype}; a map in colours has three bands of uint8", image
        )
    known, codes = (
        (colours[..., 0].astype(np.uint32) << 16) | (colours[..., 1].astype(np.uint32) << 8) | colours[..., 2]
        for colours in (np.array(palette, np.uint8), pixels)
    )
    order = np.argsort(known)
    place = np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)
    strange = known[order[place]] != codes
    if strange.any():
        colour = tuple(pixels[strange][0].tolist())
        raise ImageError(
            f"{image} holds the colour {colour}, which is not one of the {len(known)} of its palette", image
        )
    indices: np.ndarray = order[place].astype(np.uint8)
    return indices


def _one_band(image: ImageRef, kinds: str, wanted: str) -> np.ndarray:
    """(H, W) stored numbers of the NumPy ``kinds``; three equal bands are one."""
    pixels = image.pixels(bands=1)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in kinds:
        raise ImageError(f"{image} has shape {pixels.shape} of {pixels.dtype}; {wanted}", image)
    return pixels


def _places(image: ImageRef, pixels: np.ndarray, levels: Sequence[int], data: np.ndarray | None) -> np.ndarray:
    """(H, W) uint8 places of the stored values in ``levels``; 0 where there is no data."""
    places = np.zeros(pixels.shape, np.uint8)
    unknown = np.ones(pixels.shape, bool) if data is None else data.copy()
    for place, level in enumerate(levels):
        here = pixels == level
        places[here] = place
        unknown &= ~here
    if unknown.any():
        raise ImageError(
            f"{image} holds the value {pixels[unknown][0]}, which is none of the levels {list(levels)}", image
        )
    return places


OPAQUE = "write masks and maps without an alpha band"


def _data(image: ImageRef, pixels: np.ndarray) -> np.ndarray | None:
    """(H, W) bool, the pixels of a map that hold data: none of its nodata value, or masked in its file.

    Raises :class:`ImageError` for a picture that is transparent in parts: what is marked may stand in its colours or its alpha band.
    """
    data = read_data(image)
    if data is not None and image.path is not None and image.path.suffix.lower() not in RASTER_SUFFIXES:
        raise ImageError(f"{image} is transparent in parts; {OPAQUE}", image)
    if image.nodata is None:
        return data
    known: np.ndarray = pixels != image.nodata
    return known if data is None else known & data


def read_class_map(image: ImageRef) -> Decoded:
    """A map of class indices as an (H, W) integer array, and its pixels that hold data, (H, W) bool or None where all do.

    The indices are the values as stored, or the places that ``image.palette`` gives to colours and ``image.levels`` to values.

    Raises:
        ImageError: unreadable, a colour image without a palette, or a colour or value that palette or levels do not have.
    """
    if image.palette is not None:
        indices = _indices_of(image, image.palette)
        return indices, _data(image, indices)
    pixels = _one_band(image, "uib", "an index map has one band of integers")
    data = _data(image, pixels)
    return (pixels if image.levels is None else _places(image, pixels, image.levels, data)), data


def read_index(image: ImageRef) -> np.ndarray:
    """The indices of :func:`read_class_map`, whether they hold data or not. Raises :class:`ImageError`."""
    return read_class_map(image)[0]


def read_marked(image: ImageRef) -> Decoded:
    """A mask as (H, W) bool, and its pixels that hold data, (H, W) bool or None where all do; a pixel without data is False.

    Bool and 1-bit files are read as they are. Whole numbers are 0 (False) and 255 (True), with the noise that JPEG leaves beside
    both. Any other coding is declared: ``image.levels`` or ``image.palette`` (the first is False), ``image.threshold`` (over it is
    True), or ``image.nodata`` (0 and 1 are then a coding too).

    Raises:
        ImageError: unreadable, or other values than these, which it names.
    """
    if image.levels is not None or image.palette is not None:
        indices, data = read_class_map(image)
        marked = indices != 0
        return (marked if data is None else marked & data), data
    declared = image.threshold is not None
    pixels = _one_band(image, "uibf" if declared else "uib", _CODINGS)
    data = _data(image, pixels)
    known = pixels if data is None else np.where(data, pixels, pixels.dtype.type(0))
    if declared:
        if known.dtype.kind == "f" and np.isnan(known).any():
            raise ImageError(
                f"{image} holds values that are no numbers (NaN); a mask says yes or no in every pixel", image
            )
        marked = known > image.threshold
        return (marked if data is None else marked & data), data
    if image.nodata is not None and known.max(initial=0) == 1 and known.min(initial=0) >= 0:
        return known == 1, data
    if not is_binary(known, lossy=image.path is not None and image.path.suffix.lower() in {".jpg", ".jpeg"}):
        raise ImageError(f"{image} holds {values_of(known)}; {_CODINGS}", image)
    return known if known.dtype == bool else known > 127, data


_CODINGS = (
    "a mask holds 0 and 255; say what other values mean by 'threshold', 'levels' or 'nodata' in its entry, as in"
    " {path: FILE, threshold: 0} for over 0"
)

NOISE = 95
"""How far from 0 or 255 the noise of JPEG reaches at most; at quality 75 beside the edges of masks it is about 40."""


def is_binary(pixels: np.ndarray, lossy: bool = False) -> bool:
    """Whether all values are 0 or 255, or lie around both as the noise of JPEG does.

    Noise stands on both sides and leaves few gaps; class indices, instance numbers and percentages do not. In a ``lossy`` file it
    may stand on one side.
    """
    if pixels.dtype == bool:
        return True
    if pixels.dtype != np.uint8:
        return bool(((pixels == 0) | (pixels == 255)).all())
    signed = pixels.view(np.int8)  # 255 is -1
    if signed.min(initial=0) >= -1 and signed.max(initial=0) <= 0:
        return True
    (used,) = np.nonzero(np.bincount(pixels.ravel(), minlength=256))
    dark, bright = used[(used > 0) & (used < 128)], 255 - used[(used < 255) & (used > 127)]
    if lossy:
        return bool(used.max() > 127) and all(side.max(initial=0) <= NOISE for side in (dark, bright))
    return all(len(side) > 0 and side.max() <= min(NOISE, 8 * len(side)) for side in (dark, bright))


def values_of(pixels: np.ndarray) -> str:
    """The values of a map in words, at most six of them."""
    values = [str(value) for value in np.unique(pixels)]
    if len(values) == 1:
        return f"the value {values[0]}"
    if len(values) > 6:
        return f"{len(values)} values from {values[0]} to {values[-1]}"
    return f"the values {', '.join(values[:-1])} and {values[-1]}"


def read_mask(image: ImageRef, unknown: bool = False) -> np.ndarray:
    """The mask of :func:`read_marked` as (H, W) bool, with ``unknown`` where it holds no data. Raises :class:`ImageError`."""
    marked, data = read_marked(image)
    return marked | ~data if unknown and data is not None else marked


def encode_png(pixels: np.ndarray) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as PNG bytes (lossless)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a uint8 (H, W) or (H, W, 3) array as a PNG; the file appears whole or not at all."""
    with atomic(path) as partial:
        partial.write_bytes(encode_png(pixels))
