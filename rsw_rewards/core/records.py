"""The records: a Sample is one question to answer or one forecast to make, an Output is one candidate for it.

A record is completed and checked when it is made, whether a file or a program makes it. What could mean two things is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from rsw_rewards.core import fields
from rsw_rewards.core.answer import read_reply
from rsw_rewards.core.image_ref import ImageRef, as_image
from rsw_rewards.core.image_values import describe
from rsw_rewards.errors import InputError, did_you_mean


class Task(StrEnum):
    """The type of a sample: what the model is asked for.

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
    Task.GROUNDING: ("boxes", "mask", "text"),
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


def _images(value: Any, name: str) -> tuple[ImageRef, ...]:
    """One image, or a list of them in time order."""
    if isinstance(value, list | tuple):
        return tuple(as_image(item, name) for item in value)
    return (as_image(value, name),)


_MAPS = ("map_before", "map_after", "buildings", "damage")


class ReferenceField(NamedTuple):
    """An entry of a reference: its type, and what reads other values as one of it."""

    kind: type
    read: Callable[[Any, str], Any]


REFERENCE_FIELDS: Mapping[str, ReferenceField] = {
    **dict.fromkeys(("answers", "captions", "labels", "no_change"), ReferenceField(list, fields.text_items_of)),
    **dict.fromkeys(("vocabulary", "classes", "changes"), ReferenceField(list, fields.items_of)),
    **dict.fromkeys(("choices", "levels"), ReferenceField(object, fields.plain_of)),  # their verifiers judge them
    "boxes": ReferenceField(list, fields.rows_of),
    **dict.fromkeys(("unit", "text", "label"), ReferenceField(str, fields.text_of)),
    **dict.fromkeys(
        ("mask", "valid", "clouds", "land_cover", *_MAPS), ReferenceField(ImageRef, partial(as_image, index_map=True))
    ),
    "image": ReferenceField(ImageRef, as_image),
    "images": ReferenceField(list, lambda value, name: list(_images(value, name))),
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
        # Of a reference to a file or to Ray's store nothing is known that could be wrong.
        if type(self.images) is not tuple or not all(
            type(one) is ImageRef and one.array is None for one in self.images
        ):
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
    """One output for a sample. Only the fields of the sample's task are set.

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
    """``"stop"`` or ``"length"`` (truncated; ``"max_tokens"`` and ``"model_length"`` are read as that)."""
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
                _put(self, name, as_image(value, name, index_map=True))
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

        Empty for a text that was cut off inside its reasoning, or before a ``</think>``; None where there is no text or the output
        is invalid.

        >>> rsw.Output("q0", text="<think>two roofs differ</think> yes").answer
        'yes'
        """
        if self.text is None or self.invalid is not None:
            return None
        return read_reply(self.text, self.finish_reason).answer

    @property
    def forecast(self) -> ImageRef | None:
        """The forecast image; of a series, its last frame."""
        return self.image if self.image is not None else (self.images[-1] if self.images else None)

    @property
    def every_image(self) -> tuple[ImageRef, ...]:
        """All images that the output holds, whatever its task."""
        single = (self.image, self.mask, self.map_before, self.map_after, self.buildings, self.damage)
        return (*(image for image in single if image is not None), *(self.images or ()))
