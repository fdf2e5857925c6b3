"""Land cover of a scene and the event that changes it, as material maps on a lattice of 8-pixel cells.

A material is what a surface is made of; a class is what the questions and maps speak of. Roads and bare ground are two
materials of one class, as in the SECOND and CDVQA label sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CELL = 8  # pixels on a side of the lattice that buildings, roads and events keep to
MATERIALS = ("water", "trees", "grass", "ground", "road", "building", "playground")
WATER, TREES, GRASS, GROUND, ROAD, BUILDING, PLAYGROUND = range(7)

CLASSES = ("unchanged", "water", "NVG_surface", "low_vegetation", "trees", "buildings", "playgrounds")
"""Index 0 stands for "unchanged" in semantic change maps and never occurs in a full land-cover map."""
CLASS_OF_MATERIAL: NDArray[np.uint8] = np.array([1, 4, 3, 2, 2, 5, 6], np.uint8)

ROOFS = 4  # roof colours; the last one is kept for new buildings
PLACES = ("northwest", "north", "northeast", "west", "center", "east", "southwest", "south", "southeast")
SIZES = {"small": 0.25, "medium": 0.375, "large": 0.625}  # side of an event's square, as a share of the scene's side
EVENTS = ("construction", "clearing", "flooding", "demolition", "planting", "road", "playground")
_EVENT_ODDS = (0.26, 0.17, 0.15, 0.15, 0.10, 0.10, 0.07)
NOTHING_ODDS = 0.2
MIN_CHANGED_SHARE = 0.0085  # a smaller event is drawn again: one building of 36 pixels in 64 x 64 is the least


@dataclass(frozen=True)
class Land:
    """State of the ground at one date; every array covers the scene.

    Attributes:
        material: (s, s) uint8, index into ``MATERIALS``.
        roof: (s, s) uint8, roof colour where the material is building, else 0.
        built: (g, g) bool, cells that hold a building (at most one a cell).
        roads: (g, g) bool, cells crossed by a road.
    """

    material: NDArray[np.uint8]
    roof: NDArray[np.uint8]
    built: NDArray[np.bool_]
    roads: NDArray[np.bool_]


@dataclass(frozen=True)
class Event:
    """What happened between the dates, in words. ``style`` and ``size`` are empty where they do not apply."""

    kind: str
    style: str = ""
    size: str = ""
    place: str = ""


NOTHING = Event("nothing")


@lru_cache(maxsize=16)
def _upsampling(knots: int, side: int) -> NDArray[np.float32]:
    """(side, knots) matrix of smoothstep interpolation weights."""
    x = np.linspace(0, knots - 1, side)
    low = np.minimum(x.astype(int), knots - 2)
    t = x - low
    t = t * t * (3 - 2 * t)
    weights = np.zeros((side, knots), np.float32)
    weights[np.arange(side), low] = 1 - t
    weights[np.arange(side), low + 1] = t
    return weights


def smooth_noise(rng: np.random.Generator, knots: int, side: int) -> NDArray[np.float32]:
    """(side, side) value noise with ``knots`` x ``knots`` standard normal knots."""
    up = _upsampling(knots, side)
    knot_values: NDArray[np.float32] = rng.standard_normal((knots, knots), np.float32)
    return np.asarray(up @ knot_values @ up.T, np.float32)


def _cell(i: int, j: int) -> tuple[slice, slice]:
    return slice(CELL * i, CELL * (i + 1)), slice(CELL * j, CELL * (j + 1))


def _put_building(material: NDArray[np.uint8], roof: NDArray[np.uint8], i: int, j: int, colour: int) -> None:
    """Draws a 6 x 6 roof; its cell keeps a pixel of margin on the far side for the shadow."""
    y, x = CELL * i + 1, CELL * j + 1
    material[y : y + 6, x : x + 6] = BUILDING
    roof[y : y + 6, x : x + 6] = colour


def make_land(rng: np.random.Generator, side: int) -> Land:
    """Draws a land cover of ``side`` x ``side`` pixels."""
    cells = side // CELL
    material = np.full((side, side), GRASS, np.uint8)
    material[smooth_noise(rng, 5, side) > 0.35] = TREES
    material[smooth_noise(rng, 5, side) > 0.75] = GROUND
    if rng.random() < 0.55:
        material[smooth_noise(rng, 4, side) > 0.8] = WATER
    roof = np.zeros((side, side), np.uint8)
    built = np.zeros((cells, cells), bool)
    roads = np.zeros((cells, cells), bool)
    for _ in range(rng.integers(0, 3)):
        k = int(rng.integers(0, cells))
        band = slice(CELL * k + 2, CELL * k + 6)
        if rng.random() < 0.5:
            material[band, :] = ROAD
            roads[k, :] = True
        else:
            material[:, band] = ROAD
            roads[:, k] = True
    wet = (material == WATER).reshape(cells, CELL, cells, CELL).any((1, 3))
    taken = roads | wet
    if rng.random() < 0.3:
        i, j = (int(v) for v in rng.integers(0, cells, 2))
        if not taken[i, j]:
            material[_cell(i, j)] = PLAYGROUND
            taken[i, j] = True
    for _ in range(rng.integers(0, cells * cells // 4)):
        i, j = (int(v) for v in rng.integers(0, cells, 2))
        if not taken[i, j]:
            _put_building(material, roof, i, j, int(rng.integers(0, ROOFS - 1)))
            built[i, j] = taken[i, j] = True
    return Land(material, roof, built, roads)


def _square(rng: np.random.Generator, cells: int, sizes: dict[str, float]) -> tuple[str, str, int, int, int]:
    """Draws where a square event happens: its size and place in words, its first row and column and its side in cells."""
    size = str(rng.choice(list(sizes), p=list(sizes.values())))
    side = round(SIZES[size] * cells)
    place = int(rng.integers(0, len(PLACES)))
    starts = (0, (cells - side + 1) // 2, cells - side)
    return size, PLACES[place], starts[place // 3], starts[place % 3], side


def _build(rng: np.random.Generator, land: Land) -> tuple[Land, Event]:
    size, place, i0, j0, n = _square(rng, len(land.built), {"small": 0.4, "medium": 0.6})
    style = "dense" if rng.random() < 0.5 else "sparse"
    material, roof, built = land.material.copy(), land.roof.copy(), land.built.copy()
    for i in range(i0, i0 + n):
        for j in range(j0, j0 + n):
            cell = _cell(i, j)
            blocked = built[i, j] or land.roads[i, j] or np.isin(land.material[cell], (WATER, PLAYGROUND)).any()
            if blocked or (style == "sparse" and (i - i0 + j - j0) % 2):
                continue
            material[cell] = GROUND
            _put_building(material, roof, i, j, ROOFS - 1)
            built[i, j] = True
    return Land(material, roof, built, land.roads), Event("construction", style, size, place)


def _convert(rng: np.random.Generator, land: Land, kind: str) -> tuple[Land, Event]:
    """Events that turn some materials of a square into another one."""
    size, place, i0, j0, n = _square(rng, len(land.built), {"small": 0.3, "medium": 0.4, "large": 0.3})
    square = slice(CELL * i0, CELL * (i0 + n)), slice(CELL * j0, CELL * (j0 + n))
    old = land.material[square]
    built = land.built.copy()
    if kind == "clearing":
        new = np.where(old == TREES, GROUND, old)
    elif kind == "planting":
        new = np.where((old == GRASS) | (old == GROUND), TREES, old)
    elif kind == "flooding":
        new = np.where(old == BUILDING, BUILDING, WATER)
    else:
        new = np.where(old == BUILDING, GROUND, old)
        built[i0 : i0 + n, j0 : j0 + n] = False
    material = land.material.copy()
    material[square] = new
    return Land(material, land.roof, built, land.roads), Event(kind, "", size, place)


def _pave(rng: np.random.Generator, land: Land) -> tuple[Land, Event]:
    """A new road through the whole scene; it takes the buildings in its way with it."""
    cells = len(land.built)
    horizontal = bool(rng.random() < 0.5)
    k = int(rng.integers(0, 3))
    line = (cells // 8, cells // 2, 3 * cells // 4)[k]
    material, built, roads = land.material.copy(), land.built.copy(), land.roads.copy()
    # Views of the same arrays, turned so that the road runs along their rows.
    along, built_along, roads_along = (x if horizontal else x.T for x in (material, built, roads))
    band = along[CELL * line : CELL * (line + 1)]
    band[band == BUILDING] = GROUND
    band[2:6] = ROAD
    built_along[line] = False
    roads_along[line] = True
    place = (("north", "center", "south") if horizontal else ("west", "center", "east"))[k]
    return Land(material, land.roof, built, roads), Event("road", "horizontal" if horizontal else "vertical", "", place)


def _play(rng: np.random.Generator, land: Land) -> tuple[Land, Event]:
    size, place, i0, j0, n = _square(rng, len(land.built), {"small": 1.0})
    square = slice(CELL * i0, CELL * (i0 + n)), slice(CELL * j0, CELL * (j0 + n))
    material, built, roads = land.material.copy(), land.built.copy(), land.roads.copy()
    material[square] = PLAYGROUND
    built[i0 : i0 + n, j0 : j0 + n] = False
    roads[i0 : i0 + n, j0 : j0 + n] = False
    return Land(material, land.roof, built, roads), Event("playground", "", size, place)


def _happen(rng: np.random.Generator, land: Land) -> tuple[Land, Event]:
    kind = EVENTS[int(rng.choice(len(EVENTS), p=_EVENT_ODDS))]
    if kind == "construction":
        return _build(rng, land)
    if kind == "road":
        return _pave(rng, land)
    if kind == "playground":
        return _play(rng, land)
    return _convert(rng, land, kind)


def make_change(rng: np.random.Generator, side: int) -> tuple[Land, Land, Event]:
    """Draws a land cover and what becomes of it.

    Returns:
        The land before, the land after, and the event. Both lands are one object for the event "nothing".
    """
    if rng.random() < NOTHING_ODDS:
        land = make_land(rng, side)
        return land, land, NOTHING
    while True:
        land = make_land(rng, side)
        for _ in range(4):
            after, event = _happen(rng, land)
            if (after.material != land.material).mean() >= MIN_CHANGED_SHARE:
                return land, after, event
