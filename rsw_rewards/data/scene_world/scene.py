"""One procedural bi-temporal scene with everything that is true about it: a pure function of (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.data.scene_world.land import CELL, CLASS_OF_MATERIAL, Event, make_change
from rsw_rewards.data.scene_world.questions import Question, captions, forecast_prompt, make_questions, measure
from rsw_rewards.data.scene_world.render import make_texture, render

SENSOR = "scene-world"
GSD_M = (0.5, 1.0, 2.0)  # says nothing about the picture; there so that prompts carry a resolution


@dataclass(frozen=True)
class Scene:
    """A pair of pictures and its truth; ``s`` is the side in pixels.

    Attributes:
        name: unique for (seed, index); what intervals resample.
        before, after: (s, s, 3) uint8 RGB.
        map_before, map_after: (s, s) uint8 index into ``CLASSES``, never 0.
        material_before, material_after: (s, s) uint8 index into ``MATERIALS``.
        mask: (s, s) bool, where the material changed. Season, light, jitter and noise are not in it.
        event: what happened.
        new_buildings: their count.
        questions: at most one of each kind.
        captions: paraphrases of what happened.
        forecast_prompt: what should change and where.
        dates: ISO dates of the two pictures.
        metadata: ``lat``, ``lon`` (degrees), ``gsd_m`` (metres a pixel), ``sensor``.
    """

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    map_before: NDArray[np.uint8]
    map_after: NDArray[np.uint8]
    material_before: NDArray[np.uint8]
    material_after: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    event: Event
    new_buildings: int
    questions: tuple[Question, ...]
    captions: tuple[str, ...]
    forecast_prompt: str
    dates: tuple[str, str]
    metadata: dict[str, Any]

    @property
    def changed(self) -> bool:
        """Whether any material changed."""
        return self.event.kind != "nothing"


def make_scene(seed: int, index: int, size: int = 64) -> Scene:
    """Makes scene ``index`` of the generator ``seed``; the result depends on nothing but the arguments.

    Args:
        seed: generator seed, 0 or more. ``splits.split_seed`` keeps purposes apart.
        index: 0 or more.
        size: side in pixels, a multiple of 8 from 64 on.

    Raises:
        ValueError: ``size`` does not fit the lattice of cells.
    """
    if size < 8 * CELL or size % CELL:
        raise ValueError(f"size must be a multiple of {CELL} and at least {8 * CELL}, got {size}")
    rng = np.random.default_rng([seed, index, size])
    before, after, event = make_change(rng, size)
    texture = make_texture(rng, size)
    year, month = int(rng.integers(2015, 2022)), int(rng.integers(1, 13))
    later, later_month = year + int(rng.integers(1, 4)), int(rng.integers(1, 13))
    picture_before = render(rng, before, texture, month, jitter=False)
    picture_after = render(rng, after, texture, later_month, jitter=True)
    mask = before.material != after.material
    map_before, map_after = CLASS_OF_MATERIAL[before.material], CLASS_OF_MATERIAL[after.material]
    new, removed = int((after.built & ~before.built).sum()), int((before.built & ~after.built).sum())
    return Scene(
        name=f"scene-world/{seed}/{index:06d}" if size == 64 else f"scene-world-{size}/{seed}/{index:06d}",
        before=picture_before,
        after=picture_after,
        map_before=map_before,
        map_after=map_after,
        material_before=before.material,
        material_after=after.material,
        mask=mask,
        event=event,
        new_buildings=new,
        questions=make_questions(rng, measure(map_before, map_after, mask), new, removed),
        captions=captions(event, new or removed),
        forecast_prompt=forecast_prompt(event),
        dates=(f"{year}-{month:02d}-15", f"{later}-{later_month:02d}-15"),
        metadata={
            "lat": round(float(rng.uniform(25, 60)), 2),
            "lon": round(float(rng.uniform(-120, 140)), 2),
            "gsd_m": GSD_M[rng.integers(0, len(GSD_M))],
            "sensor": SENSOR,
        },
    )
