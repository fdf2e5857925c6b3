"""The records: a Sample is one question to answer or one forecast to make, an Output is one candidate for it.

A record is completed and checked when it is made, whether a file or a program makes it. What could mean two things is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rsw_rewards.core import fields, image_values
from rsw_rewards.core.answer import read_reply
from rsw_rewards.core.image_values import Palette, Stretch, describe
from rsw_rewards.errors import ImageError, InputError, did_you_mean
from rsw_rewards.pixels import content_hash, read_pixels

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where pixels are, and what is known about them without reading them.

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
        try:
            return read_pixels(self.path, colours, bands)
        except ImageError as error:
            error.image = self
            raise

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
        raise InputError(
            "give an image a 'range' or a 'stretch', not both: each says which numbers are dark and bright"
        )
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
    return ImageRef(
        path=path,
        array=pixels,
        sha256=None if pixels is None else content_hash(pixels),
        date=fields.optional_text_of(date, "date"),
        role=fields.optional_text_of(role, "role"),
        bands=image_values.bands_of(bands),
        stretch=image_values.stretch_of(stretch),
        nodata=image_values.number_of(nodata, "nodata"),
        palette=image_values.palette_of(palette),
        levels=image_values.levels_of(levels),
        threshold=image_values.threshold_of(threshold),
    )


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
        keywords = {name: value[name] for name in _IMAGE_KEYWORDS if value.get(name) is not None}
        if index_map and keywords.keys() == {"nodata"}:
            return replace(_image_of(value[key], True), nodata=image_values.number_of(value["nodata"], "nodata"))
        return image(value[key], **keywords) if keywords else _image_of(value[key], index_map)
    if not index_map or not image_values.holds_pixels(value):
        return image(value)
    pixels = image_values.index_map(image_values.pixels_of(value, colours=False))
    return ImageRef(array=pixels, sha256=content_hash(pixels))


_IMAGE_KEYWORDS = ("layout", "range", *image_values.DECLARED)


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise InputError(
            f"{describe(value)} is no image; give a path, an array, a tensor, a Pillow image, bytes or a data URL"
        )
    return Path(value)


class Task(StrEnum):
    """What is asked of the model.

    >>> rsw.Task("change_qa") is rsw.Task.CHANGE_QA, len(rsw.Task)
    (True, 8)
    """

    CHANGE_QA = "change_qa"
    CHANGE_CAPTION = "change_caption"
    CHANGE_MASK = "change_mask"
    SEMANTIC_CHANGE = "semantic_change"
    DAMAGE = "damage"
    FORECAST = "forecast"
    GROUNDING = "grounding"
    CLASSIFICATION = "classification"


OUTPUT_FIELDS: Mapping[Task, tuple[str, ...]] = {
    Task.CHANGE_QA: ("text",),
    Task.CHANGE_CAPTION: ("text",),
    Task.CHANGE_MASK: ("mask",),
    Task.SEMANTIC_CHANGE: ("map_before", "map_after"),
    Task.DAMAGE: ("buildings", "damage"),
    Task.FORECAST: ("image", "images"),
    Task.GROUNDING: ("boxes", "mask"),
    Task.CLASSIFICATION: ("text",),
}
"""Which fields of an Output answer a task. Forecasts and groundings need one of theirs, the other tasks all of them."""


def as_task(value: Any) -> Task:
    """The task of that name. Raises :class:`InputError`."""
    try:
        return Task(value)
    except ValueError:
        near = did_you_mean(value, map(str, Task)) if isinstance(value, str) else f"known are {', '.join(Task)}"
        raise InputError(f"'task' is {describe(value)}; {near}") from None


def _is_stored(value: Any) -> bool:
    """Whether a value is a reference to a file or to Ray's store, of which nothing is known that could be wrong."""
    return type(value) is ImageRef and value.array is None


def _images(value: Any, name: str) -> tuple[ImageRef, ...]:
    """One image, or a list of them in time order."""
    if isinstance(value, list | tuple):
        return tuple(as_image(item, name) for item in value)
    return (as_image(value, name),)


def _image_list(value: Any, name: str) -> list[ImageRef]:
    return list(_images(value, name))


def _index_map(value: Any, name: str) -> ImageRef:
    return as_image(value, name, index_map=True)


_MAPS = ("map_before", "map_after", "buildings", "damage")


class ReferenceField(NamedTuple):
    """An entry of a reference: its type, and what reads other values as one of it."""

    kind: type
    read: Callable[[Any, str], Any]


REFERENCE_FIELDS: Mapping[str, ReferenceField] = {
    **dict.fromkeys(("answers", "captions", "labels", "no_change"), ReferenceField(list, fields.texts_of)),
    **dict.fromkeys(("vocabulary", "classes", "changes"), ReferenceField(list, fields.items_of)),
    **dict.fromkeys(("choices", "levels"), ReferenceField(object, fields.plain_of)),  # their verifiers judge them
    "boxes": ReferenceField(list, fields.rows_of),
    **dict.fromkeys(("unit", "text", "label"), ReferenceField(str, fields.text_of)),
    **dict.fromkeys(("mask", "valid", "clouds", *_MAPS), ReferenceField(ImageRef, _index_map)),
    "image": ReferenceField(ImageRef, as_image),
    "images": ReferenceField(list, _image_list),
    "changed": ReferenceField(bool, fields.flag_of),
}
"""The entries of a reference whose types are known; others are kept as they are."""
_NESTED = frozenset({"images", "boxes"})


def _reference(given: Any) -> Mapping[str, Any]:
    """A reference with its entries in their own types; entries that are None are left out."""
    if type(given) is not dict and not isinstance(given, Mapping):
        raise InputError(f"'reference' must be a mapping, not {describe(given)}")
    changed: dict[str, Any] = {}
    for key, value in given.items():
        known = REFERENCE_FIELDS.get(key)
        if known is not None and (type(value) is not known[0] or key in _NESTED):  # [0] is read faster than .kind
            changed[key] = None if value is None else known.read(value, f"reference.{key}")
    return {key: value for key, value in {**given, **changed}.items() if value is not None} if changed else given


_put = object.__setattr__  # how a frozen record is completed while it is made


@dataclass(frozen=True, slots=True)
class Sample:
    """One question to answer or one forecast to make. See the table of tasks in docs/design.md for ``reference``.

    The task may be given by its name, an image as whatever :func:`image` takes, a list of texts as one text, an array or a tuple.

    Raises:
        InputError: naming the field and the value that cannot be used.

    >>> sample = rsw.Sample("a", "change_qa", reference={"answers": "yes"})
    >>> sample.task is rsw.Task.CHANGE_QA, sample.scene, sample.reference
    (True, 'a', {'answers': ['yes']})
    """

    id: str
    task: Task
    images: tuple[ImageRef, ...] = ()
    """What the model is shown, in time order."""
    prompt: str = ""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """What is known to be true. Entries that are images are :class:`ImageRef` (``images``: a list of them)."""
    scene: str = ""
    """The place the sample was cut from: intervals resample scenes, not samples. Defaults to the sample's id."""
    kind: str | None = None
    """The slice a protocol reports by, such as the type of a question."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.id) is not str or not self.id or not self.id.isascii():
            _put(self, "id", fields.text_of(self.id, "id"))
            if not self.id:
                raise InputError("'id' must be a text that is not empty")
        if type(self.task) is not Task:
            _put(self, "task", as_task(self.task))
        if type(self.images) is not tuple or not all(map(_is_stored, self.images)):
            _put(self, "images", _images(self.images, "images"))
        if type(self.prompt) is not str or not self.prompt.isascii():
            _put(self, "prompt", fields.text_of(self.prompt, "prompt"))
        if (reference := _reference(self.reference)) is not self.reference:
            _put(self, "reference", reference)
        if type(self.scene) is not str or not self.scene:
            _put(self, "scene", fields.text_of(self.scene, "scene") or self.id)
        if self.kind is not None and type(self.kind) is not str:
            _put(self, "kind", fields.text_of(self.kind, "kind"))
        if type(self.metadata) is not dict and not isinstance(self.metadata, Mapping):
            raise InputError(f"'metadata' must be a mapping, not {describe(self.metadata)}")

    @property
    def every_image(self) -> tuple[ImageRef, ...]:
        """All images that the sample names: what the model is shown and what is known to be true."""
        found = [*self.images]
        for value in self.reference.values():
            found += [item for item in (value if isinstance(value, list) else (value,)) if isinstance(item, ImageRef)]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """The tokens of a rollout, for the learner."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability of each completion token under the policy that sampled it."""


@dataclass(frozen=True, slots=True)
class Output:
    """One candidate answer to a sample. Only the fields of the sample's task are set.

    Images may be given as whatever :func:`image` takes, boxes as lists or an array. ``Output(text=None)`` is a missing answer.

    Raises:
        InputError: naming the field and the value that cannot be used.

    >>> rsw.Output("a", boxes=[[0, 0, 4, 4]]).boxes
    ((0.0, 0.0, 4.0, 4.0),)
    >>> rsw.Output("a", text=3)
    Traceback (most recent call last):
        ...
    rsw_rewards.errors.InputError: 'text' must be a string, not 3
    """

    sample_id: str = ""
    """The sample that it answers; may be left out where the position among the outputs says so."""
    candidate: int = 0
    text: str | None = None
    image: ImageRef | None = None
    images: tuple[ImageRef, ...] | None = None
    mask: ImageRef | None = None
    map_before: ImageRef | None = None
    map_after: ImageRef | None = None
    buildings: ImageRef | None = None
    damage: ImageRef | None = None
    boxes: tuple[tuple[float, ...], ...] | None = None
    invalid: str | None = None
    """Why the output cannot be used, if that is the policy's doing: missing, truncated, of the wrong kind."""
    lost: str | None = None
    """Why there is no output, if that is our doing: an actor died and its work could not be done again."""
    tokens: TokenTrace | None = None
    trajectory: ImageRef | None = None
    """The noisy latents of a diffusion rollout, for the learner: (steps + 1, C, H, W) float16. Never written to files."""
    seed: int | None = None
    finish_reason: str | None = None
    """``"stop"`` or ``"length"`` (truncated)."""
    policy_version: int | None = None

    def __post_init__(self) -> None:
        if (
            type(self.sample_id) is not str
            or type(self.candidate) is not int
            or not 0 <= self.candidate < fields.MAX_CANDIDATES
        ):
            _put(self, "sample_id", fields.text_of(self.sample_id, "sample_id"))
            _put(self, "candidate", fields.candidate_of(self.candidate))
        if self.text is not None and (type(self.text) is not str or not self.text.isascii()):
            _put(self, "text", fields.text_of(self.text, "text"))
        if (
            self.image is self.images is self.mask is self.map_before is self.map_after is self.buildings is self.damage
            is self.boxes is self.seed is self.policy_version is self.invalid is self.lost is self.finish_reason is None
        ):  # fmt: skip
            return  # as most outputs of most files
        if self.image is not None:
            _put(self, "image", as_image(self.image, "image"))
        for name in ("mask", *_MAPS):
            if (value := getattr(self, name)) is not None:
                _put(self, name, _index_map(value, name))
        if self.images is not None:
            _put(self, "images", _images(self.images, "images"))
            if not self.images:
                raise InputError("'images' must be a list of images that is not empty")
        if self.boxes is not None:
            _put(self, "boxes", fields.boxes_of(self.boxes, "boxes"))
        for name in ("seed", "policy_version"):
            if (value := getattr(self, name)) is not None:
                _put(self, name, fields.whole_of(value, name))
        for name in ("invalid", "lost", "finish_reason"):
            if (value := getattr(self, name)) is not None and type(value) is not str:
                _put(self, name, fields.text_of(value, name))

    @property
    def answer(self) -> str | None:
        """The text without reasoning, chat tokens and characters of no width; see :func:`rsw_rewards.core.answer.read_reply`.

        Empty for a text that was cut off inside its reasoning; None where there is no text.

        >>> rsw.Output("q0", text="<think>two roofs differ</think> yes").answer
        'yes'
        """
        return None if self.text is None else read_reply(self.text).answer

    @property
    def forecast(self) -> ImageRef | None:
        """The forecast image; of a series, its last frame."""
        return self.image if self.image is not None else (self.images[-1] if self.images else None)

    @property
    def every_image(self) -> tuple[ImageRef, ...]:
        """All images that the output holds, whatever its task."""
        single = (self.image, self.mask, self.map_before, self.map_after, self.buildings, self.damage)
        return (*(image for image in single if image is not None), *(self.images or ()))
