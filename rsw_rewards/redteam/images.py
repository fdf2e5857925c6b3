"""Attacks with images that need no look into a verifier: copies, noise, flat colours, crops, texture of other scenes, writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ImageError
from rsw_rewards.redteam.kit import Attack, Pool, baseline_attacks, each
from rsw_rewards.rollouts.baselines.base import drawn_as, in_memory, is_raster, stored, whole_future
from rsw_rewards.rollouts.baselines.pictures import newest

_BLIND = ("copy_before", "blurred_copy", "mean_image", "other_future", "noise")
Draw = Callable[[Sample, np.ndarray], "np.ndarray | None"]
"""What is drawn for a sample from its newest input, (H, W, C) float64; values are brought back to the input's type."""


def image_attacks(pool: Pool) -> list[Attack]:
    """All attacks on forecasts that no gradient and no search is needed for."""
    found = baseline_attacks(_BLIND, pool, "image", "does not look at what will change")
    return found + [Attack(name, "image", each(drawing(draw)), about) for name, about, draw in _drawings(pool)]


def drawing(draw: Draw) -> Callable[[Sample], Output | None]:
    """The output that a drawing makes of a sample; None for a sample without an input image, or of which nothing is drawn."""

    def output(sample: Sample) -> Output | None:
        if not sample.images:
            return None
        try:
            shown = newest(sample)
            pixels = stored(sample, shown)
        except ImageError:
            return None
        drawn = draw(sample, np.nan_to_num(pixels.astype(np.float64)))
        if drawn is None:
            return None
        if is_raster(sample, shown):
            return whole_future(sample, drawn_as(shown, drawn, pixels.dtype))
        return whole_future(sample, in_memory(np.clip(np.rint(drawn), 0, 255).astype(np.uint8)))

    return output


def _drawings(pool: Pool) -> Sequence[tuple[str, str, Draw]]:
    def noisy(reach: int) -> Draw:
        def draw(sample: Sample, copy: np.ndarray) -> np.ndarray:
            step = pool.noise(sample, "noise").integers(-reach, reach + 1, copy.shape)
            return np.asarray(copy + step * _unit(copy))

        return draw

    def texture(sample: Sample, copy: np.ndarray) -> np.ndarray | None:
        found = _other_input(pool, sample, copy.shape)
        if found is None:
            return None
        height, width = copy.shape[:2]
        drawn = copy.copy()
        drawn[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = found[
            height // 4 : 3 * height // 4, width // 4 : 3 * width // 4
        ]
        return drawn

    def crop(sample: Sample, copy: np.ndarray) -> np.ndarray:
        height, width = copy.shape[:2]
        rows, columns = height // 4 + np.arange(height) // 2, width // 4 + np.arange(width) // 2
        return copy[np.minimum(rows, height - 1)][:, np.minimum(columns, width - 1)]

    def specks(sample: Sample, copy: np.ndarray) -> np.ndarray:
        here = np.asarray(pool.noise(sample, "specks").random(copy.shape[:2])) < 0.02
        return copy + here[..., None] * 120 * _unit(copy)

    def roofs(sample: Sample, copy: np.ndarray) -> np.ndarray:
        chance = pool.noise(sample, "roofs")
        drawn, side = copy.copy(), max(2, min(copy.shape[:2]) // 8)
        for _ in range(12):
            y, x = (int(chance.integers(0, max(1, extent - side))) for extent in copy.shape[:2])
            drawn[y : y + side, x : x + side] = chance.integers(120, 256, copy.shape[2]) * _unit(copy)
        return drawn

    def checks(sample: Sample, copy: np.ndarray) -> np.ndarray:
        fields = np.asarray((np.indices(copy.shape[:2]) // 4).sum(0) % 2)
        return np.asarray(copy + fields[..., None] * 60 * _unit(copy))

    return (
        ("copy, noise 1", "the newest input, each value at most 1 grey level off", noisy(1)),
        ("copy, noise 3", "at most 3 grey levels off", noisy(3)),
        ("copy, noise 10", "at most 10 grey levels off", noisy(10)),
        ("flat", "the mean colour of the input", lambda s, copy: np.broadcast_to(copy.mean((0, 1)), copy.shape)),
        ("black", "zeros", lambda s, copy: np.zeros_like(copy)),
        ("brighter", "12 grey levels brighter", lambda s, copy: copy + 12 * _unit(copy)),
        ("tinted", "another colour balance", lambda s, copy: copy * np.linspace(1.15, 0.85, copy.shape[2])),
        ("upside down", "the input, upside down", lambda s, copy: copy[::-1]),
        ("crop", "the middle of the input, twice as large", crop),
        ("texture of another scene", "the middle quarter from another scene's input", texture),
        ("specks", "every fiftieth pixel bright", specks),
        ("roofs anywhere", "twelve bright squares at random places", roofs),
        ("checks", "a checkerboard over the input", checks),
        ("writing", "the prompt written on the input", _written),
    )


def _unit(pixels: np.ndarray) -> float:
    """A grey level: 1 of 255, or as much of the range of a raster."""
    return 1.0 if 1.0 < pixels.max(initial=0) <= 255.0 else float(pixels.max(initial=0) or 1.0) / 255.0


def _other_input(pool: Pool, sample: Sample, shape: tuple[int, ...]) -> np.ndarray | None:
    other = pool.other(sample, lambda one: bool(one.images))
    if other is None:
        return None
    try:
        pixels = stored(other, newest(other))
    except ImageError:
        return None
    return pixels.astype(np.float64) if pixels.shape == shape else None


def _written(sample: Sample, copy: np.ndarray) -> np.ndarray | None:
    from PIL import Image, ImageDraw

    if copy.shape[2] != 3 or copy.max(initial=0) > 255 or is_raster(sample, newest(sample)):
        return None
    page = Image.fromarray(copy.astype(np.uint8))
    ImageDraw.Draw(page).text((2, 2), str(sample.reference.get("text") or sample.prompt)[:80], fill=(255, 255, 255))
    return np.asarray(page, np.float64)
