"""Fields of a record as values of their own types. Each function names the field and the value in the InputError that it raises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rsw_rewards.core.image_values import HoldsArray, describe, pixels_of
from rsw_rewards.errors import InputError

MAX_CANDIDATES = 1 << 31
"""More candidates of one sample than any record may name."""


def text_of(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name!r} must be a string, not {describe(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{name!r} has half of a surrogate pair, which cannot be encoded as UTF-8") from None
    return str(value)


def whole_of(value: Any, name: str) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or abs(int(value)) >= 1 << 63:
        raise InputError(f"{name!r} must be a whole number, not {describe(value)}")
    return int(value)


def holds_items(value: Any) -> bool:
    """Whether a value is a list, a tuple, an array or a tensor."""
    return isinstance(value, list | tuple) or (isinstance(value, HoldsArray) and not isinstance(value, np.generic))


def items_of(value: Any, name: str) -> list[Any]:
    """A list, tuple, array or tensor as a list of plain values."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple):
        return list(value)
    if holds_items(value):
        found = pixels_of(value, colours=False).tolist()
        if isinstance(found, list):
            return found
    raise InputError(f"{name!r} must be a list, not {describe(value)}")


def plain_of(value: Any, name: str) -> Any:
    """A tuple, array or tensor as a list; any other value as it is."""
    return items_of(value, name) if holds_items(value) else value


def rows_of(value: Any, name: str) -> list[Any]:
    """A list of lists, such as boxes; rows that are texts or numbers stay as they are."""
    return [plain_of(row, name) for row in items_of(value, name)]


def text_items_of(value: Any, name: str) -> list[Any]:
    return [text_of(value, name)] if isinstance(value, str) else items_of(value, name)


def flag_of(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name!r} must be true or false, not {describe(value)}")
    return bool(value)


def boxes_of(value: Any, name: str) -> tuple[tuple[float, ...], ...]:
    boxes = []
    for number, box in enumerate(items_of(value, name)):
        sides = items_of(box, f"{name}[{number}]")
        if len(sides) not in (4, 8):
            raise InputError(f"{name!r} must hold boxes of 4 or 8 numbers; box {number} is {describe(sides)}")
        if not all(isinstance(side, int | float | np.number) and not isinstance(side, bool) for side in sides):
            raise InputError(f"{name!r}: box {number} has a side that is not a number: {describe(sides)}")
        try:
            boxes.append(tuple(map(float, sides)))
        except (OverflowError, TypeError):
            raise InputError(f"{name!r}: box {number} has a number that is too large for a float") from None
        if not all(map(math.isfinite, boxes[-1])):
            raise InputError(f"{name!r}: box {number} is not finite: {describe(boxes[-1])}")
    return tuple(boxes)


def candidate_of(value: Any) -> int:
    """The number of a candidate. Raises :class:`InputError` for what is no whole number from 0."""
    if type(value) is int and 0 <= value < MAX_CANDIDATES:
        return value
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or not 0 <= value < MAX_CANDIDATES:
        raise InputError(f"'candidate' must be a whole number from 0, not {describe(value)}")
    return int(value)


def limit_of(value: Any) -> int | None:
    """How many samples are read at most, None for all. Raises :class:`InputError` for what is no whole number from 1."""
    if value is not None and whole_of(value, "limit") < 1:
        raise InputError(f"'limit' is the number of samples to read, 1 or more, or None for all; not {value}")
    return None if value is None else int(value)
