"""The records: a Sample is one question to answer or one forecast to make, an Output is one candidate for it.

Both live in JSON Lines files, one object a line. Paths in a file are relative to a root, the file's own folder or one that
the user names, and may not leave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.errors import ImageError
from rsw_rewards.pixels import read_pixels

if TYPE_CHECKING:
    from ray import ObjectRef


Palette = tuple[tuple[int, int, int], ...]
"""Colours of a map that is stored as a picture: the place of a colour is the index that it stands for."""

Stretch = tuple[tuple[float, float], ...]
"""Per band, the stored numbers that are shown as 0 and 255."""


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
        try:
            return read_pixels(self.path, colours)
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


class Task(StrEnum):
    """What is asked of the model."""

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


@dataclass(frozen=True, slots=True)
class Sample:
    """One question to answer or one forecast to make. See the table of tasks in docs/design.md for ``reference``."""

    id: str
    task: Task
    images: tuple[ImageRef, ...]
    """What the model is shown, in time order."""
    prompt: str = ""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """What is known to be true. Entries that are images are :class:`ImageRef` (``images``: a list of them)."""
    scene: str = ""
    """The place the sample was cut from: intervals resample scenes, not samples. Defaults to the sample's id."""
    kind: str | None = None
    """The slice a protocol reports by, such as the type of a question."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
    """One candidate answer to a sample. Only the fields of the sample's task are set."""

    sample_id: str
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

    @property
    def forecast(self) -> ImageRef | None:
        """The forecast image; of a series, its last frame."""
        return self.image if self.image is not None else (self.images[-1] if self.images else None)

    @property
    def every_image(self) -> tuple[ImageRef, ...]:
        """All images that the output holds, whatever its task."""
        single = (self.image, self.mask, self.map_before, self.map_after, self.buildings, self.damage)
        return (*(image for image in single if image is not None), *(self.images or ()))
