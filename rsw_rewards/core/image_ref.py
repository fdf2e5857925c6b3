"""Where an image is and how its numbers are shown: the reference by which images travel, and how anything a program holds becomes one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core import fields, image_values
from rsw_rewards.core.image_values import Palette, Stretch, describe
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.pixels import content_hash, read_pixels

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A reference to an image: where its pixels are, and how to read them.

    Exactly one of ``path``, ``array`` and ``ref`` is set. ``ref`` is a Ray object reference (the return value of a task)
    holding a sequence of arrays, of which ``index`` is meant. ``sha256`` is :func:`content_hash` of the pixels where known.

    >>> rsw.image("before.tif", bands=[3, 2, 1]).bands
    (3, 2, 1)
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
    levels: tuple[int, ...] | None = None
    """For masks and maps of classes: the stored value of every class, in order. Of a mask the first is False."""
    threshold: float | None = None
    """For masks that are stored as probabilities or grey: values over it are True."""

    def __post_init__(self) -> None:
        if self.path is self.array is self.ref is self.sha256 is None:  # while pixels travel alone, their name is left
            raise InputError("an image reference needs a 'path' or an 'array'; make one by rsw.image(...)")

    def pixels(self, colours: bool = False, bands: int | None = None) -> np.ndarray:
        """The stored array: (H, W) or (H, W, C), in the file's own dtype. Raises :class:`ImageError`.

        ``colours`` turns the indices of a palette image into the colours that they stand for. The alpha band of a GeoTIFF is left out
        where at least ``bands`` others are there; None keeps it.
        """
        if self.array is not None:
            return self.array
        if self.ref is not None:
            import ray

            return ray.get(self.ref)[self.index]
        if self.path is None:
            raise ImageError("an image reference holds neither a path nor pixels")
        with named_in_errors(self):
            return read_pixels(self.path, colours, bands)

    def same_source(self, other: ImageRef) -> bool:
        """Whether two references read the same pixels, shown alike or not."""
        return (self.path, self.ref, self.index, id(self.array)) == (
            other.path,
            other.ref,
            other.index,
            id(other.array),
        )

    @property
    def is_mapped(self) -> bool:
        """Whether it is said how a raster is shown: by ``bands``, a ``stretch``, or both."""
        return self.bands is not None or self.stretch is not None

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else f"image {(self.sha256 or 'in memory')[:12]}"


@contextmanager
def named_in_errors(image: ImageRef) -> Iterator[None]:
    """Errors of reading a file carry the reference that it is read for."""
    try:
        yield
    except ImageError as error:
        error.image = image
        raise


def image(
    value: Any,
    *,
    layout: str | None = None,
    range: tuple[float, float] | str | None = None,
    bands: Sequence[int] | None = None,
    stretch: Sequence[Sequence[float]] | None = None,
    nodata: float | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    levels: Sequence[int] | None = None,
    threshold: float | None = None,
    date: str | None = None,
    role: str | None = None,
) -> ImageRef:
    """An image reference to a file or to pixels in memory, with what their numbers mean.

    Args:
        value: a path, a data URL, the bytes of an image file, a Pillow image, or an array or tensor: (H, W), (H, W, C) or (C, H, W).
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``; may be left out where the shape leaves one reading.
        range: of an array, the numbers ``(low, high)`` that become 0 and 255 in uint8; ``"stored"`` keeps the numbers of an array
            that are those of the sample's own rasters.
        bands: zero-based bands shown as red, green, blue.
        stretch: for every stored band the numbers ``(low, high)`` that are shown as 0 and 255; the array keeps its own numbers.
        nodata: the number that stands for no data.
        palette: colours ``(red, green, blue)`` of a map of classes; the place of a colour is its index.
        levels: of a mask or a map of classes, the stored value of every class in order; the first of a mask is False.
        threshold: of a mask, the number over which a stored value is True.
        date, role: when it was taken and what it is, for policies and reports.

    Raises:
        InputError: no image, or an array whose numbers or axes could mean two things.

    >>> after = rsw.image(np.full((3, 8, 8), 0.5, np.float32), layout="CHW", range=(0, 1))
    >>> after.array.shape, after.array[0, 0].tolist()
    ((8, 8, 3), [128, 128, 128])
    >>> rsw.image(np.full((8, 8, 3), 0.5))
    Traceback (most recent call last):
        ...
    rsw_rewards.errors.InputError: the float64 array of shape (8, 8, 3) has no declared range; ...
    """
    if range is not None and stretch is not None:
        raise InputError("give an image a 'range' or a 'stretch', not both: each gives the values of black and white")
    path = pixels = None
    if image_values.holds_pixels(value):
        if levels is None and threshold is None:
            pixels = image_values.pixels_of(value, colours=True)
            pixels = image_values.picture(pixels, layout, range, mapped=bands is not None or stretch is not None)
        else:
            pixels = image_values.pixels_of(value, colours=False)
            pixels = image_values.index_map(pixels, layout, any_numbers=threshold is not None)
    elif layout is not None or range is not None:
        raise InputError(f"{describe(value)} is no array; 'layout' and 'range' are for arrays")
    else:
        path = _path(value)
    given = {
        "bands": bands, "stretch": stretch, "nodata": nodata, "palette": palette, "levels": levels, "threshold": threshold, "date": date,
        "role": role,
    }  # fmt: skip
    declared = {name: read(given[name], name) for name, read in DECLARED.items() if given[name] is not None}
    return ImageRef(path=path, array=pixels, sha256=None if pixels is None else content_hash(pixels), **declared)


DECLARED: Mapping[str, Callable[[Any, str], Any]] = {
    "bands": image_values.bands_of,
    "stretch": image_values.stretch_of,
    "nodata": image_values.number_of,
    "palette": image_values.palette_of,
    "levels": image_values.levels_of,
    "threshold": image_values.threshold_of,
    "date": fields.text_of,
    "role": fields.text_of,
}
"""What an entry of a record may say of an image beside where it is, and what reads it."""


def check_keywords(names: Iterable[Any]) -> None:
    """Refuse a key of an image's entry that is nearly one of :data:`DECLARED`, which would go unheard. Raises :class:`InputError`."""
    for name in names:
        if name not in DECLARED and name != "path" and isinstance(name, str):
            for near in difflib.get_close_matches(name, DECLARED, 1, cutoff=0.8):
                raise InputError(f"an image has no {name!r}; did you mean {near!r}?")


def as_image(value: Any, name: str, index_map: bool = False) -> ImageRef:
    """The image reference that a field of a record stands for; references are taken as they are.

    Args:
        value: what :func:`image` takes, or a mapping ``{"path" or "bytes" or "array": ..., further keywords of image}``.
        name: the field, for errors.
        index_map: it is a mask or a map of classes: of any whole numbers, which palette images hold as indices.

    Raises:
        InputError: naming the field and the value.
    """
    try:
        if type(value) is ImageRef:
            if value.array is not None:
                image_values.check_array(value.array)
            return value
        return _image_of(value, index_map)
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from error


def _image_of(value: Any, index_map: bool) -> ImageRef:
    if isinstance(value, Mapping):
        key = next((key for key in ("array", "bytes", "path") if value.get(key) is not None), None)
        if key is None:
            raise InputError(
                f"an image must be a path or pixels, or an object with 'path', not {describe(dict(value))}"
            )
        check_keywords(value)
        keywords = {name: value[name] for name in _IMAGE_KEYWORDS if value.get(name) is not None}
        if index_map and keywords.keys() == {"nodata"}:
            return replace(_image_of(value[key], True), nodata=image_values.number_of(value["nodata"], "nodata"))
        return image(value[key], **keywords) if keywords else _image_of(value[key], index_map)
    if not index_map or not image_values.holds_pixels(value):
        return image(value)
    pixels = image_values.index_map(image_values.pixels_of(value, colours=False))
    return ImageRef(array=pixels, sha256=content_hash(pixels))


_IMAGE_KEYWORDS = ("layout", "range", *DECLARED)


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise InputError(
            f"{describe(value)} is no image; give a path, an array, a tensor, a Pillow image, bytes or a data URL"
        )
    return Path(value)
