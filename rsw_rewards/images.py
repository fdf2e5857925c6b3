"""Pixels by reference: where an image is, how it is read safely, and the hash that names its content.

Images travel as an :class:`ImageRef` (a file, an array, or an object in Ray's store), never as pixels through the driver.
Files come from third parties, so their size is checked before anything is decoded and pickled arrays are refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.errors import InputError

if TYPE_CHECKING:
    from ray import ObjectRef

MAX_PIXELS = 1 << 26
"""Largest image that is decoded (67 million pixels, 8192 x 8192). A file that declares more is refused unread."""

MAX_BYTES = 1 << 30
"""Largest decoded size of a file with any number of bands and any type (1 GiB)."""

MAX_BANDS = 4096
"""Most bands that a stretch is read for."""

RASTER_SUFFIXES = frozenset({".tif", ".tiff"})

RASTER_DRIVER = "GTiff"
"""The only format that is looked for in a raster, whatever its content: others (VRT) name further files, or addresses."""

PICTURE_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats of Pillow that are looked for in a picture: others (EPS) start programs."""

Palette = tuple[tuple[int, int, int], ...]
"""Colours of a map that is stored as a picture: the place of a colour is the index that it stands for."""

Stretch = tuple[tuple[float, float], ...]
"""Per band, the stored numbers that are shown as 0 and 255."""


class ImageError(InputError):
    """An image cannot be read: missing, not an image, too large, or of the wrong shape."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where pixels are, and what is known about them without reading them.

    Exactly one of ``path``, ``array`` and ``ref`` is set. ``ref`` is a Ray object reference (the return value of a task)
    holding a sequence of arrays, of which ``index`` is meant. ``sha256`` is :func:`content_hash` of the pixels where known.
    """

    path: Path | None = None
    array: np.ndarray | None = field(default=None, compare=False, repr=False)
    ref: ObjectRef | None = None
    index: int = 0
    sha256: str | None = None
    date: str | None = None
    role: str | None = None
    bands: tuple[int, ...] | None = None
    """Zero-based bands shown as red, green, blue; for rasters with other than three bands."""
    stretch: Stretch | None = None
    """Stored numbers that are shown as 0 and 255, ``(low, high)`` for every stored band; for rasters of other types than uint8."""
    nodata: float | None = None
    palette: Palette | None = None
    """For maps of classes that are stored in colours; :func:`read_index` turns them into indices."""

    def pixels(self, colours: bool = False) -> np.ndarray:
        """The stored array: (H, W) or (H, W, C), in the file's own dtype. Raises :class:`ImageError`.

        ``colours`` turns the indices of a palette image into the colours that they stand for.
        """
        if self.array is not None:
            return self.array
        if self.ref is not None:
            import ray

            return ray.get(self.ref)[self.index]
        if self.path is None:
            raise ImageError("an image reference holds neither a path nor pixels")
        return read_pixels(self.path, colours)

    @property
    def is_mapped(self) -> bool:
        """Whether it is said how a raster is shown: by ``bands``, a ``stretch``, or both."""
        return self.bands is not None or self.stretch is not None

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else f"image {(self.sha256 or 'in memory')[:12]}"


def content_hash(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's dtype, shape and values: equal for a PNG, a copy in memory and an object in Ray's store."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _check_size(height: int, width: int, where: Path) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{where} declares {width} x {height} pixels, more than the {MAX_PIXELS:,} that are read; tile it first"
        )


def _check_bytes(shape: tuple[int, ...], itemsize: int, where: Path) -> None:
    """Refuse arrays that are no image, or that are too large in pixels or in bytes."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(f"{where} has shape {shape}; an image is (H, W) or (H, W, C)")
    _check_size(shape[0], shape[1], where)
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
            _check_bytes(loaded.shape, loaded.dtype.itemsize, path)
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
            _check_bytes(shape, dtype.itemsize, path)
            return loaded[names[0]]
    except (ImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # of a broken archive: encrypted, of an unknown method, damaged in one of four compressions
        raise ImageError(f"{path} cannot be read as a NumPy image: {error}") from error


def _read_raster(path: Path) -> np.ndarray:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver=RASTER_DRIVER) as raster:
                itemsize = max(np.dtype(kind).itemsize for kind in raster.dtypes)
                _check_bytes((raster.height, raster.width, raster.count), itemsize, path)
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
    from PIL import Image

    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113  (False, and no error, for a name that is too long)
        raise ImageError(f"the image {path} does not exist")
    if path.suffix.lower() in {".npy", ".npz"}:
        return _read_npz(path)
    if path.suffix.lower() in RASTER_SUFFIXES:
        return _read_raster(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked just below
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                _check_size(image.height, image.width, path)
                if (colours and image.mode == "P") or image.mode in {"RGBA", "CMYK", "YCbCr", "HSV", "LAB", "LA", "PA"}:
                    return np.asarray(image.convert("RGB"))
                return np.asarray(image)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} declares more than the {MAX_PIXELS:,} pixels that are read; tile it first") from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever a broken file makes a decoder raise
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


def read_size(image: ImageRef) -> tuple[int, int]:
    """Height and width of an image; of a picture file only the header is read. Raises :class:`ImageError`."""
    if image.path is None or image.path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        shape = image.pixels().shape
        return int(shape[0]), int(shape[1])
    from PIL import Image

    try:
        with Image.open(image.path, formats=PICTURE_FORMATS) as picture:
            _check_size(picture.height, picture.width, image.path)
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
