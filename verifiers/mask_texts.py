"""Masks that models write in their answers: run lengths of labels, and boxes, as pure functions from a text to a mask."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.box_texts import read_boxes

MaskText = Literal["text4seg", "teochat"]
"""How a text writes a mask, by the model that does so."""

GRID = 16
"""Cells along a side of Text4Seg's masks, where the number of cells is not that of another square."""
_MOST = 128 * 128
_SEGMENT = re.compile(r"<seg>(.*?)</seg>", re.DOTALL)
_RUN = re.compile(r"\s*(.+?)\s*\*\s*(\d{1,6})\s*")
OFF = "others"


def _runs(text: str) -> list[tuple[str, int]]:
    found = _SEGMENT.search(text)
    runs = []
    for part in re.split(r"\||\n", (found[1] if found else text).strip()):
        if part.strip():
            run = _RUN.fullmatch(part)
            if run is None:
                raise Unreadable(f"{part.strip()[:40]!r} is no run of a label, such as 'others *5'")
            runs.append((run[1].lower(), int(run[2])))
    if not runs:
        raise Unreadable("the answer holds no run of a label")
    if sum(count for _, count in runs) > _MOST:
        raise Unreadable(f"the runs fill more than {_MOST} cells")
    return runs


def text4seg(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask of runs such as ``<seg>others *5| dam *3\\n others *8</seg>``, row by row over a square grid, in the shape of an image.

    A label other than ``others`` is on. Where runs fill no square, the grid is 16 x 16: the last label goes on, and what is over is cut
    (mc-lan/Text4Seg@d6540b6 ``llava/eval/utils.py`` ``decode_mask`` and its callers). Cells become pixels by their nearest neighbour.

    >>> text4seg("others *1| dam *1\\n others *2", (2, 4)).astype(int).tolist()
    [[0, 0, 1, 1], [0, 0, 0, 0]]
    """
    cells = np.array([label != OFF for label, count in _runs(text) for _ in range(count)], bool)
    if not len(cells):
        raise Unreadable("the runs fill no cell")
    side = round(len(cells) ** 0.5)
    if side * side != len(cells):
        side = GRID
        cells = np.append(cells, np.full(max(0, side * side - len(cells)), cells[-1]))[: side * side]
    grid = cells.reshape(side, side)
    rows, columns = (np.arange(length) * side // length for length in shape)
    return np.asarray(grid[np.ix_(rows, columns)])


def teochat(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask of boxes ``[x1, y1, x2, y2]`` in percent, filled with their outline; an answer without ``[`` marks nothing.

    ermongroup/TEOChat@2ed7387 ``videollava/eval/detection.py`` ``evaluate_masks``, which draws on 256 x 256 pixels.

    >>> teochat("[0, 0, 50, 50]", (4, 4)).astype(int).tolist()
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    """
    height, width = shape
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    for x1, y1, x2, y2 in read_boxes(text, "teochat", (width / 100, height / 100)) if "[" in text else ():
        draw.polygon([(x1, y1), (x1, y2), (x2, y2), (x2, y1)], outline=1, fill=1)
    return np.asarray(image, bool)


def read_mask_text(text: str, form: MaskText, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, the mask that a text writes. Raises :class:`Unreadable`."""
    return (text4seg if form == "text4seg" else teochat)(text, shape)
