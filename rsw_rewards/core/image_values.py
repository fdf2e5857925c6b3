"""What may stand for an image in a record that is made in Python: its pixels, and how its numbers are shown.

A value has one meaning or is refused: floats and wide integers need a declared range, arrays with channels first a declared layout.
"""

from __future__ import annotations

import base64
import binascii
import math
import operator
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote_to_bytes

import numpy as np

from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.pixels import MAX_BANDS, check_shape, picture_pixels, read_picture

Palette = tuple[tuple[int, int, int], ...]
"""Colours of a map that is stored as an image: the place of a colour is the index that it stands for."""

Stretch = tuple[tuple[float, float], ...]
"""Per band, the stored numbers that are shown as 0 and 255."""

STORED = "stored"
"""The range of an array whose numbers are those of the sample's own rasters."""

MAX_CLASSES = 255
"""Most classes of a map."""

_CHANNELS = (1, 3)
_HOW = "declare it by rsw.image with"
_SLACK = 1e-3
"""Share of a declared range by which values may lie outside it, for rounding in half precision."""


@runtime_checkable
class HoldsArray(Protocol):
    """An object that NumPy turns into an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray: ...


def is_instance(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a library, which is not imported for it: without the library there is no such value."""
    library = sys.modules.get(module)
    return library is not None and isinstance(value, getattr(library, name))


def is_data_url(text: str) -> bool:
    """Whether a text is a data URL, which holds a file within itself."""
    return text[:5].lower() == "data:" and "," in text


def holds_pixels(value: Any) -> bool:
    """Whether a value carries pixels: an array, a tensor, a Pillow image, the bytes of an image file or a data URL."""
    if isinstance(value, str):
        return is_data_url(value)
    return isinstance(value, bytes | bytearray | memoryview | HoldsArray) or is_instance(value, "PIL.Image", "Image")


def as_array(value: Any) -> np.ndarray:
    """The array that NumPy makes of a value. Raises :class:`InputError` where a mask hides elements, which NumPy would show."""
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise InputError(
                f"{describe(value)} has masked elements, which would count as any others; fill them by array.filled(number),"
                " and say by 'nodata' or a 'valid' mask that they do not count"
            )
        value = value.data
    return np.asarray(value)


def pixels_of(value: Any, colours: bool) -> np.ndarray:
    """The array that a value of :func:`holds_pixels` carries, not yet checked for what its numbers mean.

    Args:
        value: an array or tensor of any shape and type, a Pillow image, the bytes of an image file, or a data URL of one.
        colours: turn the indices of a palette image into the colours that they stand for.

    Raises:
        InputError: the bytes are no image, the tensor has no counterpart among NumPy's types, or an array's mask hides elements.
    """
    try:
        if is_instance(value, "PIL.Image", "Image"):
            return picture_pixels(value, "the image", colours)
        if isinstance(value, str):
            value = _data_of(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return read_picture(bytes(value), f"the image of {len(value)} bytes", colours)
        if is_instance(value, "torch", "Tensor"):
            value = value.detach().cpu()
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        return as_array(value)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever a broken file or a foreign array makes its library raise
        raise InputError(f"{describe(value)} cannot be read as an image: {error}") from error


def _data_of(url: str) -> bytes:
    head, _, body = url.partition(",")
    data = unquote_to_bytes(body)
    if not head.rstrip().lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise InputError(f"the data URL {describe(url)} is not base64: {error}") from error


def picture(
    array: np.ndarray,
    layout: str | None = None,
    range: tuple[float, float] | str | None = None,
    mapped: bool = False,
) -> np.ndarray:
    """An array as an image to look at: (H, W) or (H, W, C), uint8 or bool, or the numbers of a raster. Never the caller's memory.

    Args:
        array: (H, W), (H, W, C) or (C, H, W).
        layout: ``"HW"``, ``"HWC"`` or ``"CHW"``; None where the shape leaves one reading.
        range: the numbers that become 0 and 255, ``"stored"`` for the numbers of a raster, None for uint8 and bool.
        mapped: it is said how a raster is shown (bands, stretch), so it may have any number of bands.

    Raises:
        InputError: another shape, layout or type, numbers outside the range, or no declaration where one is needed.
    """
    array = _arranged(array, layout, mapped or range == STORED)
    if range is not None and range != STORED:
        return _scaled(array, _limits(range))
    if array.dtype not in (np.uint8, bool) and not (range == STORED or mapped):
        raise InputError(
            f"{describe(array)} has no declared range; {_HOW} range=(low, high), the numbers of black and white"
        )
    return np.array(array, order="C")


def index_map(array: np.ndarray, layout: str | None = None, any_numbers: bool = False) -> np.ndarray:
    """An array as a mask or a map of classes: (H, W) or (H, W, C), bool or whole numbers. Never the caller's memory.

    ``any_numbers`` takes floats as well, for a mask with a threshold.

    Raises:
        InputError: another shape or layout, or numbers that are not whole.
    """
    array = _arranged(array, layout, any_bands=False)
    if array.dtype.kind not in "bui" and not any_numbers:
        raise InputError(
            f"{describe(array)} is no mask; give bool or whole numbers, or the 'threshold' over which a number is True"
        )
    return np.array(array, order="C")


def _arranged(array: np.ndarray, layout: str | None, any_bands: bool) -> np.ndarray:
    """The array with its channels last."""
    if array.dtype.kind not in "buif":
        raise InputError(f"{describe(array)} holds no real numbers; an image is an array of them")
    if layout not in (None, "HW", "HWC", "CHW"):
        raise InputError(f"the layout {layout!r} is unknown; it is 'HW', 'HWC' or 'CHW'")
    check_array(array)
    if layout is not None and len(layout) != array.ndim:
        raise InputError(f"{describe(array)} has {array.ndim} dimensions, the layout {layout!r} {len(layout)}")
    if array.ndim == 2:
        return array
    height, width, channels = array.shape
    if layout is None and not (channels < min(height, width) or (channels in _CHANNELS and height not in _CHANNELS)):
        raise InputError(f"{describe(array)} does not say which axis holds its channels; {_HOW} layout='CHW' or 'HWC'")
    if layout == "CHW":
        array = np.moveaxis(array, 0, -1)
    if array.shape[2] not in _CHANNELS and not any_bands:
        raise InputError(
            f"{describe(array)} has {array.shape[2]} bands, an image to look at 1 or 3; {_HOW} bands=(red, green, blue)"
        )
    return array


def check_array(array: Any) -> None:
    """Refuse what is no array, or has the shape of no image. Raises :class:`InputError`."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{describe(array)} is no array of an image reference; make one by rsw.image(...)")
    try:
        check_shape(array.shape, array.dtype.itemsize, "the array")
    except ImageError as error:
        raise InputError(str(error)) from error


def _limits(range: Any) -> tuple[float, float]:
    try:
        low, high = (float(side) for side in range)
    except (TypeError, ValueError):
        raise InputError(
            f"'range' must be (low, high), the numbers shown as 0 and 255, not {describe(range)}"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"'range' must be two finite numbers (low, high) with low < high, not {describe(range)}")
    return low, high


def _scaled(array: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    (low, high), numbers = limits, array.astype(np.float64)
    slack = (high - low) * _SLACK
    least, most = float(numbers.min()), float(numbers.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise InputError(
            f"{describe(array)} holds numbers that are not finite; an output that failed is given as invalid"
        )
    if least < low - slack or most > high + slack:
        raise InputError(
            f"{describe(array)} holds {least:g} to {most:g}, outside its range {low:g} to {high:g}; clip it first"
        )
    return (np.clip((numbers - low) / (high - low), 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def describe(value: Any) -> str:
    """A value in an error's words: of an array its type and shape, else its text or its type, at most 80 characters."""
    if is_instance(value, "torch", "Tensor") or isinstance(value, np.ndarray):
        return f"the {str(value.dtype).removeprefix('torch.')} array of shape {tuple(value.shape)}"
    if isinstance(value, str | int | float | list | tuple | dict | None):
        try:
            text = repr(value)
        except (ValueError, RecursionError):  # a whole number of more digits than Python prints
            return f"a {type(value).__name__}"
        return text if len(text) <= 80 else text[:79] + "…"
    return f"a value of the type {type(value).__name__}"


@lru_cache(maxsize=64)
def _shared(palette: Palette) -> Palette:
    """The same object for equal palettes: a data set repeats one in every record."""
    return palette


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists, so that a keyword given in Python is checked as one read from a file."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(type(level) is int and 0 <= level <= 255 for level in value)
    )


def palette_of(value: Any, name: str) -> Palette:
    """A palette from lists of colours. Raises :class:`InputError`."""
    value = _plain(value)
    if not (isinstance(value, list) and 0 < len(value) <= 256 and all(map(_is_colour, value))):
        raise InputError(f"{name!r} must be 1 to 256 colours [red, green, blue] from 0 to 255, not {describe(value)}")
    palette = tuple((red, green, blue) for red, green, blue in value)
    if len(set(palette)) < len(palette):
        raise InputError(f"{name!r} names a colour twice; every class needs its own")
    return _shared(palette)


def levels_of(value: Any, name: str) -> tuple[int, ...]:
    """The stored value of every class, in order. Raises :class:`InputError`."""
    value = _plain(value)
    whole = isinstance(value, list) and all(type(level) is int and abs(level) < 2**63 for level in value)
    if not whole or len(set(value)) != len(value) or not 1 < len(value) <= MAX_CLASSES:
        raise InputError(
            f"{name!r} must be a list of 2 to {MAX_CLASSES} different whole numbers, one a class, not {describe(value)}"
        )
    return tuple(value)


def number_of(value: Any, name: str) -> float:
    """A number as it is given, of Python's own type. Raises :class:`InputError`."""
    if type(value) is float:
        return value
    if isinstance(value, bool | np.bool_):
        raise InputError(f"{name!r} must be a number, not {describe(value)}")
    try:
        float(operator.index(value) if not isinstance(value, np.floating) else value)
    except (TypeError, OverflowError):
        raise InputError(f"{name!r} must be a number, not {describe(value)}") from None
    return value if isinstance(value, int) else value.item()  # type: ignore[no-any-return]


def threshold_of(value: Any, name: str) -> float:
    """A finite number. Raises :class:`InputError`."""
    number = number_of(value, name)
    if not math.isfinite(number):
        raise InputError(f"{name!r} must be a finite number, not {number}")
    return number


def bands_of(value: Any, name: str) -> tuple[int, ...]:
    """Zero-based bands from a list of whole numbers. Raises :class:`InputError`."""
    value = _plain(value)
    if not (isinstance(value, list) and len(value) == 3 and all(type(band) is int and band >= 0 for band in value)):
        raise InputError(f"{name!r} must be [red, green, blue], three whole numbers from 0, not {describe(value)}")
    return tuple(value)


def stretch_of(value: Any, name: str) -> Stretch:
    """The limits of every band from lists of two numbers. Raises :class:`InputError`."""
    value = _plain(value)
    pairs: Sequence[Any] = value if isinstance(value, list) and 0 < len(value) <= MAX_BANDS else []
    limits = [
        (float(pair[0]), float(pair[1]))
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(type(side) in (int, float) for side in pair)
    ]
    if len(limits) != len(pairs) or not limits or not all(math.isfinite(a + b) and a < b for a, b in limits):
        raise InputError(
            f"{name!r} must hold [low, high] for every band, the numbers shown as 0 and 255, not {describe(value)}"
        )
    return tuple(limits)
