"""Pictures of a land cover: colours, texture, shadows, season, illumination, registration jitter and sensor noise.

The season and most of the illumination are functions of the month, which a forecaster is told; the rest is noise that
nobody can foresee. All of it is kept small beside the contrast of the materials.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.data.scene_world.land import BUILDING, GRASS, TREES, Land, smooth_noise

_COLOURS: NDArray[np.float32] = np.array(
    # water, trees, grass, ground, road, building (see _ROOFS), playground
    [[38, 72, 118], [34, 84, 44], [122, 152, 82], [186, 158, 116], [98, 98, 104], [0, 0, 0], [64, 150, 134]],
    np.float32,
) / np.float32(255)
_ROOFS: NDArray[np.float32] = np.array(
    [[176, 74, 60], [120, 60, 70], [84, 104, 150], [228, 224, 216]], np.float32
) / np.float32(255)
_SEASON_TINT: NDArray[np.float32] = np.array([-0.020, 0.020, -0.008], np.float32)  # vegetation in midsummer
_TEXTURE = 0.06
_SHADOW = 0.6
_SEASON_GAIN = 0.02
_CHANCE_GAIN = 0.02
_SENSOR_NOISE = 0.008  # standard deviation, as a share of full scale
_JITTER_PX = 0.2  # largest shift of the second image along each axis


def season(month: int) -> float:
    """+1 in July, -1 in January, a cosine between (the scene world lies north of the equator)."""
    return math.cos(2 * math.pi * (month - 7) / 12)


def make_texture(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """(side, side) texture that both dates share."""
    return smooth_noise(rng, side // 4 + 1, side)


def _shift(image: NDArray[np.float32], dy: float, dx: float) -> NDArray[np.float32]:
    """Bilinear shift by less than one pixel; the border is repeated."""
    for axis, d in ((0, dy), (1, dx)):
        step = 1 if d > 0 else -1
        neighbour = np.roll(image, step, axis)
        edge: list[slice | int] = [slice(None)] * image.ndim
        edge[axis] = 0 if d > 0 else -1
        neighbour[tuple(edge)] = image[tuple(edge)]
        image = image + np.float32(abs(d)) * (neighbour - image)
    return image


def render(
    rng: np.random.Generator, land: Land, texture: NDArray[np.float32], month: int, jitter: bool
) -> NDArray[np.uint8]:
    """Draws the picture of a land cover.

    Args:
        rng: source of the unforeseeable part.
        land: what there is to see.
        texture: (s, s) multiplicative texture from ``make_texture``.
        month: 1 to 12.
        jitter: whether the picture is shifted by a fraction of a pixel.

    Returns:
        (s, s, 3) uint8 RGB.
    """
    image = _COLOURS[land.material]
    building = land.material == BUILDING
    image[building] = _ROOFS[land.roof[building]]
    s = np.float32(season(month))
    image[(land.material == GRASS) | (land.material == TREES)] += s * _SEASON_TINT
    shade = 1 + np.float32(_TEXTURE) * texture
    shadow = building[:-1, :-1] & ~building[1:, 1:]
    shade[1:, 1:][shadow] *= np.float32(_SHADOW)
    gain = 1 + _SEASON_GAIN * s + _CHANCE_GAIN * rng.uniform(-1, 1)
    image = image * (shade * np.float32(gain))[..., None]
    if jitter:
        dy, dx = rng.uniform(-_JITTER_PX, _JITTER_PX, 2)
        image = _shift(image, float(dy), float(dx))
    image += np.float32(_SENSOR_NOISE) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
