"""Decoding of image files: size is checked before anything is decoded, pickled arrays are refused, and a hash names the content."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from rsw_rewards.errors import ImageError
from rsw_rewards.extras import need

if TYPE_CHECKING:
    import PIL.Image
    from rasterio.io import DatasetReader

MAX_PIXELS = 1 << 26
"""Largest image that is decoded (67 million pixels, 8192 x 8192). A file that declares more is refused unread."""

MAX_BYTES = 1 << 29
"""Largest decoded size of a file with any number of bands and any type (512 MiB)."""

MAX_BANDS = 4096
"""Most bands of a raster."""

RASTER_SUFFIXES = frozenset({".tif", ".tiff"})
_ARRAY_SUFFIXES = frozenset({".npy", ".npz"})

RASTER_DRIVER = "GTiff"
"""The only format that is looked for in a raster, whatever its content: others (VRT) name further files, or addresses."""

PICTURE_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats of Pillow that are looked for in a picture: others (EPS) start programs."""


ORIENTATION = 0x0112
"""The tag of EXIF that says how an image is turned when it is shown."""


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


def check_file(path: Path) -> None:
    """Refuse what is no file, before it is opened: a pipe would be waited for without end. Raises :class:`ImageError`."""
    if not isfile(path):
        there = os.path.exists(path)  # noqa: PTH110
        raise ImageError(f"the image {path} {'is no file' if there else 'does not exist'}")


MAX_HEADER = 1 << 16
"""Bytes at the beginning of a NumPy file in which its header must end."""


def npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an ``.npy`` file declares. A header longer than :data:`MAX_HEADER` raises :class:`ValueError`."""
    head = io.BytesIO(stream.read(MAX_HEADER))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(head)
    except ValueError as error:  # may name an object by its address, which is another one in every process
        raise ValueError(re.sub(" at 0x[0-9a-f]+", "", str(error))) from error
    return shape, dtype


def _read_npz(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file or the only array of an ``.npz`` file, bands last. Object arrays (pickles) are refused."""
    check_file(path)
    try:
        # Memory is limited by the declared shape, which is read before the data. Content decides, not the suffix: a plain
        # array is mapped, an archive's member looked at.
        with path.open("rb") as stream:
            if stream.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                stream.seek(0)
                shape, dtype = npy_header(stream)
                check_shape(shape, dtype.itemsize, path)
                return np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
        with np.load(path, allow_pickle=False) as loaded:
            names = loaded.files
            if len(names) != 1:
                raise ImageError(f"{path} holds the arrays {names}; an image file must hold exactly one")
            with loaded.zip.open(names[0] + ".npy") as member:
                shape, dtype = npy_header(member)
            check_shape(shape, dtype.itemsize, path)
            return loaded[names[0]]
    except (ImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # of a broken archive: encrypted, of an unknown method, damaged in one of four compressions
        raise ImageError(f"{path} cannot be read as a NumPy image: {error}") from error


def _check_alone(path: Path) -> None:
    """Refuse a raster beside which a file lies that would change its values: no other file is read with it."""
    mask, notes = Path(f"{path}.msk"), Path(f"{path}.aux.xml")
    if os.path.lexists(mask):
        raise ImageError(
            f"{path} has a mask in the file {mask.name}, which is not read; write it into the raster (GDAL_TIFF_INTERNAL_MASK=YES)"
            " or take the file away"
        )
    if not os.path.lexists(notes):
        return
    text = ""
    if not notes.is_symlink() and notes.is_file():
        with notes.open("rb") as stream:
            text = stream.read(_MAX_NOTES).decode("utf-8", "replace")
    if not text or any(tag in text for tag in ("<NoDataValue", "<ColorTable", "<ColorInterp")):
        raise ImageError(
            f"{path} has its nodata value or its colours in the file {notes.name}, which is not read; write them into the raster or take"
            " the file away"
        )


_MAX_NOTES = 1 << 20


def _check_tags(path: Path) -> None:
    """Refuse a TIFF by its tags: of more bands than rasterio opens in a moment, or turned, which GDAL does not undo."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            tags = ImageFileDirectory_v2(head + stream.read(8) if head[2:3] == b"+" or head[3:4] == b"+" else head)
            stream.seek(tags.next)
            tags.load(stream)
        count, orientation = tags.get(_SAMPLES_PER_PIXEL, 1), tags.get(ORIENTATION, 1)
    except Exception:  # whatever broken tags make Pillow raise; GDAL says what is wrong with them
        return
    if count > MAX_BANDS:
        raise ImageError(f"{path} has {count:,} bands, more than the {MAX_BANDS:,} that are read")
    if orientation != 1:
        raise ImageError(
            f"{path} is stored turned (its tag Orientation is {orientation}), as a raster is not read; write it upright"
        )


_SAMPLES_PER_PIXEL = 277

_RASTER_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no file beside it is looked for
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",  # no address is opened
}


@contextmanager
def open_tiff(path: Path) -> Iterator[DatasetReader]:
    """A GeoTIFF that is read by itself: no file beside it and no address, nor any overview that its tags name.

    Raises:
        ImageError: unreadable, or a file beside it would change its values.
    """
    check_file(path)
    need(f"the TIFF file {path}", "rasterio")
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    _check_alone(path)
    _check_tags(path)
    try:
        # Overviews may be a file or an address that the raster names itself, and are read in decimated reads.
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(**_RASTER_OPTIONS),
            rasterio.open(path.absolute(), driver=RASTER_DRIVER, OVERVIEW_LEVEL="NONE") as raster,
        ):
            yield raster
    except RasterioError as error:
        raise ImageError(f"{path} cannot be read as a raster: {error}") from error


def bands_of_raster(raster: DatasetReader, bands: int | None) -> list[int]:
    """The bands of an open raster that hold numbers, counted from 1: all, or those beside its alpha band.

    Args:
        raster: from :func:`open_tiff`.
        bands: how many are declared, at least; an alpha band is left out where as many are left. None: every band is kept. (Four
            bands of 8 bits are often written with the last marked as alpha, whatever it holds.)

    Raises:
        ImageError: the band that would be left out is not the last. (GDAL's ALPHA=YES marks the second of grey bands.)
    """
    from rasterio.enums import ColorInterp

    every = list(raster.indexes)
    plain = [band for band, kind in zip(every, raster.colorinterp, strict=True) if kind is not ColorInterp.alpha]
    if bands is None or len(plain) == len(every) or len(plain) < max(bands, 1):
        return every
    if plain != every[: len(plain)]:
        first = next(band for band in every if band not in plain)
        raise ImageError(
            f"{raster.name} has band {first} of {len(every)} marked as alpha; only the last band may be marked so"
        )
    return plain


def mask_of_raster(raster: DatasetReader, used: Sequence[int], **part: Any) -> np.ndarray | None:
    """(H, W) bool, the pixels that the mask or the alpha band of an open raster says hold data; None where it has neither.

    ``used`` are the bands that hold numbers, ``part`` the ``window`` or ``out_shape`` of rasterio.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    alpha = [band for band in raster.indexes if raster.colorinterp[band - 1] is ColorInterp.alpha]
    if alpha:
        return None if alpha[0] in used else raster.read(alpha[0], **part) > 0
    if MaskFlags.per_dataset not in raster.mask_flag_enums[0]:
        return None
    return raster.read_masks(1, **part) > 0


def _read_raster(path: Path, colours: bool, bands: int | None) -> np.ndarray:
    with open_tiff(path) as raster:
        used = bands_of_raster(raster, bands)
        if any("complex" in kind for kind in raster.dtypes):
            raise ImageError(f"{path} holds complex numbers; an image holds real ones")
        itemsize = max(np.dtype(kind).itemsize for kind in raster.dtypes)
        check_shape((raster.height, raster.width, len(used)), itemsize, path)
        pixels: np.ndarray = raster.read(used)
        if len(used) > 1:
            return np.moveaxis(pixels, 0, -1)
        (pixels,) = pixels
        if colours and (table := _colour_table(raster, used[0])) is not None:
            return table[pixels]
        bits = raster.tags(used[0], ns="IMAGE_STRUCTURE").get("NBITS")
        if raster.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES" and pixels.dtype.kind == "u":
            pixels = pixels.dtype.type(2 ** int(bits or 8 * pixels.dtype.itemsize) - 1) - pixels
        return pixels.astype(bool) if bits == "1" else pixels


def _colour_table(raster: DatasetReader, band: int) -> np.ndarray | None:
    """(n, 3) uint8 colours of the indices that a band of a raster can hold."""
    try:
        colours = raster.colormap(band)
    except ValueError:
        return None
    table = np.zeros((np.iinfo(raster.dtypes[band - 1]).max + 1, 3), np.uint8)
    for place, colour in colours.items():
        table[place] = colour[:3]
    return table


def read_own_mask(path: Path, bands: int | None) -> np.ndarray | None:
    """(H, W) bool, the pixels that a file's own mask or alpha band says hold data; None where it has neither and where all do.

    ``bands`` as :func:`bands_of_raster` takes it. Raises :class:`ImageError`.
    """
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        return None
    if path.suffix.lower() in RASTER_SUFFIXES:
        with open_tiff(path) as raster:
            check_shape((raster.height, raster.width), 1, path)
            mask = mask_of_raster(raster, bands_of_raster(raster, bands))
    else:
        with _open_picture(path, path) as image:
            mask = _alpha_of_picture(image, path)
    return None if mask is None or mask.all() else mask


def read_pixels(path: Path, colours: bool = False, bands: int | None = None) -> np.ndarray:
    """Decode an image file: PNG, JPEG and the like, GeoTIFF, ``.npy`` or ``.npz``.

    Returns:
        (H, W) or (H, W, C) array in the file's own dtype. Palette images give their indices, or their ``colours``. The alpha band of a
        GeoTIFF is left out where ``bands`` are declared and as many remain (see :func:`bands_of_raster`).

    Raises:
        ImageError: the file is missing, not an image, broken, or declares more than ``MAX_PIXELS`` pixels.
    """
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        return _read_npz(path)
    if path.suffix.lower() in RASTER_SUFFIXES:
        return _read_raster(path, colours, bands)
    with _open_picture(path, path) as image:
        return picture_pixels(image, path, colours)


def read_picture(data: bytes, where: str, colours: bool = False) -> np.ndarray:
    """Decode the bytes of a file of one of :data:`PICTURE_FORMATS` as :func:`read_pixels` does; ``where`` names them in errors."""
    with _open_picture(io.BytesIO(data), where) as image:
        return picture_pixels(image, where, colours)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture as a viewer turns it; only its header is read. Raises :class:`ImageError`."""
    from PIL import Image

    with _open_picture(path, path) as image:
        check_size(image.height, image.width, path)
        # Of a PNG the method of its own class would read the pixels.
        turned = Image.Image.getexif(image).get(ORIENTATION, 1) in _ON_ITS_SIDE
        return (image.width, image.height) if turned else (image.height, image.width)


_ON_ITS_SIDE = frozenset({5, 6, 7, 8})
"""Orientations of EXIF that swap height and width."""


def _alpha_of_picture(image: PIL.Image.Image, where: Path) -> np.ndarray | None:
    """(H, W) bool, whether a pixel of a picture can be seen at all; None for a picture without an alpha band."""
    from PIL import ImageOps

    if image.mode not in {"RGBA", "LA", "PA"}:
        return None
    check_size(image.height, image.width, where)
    return np.asarray(ImageOps.exif_transpose(image).getchannel("A")) > 0


@contextmanager
def _open_picture(file: Path | BinaryIO, where: Path | str) -> Iterator[PIL.Image.Image]:
    """A picture to be decoded, whose faults are :class:`ImageError`."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(file, Path):
        check_file(file)
    try:
        with (  # warnings of a large size, which is checked by whoever decodes
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(file, formats=PICTURE_FORMATS) as image,
        ):
            yield image
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


def picture_pixels(image: PIL.Image.Image, where: Path | str, colours: bool = False) -> np.ndarray:
    """The pixels of a Pillow image as a viewer turns it (EXIF): (H, W) or (H, W, 3).

    Transparency is left out, other colour spaces become RGB. Raises :class:`ImageError` for more bits than Pillow keeps.
    """
    from PIL import ImageOps

    check_size(image.height, image.width, where)
    if _is_cut(image):
        raise ImageError(
            f"{where} holds more than 8 bits a colour, of which only 8 would be read; write it as GeoTIFF or .npy"
        )
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if (colours and image.mode == "P") or image.mode in {"RGBA", "CMYK", "YCbCr", "HSV", "LAB", "LA", "PA"}:
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)


def _is_cut(image: PIL.Image.Image) -> bool:
    """Whether Pillow would keep less of an image's numbers than its file holds, or scale them. Known until it is decoded."""
    tiles = getattr(image, "tile", None) or ()
    if not tiles or image.mode[0] == "F":
        return False
    if image.format == "PPM":  # numbers up to another maximum than a type's are scaled
        most = next((tile[3][1] for tile in tiles if tile[0].startswith("ppm") and isinstance(tile[3], tuple)), 255)
        return most != 255 and not (image.mode == "I" and most == 65535)
    if image.mode[0] == "I":
        return False
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8  # type: ignore[attr-defined]  # BitsPerSample
    if image.format == "JPEG2000":
        return _jpeg2000_bits(image) > 8
    return ";16" in str(tiles)


def _jpeg2000_bits(image: PIL.Image.Image) -> int:
    """Bits of the first band, from the header."""
    stream = image.fp  # type: ignore[attr-defined]
    place = stream.tell()
    stream.seek(0)
    head = stream.read(MAX_HEADER)
    stream.seek(place)
    start = head.find(b"\xff\x4f\xff\x51")  # the code stream begins with its size
    return (head[start + 42] & 0x7F) + 1 if 0 <= start < len(head) - 42 else 8
