"""Images as other programs hand them over: those that a model made, as outputs, by a declared kind; those of a prompt in chat messages."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsw_rewards.core.image_ref import image
from rsw_rewards.core.image_values import HoldsArray, describe, is_data_url, is_instance, pixels_of
from rsw_rewards.core.records import Output
from rsw_rewards.errors import ConfigError, InputError, did_you_mean

JPEG = "the image is a JPEG, which changes what is measured; make it a PNG, or hand over pixels that never were a JPEG"


class Kind(NamedTuple):
    """How a trainer hands over an image."""

    text: str
    """What such images are, for errors."""
    holds: Callable[[Any], bool]
    declared: Mapping[str, Any] = {}
    """Keywords of :func:`rsw.image`."""


KINDS: Mapping[str, Kind] = {
    "pil": Kind("Pillow images", lambda value: is_instance(value, "PIL.Image", "Image")),
    "path": Kind("paths of files", lambda value: isinstance(value, str | os.PathLike) and Path(value).is_file()),
    "bytes": Kind("bytes of image files", lambda value: isinstance(value, bytes)),
    "base64": Kind("image files as base64", lambda value: isinstance(value, str) and _is_base64(value)),
    "data_url": Kind("data URLs", lambda value: isinstance(value, str) and is_data_url(value)),
    "float_chw": Kind(
        "arrays of floats in [0, 1] as (C, H, W)",
        lambda value: _is_array(value, "float"),
        {"layout": "CHW", "range": (0, 1)},
    ),
    "float_hwc": Kind(
        "arrays of floats in [0, 1] as (H, W, C)",
        lambda value: _is_array(value, "float"),
        {"layout": "HWC", "range": (0, 1)},
    ),
    "uint8_chw": Kind("uint8 arrays as (C, H, W)", lambda value: _is_array(value, "uint8"), {"layout": "CHW"}),
    "uint8_hwc": Kind("uint8 arrays as (H, W, C)", lambda value: _is_array(value, "uint8"), {"layout": "HWC"}),
}
"""By the name that an adapter declares. Floats in [0, 1] become the nearest of 256 grey levels, halves the one above."""


def from_image(value: Any, kind: str) -> Output:
    """The output that an image is.

    Args:
        value: the image as the trainer hands it over; None for a missing one. Floats that are not finite make an invalid output.
        kind: a key of :data:`KINDS`.

    Raises:
        InputError: the value is of another kind, or a JPEG.
    """
    if value is None:
        return Output(invalid="no image")
    if kind not in KINDS:
        raise ConfigError(f"no kind of image is named {kind!r}; {did_you_mean(str(kind), KINDS)}")
    if not KINDS[kind].holds(value):
        raise InputError(f"the image is {describe(value)}; this trainer's images must be {KINDS[kind].text}")
    if kind.startswith("float") and not np.isfinite(pixels_of(value, colours=True)).all():
        return Output(invalid="the image holds numbers that are not finite")
    content = base64.b64decode(value) if kind == "base64" else value
    if _is_jpeg(content):
        raise InputError(JPEG)
    return Output(image=image(content, **KINDS[kind].declared))


def from_images(values: Sequence[Any], kind: str) -> Output:
    """The output that the images of a forecast are, in their order, as :func:`from_image`; invalid where one of them is."""
    outputs = [from_image(value, kind) for value in values]
    images = tuple(output.image for output in outputs if output.image is not None)
    if len(images) < len(outputs):
        return next(output for output in outputs if output.image is None)
    return Output(image=images[0]) if len(images) == 1 else Output(images=images)


def images_of(messages: Any) -> list[Any]:
    """The images of a prompt in their order, each as :func:`rsw.image` takes it; none of a prompt that is a text.

    Args:
        messages: chat messages, as mappings or objects, whose content is a text or parts: those of transformers (``image``), of
            OpenAI's chats (``image_url``) or of its Responses (``input_image``).

    >>> images_of([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "before.png"}}]}])
    ['before.png']
    """
    found = []
    for message in messages if isinstance(messages, Iterable) and not isinstance(messages, str) else ():
        content = _field(message, "content")
        for part in () if content is None or isinstance(content, str) else content:
            value = _field(part, _IMAGE_FIELDS.get(_field(part, "type"), ""))
            value = _field(value, "url") or value
            found += [] if value is None else [value]
    return found


_IMAGE_FIELDS = {"image": "image", "image_url": "image_url", "input_image": "image_url"}


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _is_jpeg(content: Any) -> bool:
    if isinstance(content, bytes):
        return content.startswith(b"\xff\xd8")
    if isinstance(content, str) and is_data_url(content):
        return content[:16].lower().startswith(("data:image/jpeg", "data:image/jpg")) or ",/9j/" in content[:64]
    if isinstance(content, str | os.PathLike):
        with Path(content).open("rb") as file:
            return file.read(2) == b"\xff\xd8"
    return getattr(content, "format", None) in ("JPEG", "MPO")  # MPO holds several JPEG images


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def _is_array(value: Any, dtype: str) -> bool:
    return isinstance(value, HoldsArray) and dtype in str(getattr(value, "dtype", ""))
