"""Reading of requests: strict JSON, images as PNG or NPY bytes, and a limit for everything. Nothing in a request names a file."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rsw_rewards.core.image_ref import DECLARED, ImageRef, image
from rsw_rewards.core.image_values import STORED, index_map, number_of
from rsw_rewards.core.records import REFERENCE_FIELDS, Output, Sample, TokenTrace
from rsw_rewards.errors import ImageError, InputError, as_input_error, reason_of
from rsw_rewards.pixels import check_shape, content_hash, npy_header, read_picture

VERSION = 1
"""Of the form of requests and answers."""
TOKEN = "RSW_SERVE_TOKEN"
"""The environment variable that holds the bearer token, of the service and of its clients."""
ABOUT_SAMPLE = ("task", "prompt", "images", "reference", "scene", "kind", "metadata")
OUTPUT_IMAGES = ("image", "frames", "mask", "map_before", "map_after", "buildings", "damage")
INDEX_MAPS = frozenset(OUTPUT_IMAGES[2:])
_REFERENCE_IMAGES = frozenset(key for key, known in REFERENCE_FIELDS.items() if known.kind is ImageRef)
_PNG = b"\x89PNG\r\n\x1a\n"
_DEEPEST = 32
"""Levels of lists and objects in a request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold. Each is refused by a sentence that names it."""

    body: int = 64 << 20
    """Bytes of a body."""
    items: int = 1024
    text: int = 1 << 18
    """Characters of any text but an image's bytes."""
    pixels: int = 1 << 22
    """Pixels of an image, height times width."""
    values: int = 1 << 20
    """Numbers, texts, lists and objects of a body, each of which takes far more memory than it has bytes."""
    decoded: int = 256 << 20
    """Bytes of all images of a request together, once they are decoded."""


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


Name = Annotated[str, Field(min_length=1, max_length=1024)]
Image = dict[str, Any]


class SampleRecord(_Record):
    """A sample: what was asked and what is true."""

    id: Name | None = None
    task: Name
    prompt: str = ""
    images: list[Image] = []
    reference: dict[str, Any] = {}
    scene: str = ""
    kind: str | None = None
    metadata: dict[str, Any] = {}


class Tokens(_Record):
    """The tokens of a rollout, for verifiers that count them."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]


class Item(_Record):
    """An output, with its sample: by name, by its place among the request's ``samples``, or in the item itself."""

    id: Name | None = None
    group: str | int | None = None
    candidate: int = 0
    sample_id: Name | None = None
    sample: Annotated[int, Field(ge=0)] | None = None
    task: Name | None = None
    prompt: str | None = None
    images: list[Image] | None = None
    reference: dict[str, Any] | None = None
    scene: str | None = None
    kind: str | None = None
    metadata: dict[str, Any] | None = None
    text: str | None = None
    image: Image | None = None
    frames: Annotated[list[Image], Field(min_length=1)] | None = None
    mask: Image | None = None
    map_before: Image | None = None
    map_after: Image | None = None
    buildings: Image | None = None
    damage: Image | None = None
    boxes: list[list[float]] | None = None
    finish_reason: str | None = None
    invalid: str | None = None
    lost: str | None = None
    tokens: Tokens | None = None


class Request(_Record):
    """The body of ``POST /v1/score``."""

    items: Annotated[list[Item], Field(min_length=1)]
    samples: list[SampleRecord] = []


class Asked(NamedTuple):
    """A request, read: what :meth:`rsw.Reward.many` takes."""

    outputs: list[Output]
    samples: list[Sample]
    groups: list[Any] | None


def parsed(body: bytes, limits: Limits, longest: int | None = None) -> Any:
    """The value of a JSON text.

    Args:
        body: the text, in UTF-8.
        limits: of the request.
        longest: characters of a text, where it is another number than the limits have.

    Raises:
        InputError: for what strict JSON does not allow, and over a limit.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > limits.values:
        raise InputError(f"the body holds more than {limits.values:,} values")
    try:
        value = json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON: {str(error)[:200]}") from None
    _check(value, limits.text if longest is None else longest, 0)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("the body names a key of an object twice")
    return found


def _no_constant(name: str) -> Any:
    raise InputError(f"the body holds {name}, which is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"the body holds the number {text[:40]}, which is too large")
    return number


def _check(value: Any, longest: int, depth: int) -> None:
    """Refuse texts that are too long or that nothing can write down, and nesting that is too deep."""
    if depth > _DEEPEST:
        raise InputError(f"the body is nested deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        for key, held in value.items():
            _check(key, longest, depth + 1)
            if key not in ("png", "npy") or not isinstance(held, str):  # limited once they are decoded
                _check(held, longest, depth + 1)
    elif isinstance(value, list):
        for held in value:
            _check(held, longest, depth + 1)
    elif isinstance(value, str):
        if len(value) > longest:
            raise InputError(f"a text has {len(value):,} characters; at most {longest:,} are read")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InputError("a text has half of a surrogate pair, which cannot be encoded as UTF-8") from None
    elif type(value) is int and abs(value) >= 1 << 63:
        raise InputError("the body holds a whole number of more than 63 bits")


def validated(model: type[BaseModel], value: Any) -> Any:
    """The record of that model. Raises :class:`InputError` naming the first field that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        if problem["type"] == "extra_forbidden":
            raise InputError(f"{where[:200]}: there is no such field") from None
        raise InputError(f"{where[:200]}: {reason_of(problem)}") from None  # type: ignore[arg-type]


class Reader:
    """Reads the images and records of one request, up to its limits.

    Args:
        limits: of the request.
        known: the samples that the service was started with, by id.
    """

    def __init__(self, limits: Limits, known: Mapping[str, Sample]) -> None:
        self.limits, self.known = limits, known
        self._left = limits.decoded

    def asked(self, body: bytes) -> Asked:
        """A body of ``POST /v1/score``. Raises :class:`InputError` naming the item and the field that cannot be used."""
        request = validated(Request, parsed(body, self.limits))
        if len(request.items) > self.limits.items:
            raise InputError(
                f"the request has {len(request.items):,} items; at most {self.limits.items:,} are scored at once"
            )
        samples = [_named(f"samples.{at}", self.sample, one, str(at)) for at, one in enumerate(request.samples)]
        asked = [_named(f"items.{at}", self._item, one, at, samples) for at, one in enumerate(request.items)]
        groups = [item.group for item in request.items]
        if None in groups and any(group is not None for group in groups):
            raise InputError("some items name a 'group' and others none; name the group of every item, or of none")
        outputs, of = (list(column) for column in zip(*asked, strict=True))
        return Asked(outputs, of, None if None in groups else groups)

    def named(self, name: str) -> Sample:
        """The service's own sample of that id. Raises :class:`InputError`."""
        if (sample := self.known.get(name)) is None:
            raise InputError(f"{name!r:.200} is the id of none of the service's {len(self.known)} samples")
        return sample

    def _item(self, item: Item, place: int, samples: Sequence[Sample]) -> tuple[Output, Sample]:
        own = {key: value for key in ABOUT_SAMPLE if (value := getattr(item, key)) is not None}
        if (item.sample_id is not None) + (item.sample is not None) + bool(own) != 1:
            raise InputError("an item has a 'sample_id', a 'sample', or its own 'task', 'reference' and 'images'")
        if item.sample_id is not None:
            sample = self.named(item.sample_id)
        elif item.sample is not None:
            if item.sample >= len(samples):
                raise InputError(f"'sample' is {item.sample}, and the request has {len(samples)} samples")
            sample = samples[item.sample]
        else:
            sample = self.sample(validated(SampleRecord, own), item.id or str(place))
        images: dict[str, Any] = {}
        for name in OUTPUT_IMAGES:
            if (entry := getattr(item, name)) is not None:
                if name == "frames":
                    images["images"] = tuple(self.image(one, "frames") for one in entry)
                else:
                    images[name] = self.image(entry, name, name in INDEX_MAPS)
        trace = item.tokens
        tokens = None
        if trace is not None:
            tokens = TokenTrace(tuple(trace.prompt_ids), tuple(trace.completion_ids), tuple(trace.logprobs))
        output = Output(
            sample.id, item.candidate, text=item.text, boxes=item.boxes, finish_reason=item.finish_reason,  # type: ignore[arg-type]
            invalid=item.invalid, lost=item.lost, tokens=tokens, **images,
        )  # fmt: skip
        return output, sample

    def sample(self, record: SampleRecord, name: str) -> Sample:
        """The sample of a record; ``name`` where it names no id. Raises :class:`InputError`."""
        reference = dict(record.reference)
        for key, value in reference.items():
            if key in _REFERENCE_IMAGES and value is not None:
                reference[key] = self.image(value, f"reference.{key}", key != "image")
            elif key == "images":
                if not isinstance(value, list):
                    raise InputError("'reference.images' must be a list of images")
                reference[key] = [self.image(one, "reference.images") for one in value]
        return Sample(
            record.id or name, record.task, tuple(self.image(one, "images") for one in record.images),  # type: ignore[arg-type]
            record.prompt, reference, record.scene, record.kind, record.metadata,
        )  # fmt: skip

    def image(self, entry: Any, name: str, is_map: bool = False) -> ImageRef:
        """The image of an object with ``png`` or ``npy``. Raises :class:`InputError` for anything else, a path among it."""
        with as_input_error(repr(name), InputError):
            kinds = entry.keys() & {"png", "npy"} if isinstance(entry, dict) else ()
            if len(kinds) != 1 or entry.keys() - {*DECLARED, *kinds}:
                raise InputError(
                    "an image is an object with its bytes in base64 as 'png' or 'npy', and with any of "
                    f"{', '.join(DECLARED)}; paths and addresses are not read"
                )
            (kind,) = kinds
            declared = {key: entry[key] for key in DECLARED if entry.get(key) is not None}
            colours = not is_map or "palette" in declared
            pixels = self.png(entry[kind], colours) if kind == "png" else self._npy(_bytes(entry[kind]))
            layout = "HW" if pixels.ndim == 2 else "HWC"
            if is_map and not declared.keys() - {"nodata"}:
                pixels = index_map(pixels, layout)
                nodata = number_of(declared["nodata"], "nodata") if declared else None
                return ImageRef(array=pixels, sha256=content_hash(pixels), nodata=nodata)
            plain = declared.keys() & {"levels", "threshold", "stretch"}
            return image(pixels, layout=layout, range=None if plain else STORED, **declared)

    def png(self, text: Any, colours: bool = True) -> np.ndarray:
        """The pixels of a PNG in base64. Raises :class:`InputError`."""
        data = _bytes(text)
        if not data.startswith(_PNG) or len(data) < 33:
            jpeg = "a JPEG, which changes what is measured" if data.startswith(b"\xff\xd8") else "no PNG"
            raise InputError(f"the image's bytes are {jpeg}; send a PNG")
        width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
        self._take(height, width, 3 * height * width)
        return read_picture(data, f"the image of {len(data)} bytes", colours)

    def _npy(self, data: bytes) -> np.ndarray:
        try:
            shape, dtype = npy_header(io.BytesIO(data))
        except Exception as error:  # whatever a broken header makes NumPy raise
            raise InputError(f"the bytes are no NPY file: {str(error)[:200]}") from None
        if dtype.kind not in "buif":
            raise InputError(f"the NPY file holds {str(dtype)[:40]}; an image holds real numbers")
        check_shape(shape, dtype.itemsize, "the NPY file")
        self._take(shape[0], shape[1], math.prod(shape) * dtype.itemsize)
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)  # type: ignore[no-any-return]
        except Exception as error:
            raise InputError(f"the bytes are no NPY file: {str(error)[:200]}") from None

    def _take(self, height: int, width: int, size: int) -> None:
        if height * width > self.limits.pixels:
            raise ImageError(f"the image has {width} x {height} pixels; at most {self.limits.pixels:,} are read")
        self._left -= size
        if self._left < 0:
            raise ImageError(f"the images of the request have more than {self.limits.decoded:,} bytes once decoded")


def _named(place: str, read: Any, *given: Any) -> Any:
    try:
        return read(*given)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise InputError("the bytes of an image are a text in base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"the bytes of an image are not base64: {error}") from None
