"""Pixels by reference: where an image is, how it is read safely, and the hash that names its content.

Images travel as an :class:`ImageRef` (a file, an array, or an object in Ray's store), never as pixels through the driver.
Files come from third parties, so their size is checked before anything is decoded and pickled arrays are refused.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import numpy as np

from rsw_rewards.core.records import ImageRef, Palette, Stretch
from rsw_rewards.errors import ImageError
from rsw_rewards.pixels import PICTURE_FORMATS, check_size

T = TypeVar("T")


def _names_image(read: Callable[[ImageRef], T]) -> Callable[[ImageRef], T]:
    """A reader whose :class:`ImageError` names the reference that it was given."""

    @wraps(read)
    def named(image: ImageRef) -> T:
        try:
            return read(image)
        except ImageError as error:
            error.image = image
            raise

    return named


@_names_image
def read_size(image: ImageRef) -> tuple[int, int]:
    """Height and width of an image; of a picture file only the header is read. Raises :class:`ImageError`."""
    if image.path is None or image.path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        shape = image.pixels().shape
        return int(shape[0]), int(shape[1])
    from PIL import Image

    try:
        with Image.open(image.path, formats=PICTURE_FORMATS) as picture:
            check_size(picture.height, picture.width, image.path)
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{image.path} cannot be read as an image: {error}") from error


def stretched(pixels: np.ndarray, limits: Stretch) -> np.ndarray:
    """(H, W, C) numbers as (H, W, C) uint8: ``limits`` of each band become 0 and 255, what is not a number 0."""
    low, high = (np.array(side, np.float64) for side in zip(*limits, strict=True))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (pixels.astype(np.float64) - low) / np.maximum(high - low, 1e-12)
    grey: np.ndarray = (np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
    return grey


@_names_image
def read_rgb(image: ImageRef) -> np.ndarray:
    """An image as (H, W, 3) uint8 in [0, 255].

    Grey images are repeated; rasters with more bands show those named by ``image.bands``. Only uint8 (and boolean) pixels
    have a defined brightness; numbers of other types are shown where ``image.stretch`` says between which of them.

    Raises:
        ImageError: unreadable, more than three bands and no band mapping, not uint8 and no stretch, or either does not fit.
    """
    pixels = image.pixels(colours=True)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype != np.uint8 and image.stretch is None:
        raise ImageError(
            f"{image} holds {pixels.dtype} values; an image to look at is uint8 in 0..255, or says by 'stretch' which numbers are dark"
            " and bright"
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise ImageError(f"{image} has shape {pixels.shape}; an image is (H, W) or (H, W, bands)")
    count, limits = pixels.shape[-1], image.stretch
    if limits is not None and len(limits) != count:
        raise ImageError(f"{image} has {count} bands, but its stretch gives the limits of {len(limits)}")
    if count == 1:
        pixels, limits = np.repeat(pixels, 3, axis=-1), None if limits is None else limits * 3
    if image.bands is not None:
        if len(image.bands) != 3 or max(image.bands) >= pixels.shape[-1] or min(image.bands) < 0:
            raise ImageError(f"{image} has {count} bands; the band mapping {list(image.bands)} does not fit it")
        pixels = pixels[..., list(image.bands)]
        limits = None if limits is None else tuple(limits[band] for band in image.bands)
    if pixels.shape[-1] != 3:
        raise ImageError(f"{image} has shape {pixels.shape}; give its 'bands' [red, green, blue] to look at it")
    if limits is None:
        return pixels
    if pixels.dtype.kind not in "uif":
        raise ImageError(f"{image} holds {pixels.dtype} values; a raster holds real numbers")
    return stretched(pixels, limits)


def _indices_of(pixels: np.ndarray, palette: Palette, name: str) -> np.ndarray:
    """(H, W) uint8 places in the palette of (H, W, 3) or grey (H, W) uint8 colours."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise ImageError(
            f"{name} has shape {pixels.shape} of {pixels.dtype}; a map in colours has three bands of uint8"
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
        raise ImageError(f"{name} holds the colour {colour}, which is not one of the {len(known)} of its palette")
    indices: np.ndarray = order[place].astype(np.uint8)
    return indices


@_names_image
def read_index(image: ImageRef) -> np.ndarray:
    """A map of class indices as an (H, W) integer array: values as stored, or those that ``image.palette`` gives to the colours.

    Raises:
        ImageError: unreadable, a colour image without a palette, or a colour that the palette does not have.
    """
    if image.palette is not None:
        return _indices_of(image.pixels(colours=True), image.palette, str(image))
    pixels = image.pixels()
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "uib":
        raise ImageError(f"{image} has shape {pixels.shape} of {pixels.dtype}; an index map has one band of integers")
    return pixels


@_names_image
def read_mask(image: ImageRef) -> np.ndarray:
    """A change mask as (H, W) bool: values over 127 are True.

    Raises:
        ImageError: unreadable, or stored as 0/1, which the rule would read as "nothing changed".
    """
    pixels = read_index(image)
    if pixels.dtype == bool:
        return pixels
    if pixels.max(initial=0) == 1:
        raise ImageError(f"{image} holds the values 0 and 1; a mask holds 0 and 255 (over 127 is changed)")
    return pixels > 127


def encode_png(pixels: np.ndarray) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as PNG bytes (lossless)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a uint8 (H, W) or (H, W, 3) array as a PNG; the file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(encode_png(pixels))
    partial.replace(path)
