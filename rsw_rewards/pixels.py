"""Decoding of image files: size is checked before anything is decoded, pickled arrays are refused, and a hash names the content."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsw_rewards.errors import ImageError
from rsw_rewards.extras import need

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 1 << 26
"""Largest image that is decoded (67 million pixels, 8192 x 8192). A file that declares more is refused unread."""

MAX_BYTES = 1 << 30
"""Largest decoded size of a file with any number of bands and any type (1 GiB)."""

RASTER_SUFFIXES = frozenset({".tif", ".tiff"})

RASTER_DRIVER = "GTiff"
"""The only format that is looked for in a raster, whatever its content: others (VRT) name further files, or addresses."""

PICTURE_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats of Pillow that are looked for in a picture: others (EPS) start programs."""


def content_hash(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's dtype, shape and values: equal for a PNG, a copy in memory and an object in Ray's store."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_size(height: int, width: int, where: Path | str) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{where} declares {width} x {height} pixels, more than the {MAX_PIXELS:,} that are read; tile it first"
        )


def check_shape(shape: tuple[int, ...], itemsize: int, where: Path | str) -> None:
    """Refuse arrays that are no image, or that are too large in pixels or in bytes."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(f"{where} has shape {shape}; an image is (H, W) or (H, W, C)")
    check_size(shape[0], shape[1], where)
    if math.prod(shape) * itemsize > MAX_BYTES:
        raise ImageError(
            f"{where} declares an array of {shape}, more than the {MAX_BYTES:,} bytes that are read; tile it first"
        )


def _read_npz(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file or the only array of an ``.npz`` file, bands last. Object arrays (pickles) are refused."""
    try:
        # Memory is limited by the declared shape, which is read before the data. Content decides, not the suffix: a plain
        # array is mapped, an archive's member looked at.
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            check_shape(loaded.shape, loaded.dtype.itemsize, path)
            return np.asarray(loaded)
        with loaded:
            names = loaded.files
            if len(names) != 1:
                raise ImageError(f"{path} holds the arrays {names}; an image file must hold exactly one")
            with loaded.zip.open(names[0] + ".npy") as member:
                version = np.lib.format.read_magic(member)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(member)
            check_shape(shape, dtype.itemsize, path)
            return loaded[names[0]]
    except (ImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # of a broken archive: encrypted, of an unknown method, damaged in one of four compressions
        raise ImageError(f"{path} cannot be read as a NumPy image: {error}") from error


def _read_raster(path: Path) -> np.ndarray:
    need(f"the TIFF file {path}", "rasterio")
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver=RASTER_DRIVER) as raster:
                itemsize = max(np.dtype(kind).itemsize for kind in raster.dtypes)
                check_shape((raster.height, raster.width, raster.count), itemsize, path)
                bands = raster.read()
    except RasterioError as error:
        raise ImageError(f"{path} cannot be read as a raster: {error}") from error
    return bands[0] if bands.shape[0] == 1 else np.moveaxis(bands, 0, -1)


def read_pixels(path: Path, colours: bool = False) -> np.ndarray:
    """Decode an image file: PNG, JPEG and the like, GeoTIFF, ``.npy`` or ``.npz``.

    Returns:
        (H, W) or (H, W, C) array in the file's own dtype. Palette images give their indices, or their ``colours``.

    Raises:
        ImageError: the file is missing, not an image, broken, or declares more than ``MAX_PIXELS`` pixels.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113  (False, and no error, for a name that is too long)
        raise ImageError(f"the image {path} does not exist")
    if path.suffix.lower() in {".npy", ".npz"}:
        return _read_npz(path)
    if path.suffix.lower() in RASTER_SUFFIXES:
        return _read_raster(path)
    return read_picture(path, str(path), colours)


def read_picture(file: Path | bytes, where: str, colours: bool = False) -> np.ndarray:
    """Decode a file of one of :data:`PICTURE_FORMATS`, or the bytes of one, as :func:`read_pixels` does; ``where`` names it in errors."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked just below
            source = io.BytesIO(file) if isinstance(file, bytes) else file
            with Image.open(source, formats=PICTURE_FORMATS) as image:
                return picture_pixels(image, where, colours)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{where} declares more than the {MAX_PIXELS:,} pixels that are read; tile it first"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{where} cannot be read as an image: it is of none of the formats {', '.join(PICTURE_FORMATS)}"
        ) from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever a broken file makes a decoder raise
        raise ImageError(f"{where} cannot be read as an image: {error}") from error


def picture_pixels(image: PIL.Image.Image, where: str, colours: bool = False) -> np.ndarray:
    """The pixels of a Pillow image: (H, W) or (H, W, 3). Transparency is left out, other colour spaces become RGB."""
    check_size(image.height, image.width, where)
    if (colours and image.mode == "P") or image.mode in {"RGBA", "CMYK", "YCbCr", "HSV", "LAB", "LA", "PA"}:
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)
