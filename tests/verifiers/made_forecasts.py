"""Forecasts and samples made for tests: honest ones on the scene world, and those that know nothing of the future."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.data.scene_world import Scene, make_scene, split_seed
from rsw_rewards.data.scene_world.land import make_change
from rsw_rewards.data.scene_world.render import make_texture, render
from rsw_rewards.features.bank import FeatureBank

SEED = split_seed("dev", 31)
SIDE = 64


def noisy(base: np.ndarray, seed: int, noise: float) -> np.ndarray:
    """``base`` with Gaussian noise, as uint8."""
    return np.clip(base + np.random.default_rng(seed).normal(0, noise, base.shape), 0, 255).astype(np.uint8)


def grey(mask: np.ndarray) -> ImageRef:
    """A bool mask as an image of 0 and 255."""
    return ImageRef(array=mask.astype(np.uint8) * 255)


def ready(cls: type[Verifier], **config: object) -> Verifier:
    """A verifier that is set up."""
    verifier = cls(cls.Config.model_validate(config))
    verifier.setup(Context(FeatureBank()))
    return verifier


def score_one(verifier: Verifier, one: Sample, pixels: np.ndarray | ImageRef) -> Score:
    """The score of one forecast."""
    image = pixels if isinstance(pixels, ImageRef) else ImageRef(array=pixels)
    return verifier.score(Batch([one], [Output(one.id, image=image)], ["g"]))[0]


def metrics(verifier: Verifier, scores: Sequence[Score]) -> dict[str, float | None]:
    """What the verifier's metrics make of scores."""
    columns = {key: [getattr(score, key) for score in scores] for key in ("status", "raw", "stats")}
    table = ScoreTable.from_columns(columns)
    numbers: dict[str, float | None] = {}
    for metric in verifier.metrics():
        numbers |= metric.compute(table.frame, table.stats(), np.ones(len(scores)), None)
    return numbers


def plain(scores: Sequence[Score]) -> list[tuple[object, ...]]:
    """Scores as values that can be compared bit by bit: arrays have no single truth value."""
    return [
        (one.status, one.value, dict(one.raw), {key: np.asarray(item).tolist() for key, item in one.stats.items()})
        for one in scores
    ]


@dataclass(frozen=True)
class World:
    """Scenes with the forecasts of policies that know more or less."""

    scenes: tuple[Scene, ...]
    honest: tuple[np.ndarray, ...]
    """The right change in the right season, its light, noise and registration drawn anew."""

    @property
    def samples(self) -> list[Sample]:
        return [
            Sample(
                str(number),
                Task.FORECAST,
                (ImageRef(array=scene.before),),
                reference={"images": [ImageRef(array=scene.after)], "mask": grey(scene.mask)},
            )
            for number, scene in enumerate(self.scenes)
        ]


@cache
def world(n: int = 60) -> World:
    """The first ``n`` scenes."""
    scenes = tuple(make_scene(SEED, index, SIDE) for index in range(n))
    return World(scenes, tuple(redraw(index, scene) for index, scene in enumerate(scenes)))


def redraw(index: int, scene: Scene) -> np.ndarray:
    """The future of a scene under other chances."""
    rng = np.random.default_rng([SEED, index, SIDE])
    _, after, _ = make_change(rng, SIDE)
    texture = make_texture(rng, SIDE)
    return render(np.random.default_rng([5, index]), after, texture, int(scene.dates[1][5:7]), jitter=True)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """A picture after JPEG compression."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def blurred(pixels: np.ndarray) -> np.ndarray:
    """A picture under a Gaussian of 1.5 pixels."""
    blur: np.ndarray = gaussian_filter(pixels, (1.5, 1.5, 0))
    return blur


IGNORANT: Mapping[str, Callable[[World, int], np.ndarray]] = {
    "copy": lambda made, row: made.scenes[row].before,
    "blurred copy": lambda made, row: blurred(made.scenes[row].before),
    "noisy copy": lambda made, row: noisy(made.scenes[row].before, row, 20),
    "mean picture": lambda made, row: np.mean([scene.after for scene in made.scenes], axis=0).astype(np.uint8),
    "one colour": lambda made, row: np.broadcast_to(
        made.scenes[row].before.mean((0, 1)).astype(np.uint8), (SIDE, SIDE, 3)
    ).copy(),
    "noise": lambda made, row: np.random.default_rng(row).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
    "another future": lambda made, row: made.scenes[(row + 1) % len(made.scenes)].after,
}
"""Forecasts that know nothing of what changes."""


def values(verifier: Verifier, pictures: Sequence[np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
    """(n,) values of one forecast per sample."""
    outputs = [Output(one.id, image=ImageRef(array=pixels)) for one, pixels in zip(samples, pictures, strict=True)]
    found = [score.value for score in verifier.score(Batch.of(samples, outputs))]
    return np.array([np.nan if value is None else value for value in found])


def share_first(verifier: Verifier, made: World) -> tuple[float, dict[str, float]]:
    """Share of changed scenes in which the honest forecast beats every ignorant one, and the means of each on those scenes."""
    samples, rows = made.samples, range(len(made.scenes))
    changed = np.array([scene.changed for scene in made.scenes])
    honest = values(verifier, made.honest, samples)[changed]
    others = {
        name: values(verifier, [draw(made, row) for row in rows], samples)[changed] for name, draw in IGNORANT.items()
    }
    first = (honest > np.max(list(others.values()), axis=0)).mean()
    return float(first), {"honest": float(honest.mean()), **{name: float(v.mean()) for name, v in others.items()}}


def value_of(verifier: Verifier, one: Sample, pixels: np.ndarray) -> float:
    """The value of a forecast that can be scored."""
    score = score_one(verifier, one, pixels)
    assert score.status is Status.OK and score.value is not None, score.reason
    return score.value
