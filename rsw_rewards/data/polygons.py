"""Polygons filled as OpenCV's ``fillPoly`` fills them: what lies inside, and every pixel of the edges.

The masks of several data sets were drawn so, and differ along every edge from a rule of pixel centres. Inside the image the result
is ``fillPoly``'s to the pixel; a polygon that leaves it may differ by one pixel where it does.
"""

from __future__ import annotations

import numpy as np


def _clip(start: np.ndarray, end: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of an edge within (width, height) pixels, as ``clipLine`` cuts it, left end first; None where there is none."""
    ends = (start.copy(), end.copy())
    for axis in (1, 0):
        last = size[axis] - 1
        if max(point[axis] for point in ends) < 0 or min(point[axis] for point in ends) > last:
            return None
        for point, other in (ends, ends[::-1]):
            bound = min(max(int(point[axis]), 0), last)
            if bound != point[axis]:
                slope = (other[1 - axis] - point[1 - axis]) / (other[axis] - point[axis])
                point[1 - axis] += int((bound - point[axis]) * slope)
                point[axis] = bound
    return ends if ends[0][0] <= ends[1][0] else ends[::-1]


def _edge(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(n, 2) pixels x, y from ``start`` to ``end``: one per step along the longer axis, halves rounded towards the start."""
    way = end - start
    long = int(abs(way[1]) > abs(way[0]))
    steps = int(abs(way[long]))
    along = np.arange(steps + 1)
    across = -((steps - 2 * abs(int(way[1 - long])) * along) // (2 * max(steps, 1)))
    pixels = np.empty((steps + 1, 2), np.int64)
    pixels[:, long] = start[long] + np.sign(way[long]) * along
    pixels[:, 1 - long] = start[1 - long] + np.sign(way[1 - long]) * across
    return pixels


def _crossings(start: np.ndarray, end: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row that an edge crosses, but its lowest, and the first column at or right of the crossing."""
    (x0, y0), (x1, y1) = (start, end) if start[1] <= end[1] else (end, start)
    rows = np.arange(max(y0, 0), min(y1, height))
    return rows, x0 - (rows - y0) * (x0 - x1) // max(y1 - y0, 1)


def fill_polygon(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels of a polygon as (height, width) bool.

    Args:
        corners: (n, 2) whole numbers x, y, the pixels at the corners; the last one is joined to the first.
        height, width: of the image, in pixels.

    >>> fill_polygon(np.array([[0, 0], [3, 0], [0, 3]]), 4, 5).astype(int)
    array([[1, 1, 1, 1, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 0, 0, 0],
           [1, 0, 0, 0, 0]])
    """
    filled = np.zeros((height, width), bool)
    (left, top), (right, bottom) = corners.min(axis=0).clip(0), (corners.max(axis=0) + 1).clip(0, (width, height))
    if left >= right or top >= bottom:
        return filled
    crossings = np.zeros((bottom - top, right - left + 1), np.int32)
    sides = [*zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    for start, end in sides:
        rows, columns = _crossings(start, end, height)
        np.add.at(crossings, (rows - top, columns.clip(left, right) - left), 1)
    filled[top:bottom, left:right] = crossings[:, :-1].cumsum(axis=1) % 2 == 1
    for start, end in sides:
        if (ends := _clip(start, end, (width, height))) is not None:
            x, y = _edge(*ends).T
            filled[y, x] = True
    return filled
