"""Images of a sample and an output as small pictures for pages: inputs, truth, what was made, and both against each other."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os.path import isfile
from typing import NamedTuple

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_index, read_mask, read_rgb
from rsw_rewards.verifiers.forecast_case import as_future
from rsw_rewards.verifiers.maps import in_levels

THUMBNAIL = 256
"""Longest side of a picture on a page, in pixels; smaller ones keep their size."""
LOSSLESS = 128
"""Longest side of a photograph that is kept without loss."""
LARGE = 64.0
"""Mean absolute difference of 8-bit values that is drawn as the largest."""

PALETTE = np.array(
    [(32, 36, 42), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
     (160, 160, 160)], np.uint8,
)  # fmt: skip
"""Colours of the indices of a map; the hues of Okabe and Ito (2008), which colour-blind readers can tell apart."""
_HIT, _EXTRA, _MISSED, _REST = (245, 245, 245), (213, 94, 0), (0, 114, 178), (32, 36, 42)
_RAMP = np.array([(32, 36, 42), (0, 114, 178), (86, 180, 233), (240, 228, 66), (255, 255, 255)], np.float64)
"""From no difference to a large one."""


PARTS = ("input", "made", "both", "truth")
"""What a picture shows: what the model saw, what it made, that against the truth, or the truth."""
Draw = Callable[..., np.ndarray]
"""Makes a uint8 picture of one image or two."""


class Drawing(NamedTuple):
    """A picture that is not drawn yet."""

    part: str
    """One of :data:`PARTS`."""
    label: str
    draw: Draw
    images: tuple[ImageRef, ...]
    """What it is drawn of."""
    photo: bool = False
    """Whether it is a photograph."""


def drawn(draw: Draw, images: tuple[ImageRef, ...], photo: bool) -> str:
    """The ``data:`` address of what ``draw`` makes of images, as a photograph or not. Raises what reading and drawing raise."""
    return data_uri(draw(*images), photo)


def pictures(
    sample: Sample, output: Output, parts: Sequence[str] = PARTS, known: Callable[..., str] = drawn
) -> list[dict[str, str]]:
    """Labelled pictures of a sample and an output; one that cannot be read carries its ``problem`` instead of ``src``.

    Args:
        sample: what was asked.
        output: the answer.
        parts: which are made.
        known: for many cards, :func:`drawn` with a cache, since many questions and candidates are about one pair of images.
    """
    found = []
    for part, label, draw, images, photo in _drawings(sample, output):
        if part not in parts:
            continue
        shown = {"part": part, "label": label}
        # References to arrays without a name are equal to each other, and what is drawn of levels or boxes is drawn once.
        once = isinstance(draw, partial) or any(image.path is None and image.sha256 is None for image in images)
        try:
            shown["src"] = (drawn if once else known)(draw, images, photo)
        except (ImageError, TypeError, ValueError, OverflowError) as error:  # a file or a box that cannot be drawn
            file = getattr(getattr(error, "image", None), "path", None)
            shown["problem"] = str(error) if file is None or isfile(file) else f"there is no file {file.name}"
        found.append(shown)
    return found


def _drawings(sample: Sample, output: Output) -> Iterator[Drawing]:
    """All that can be drawn, from the inputs to the boxes, none of it read yet."""
    reference = sample.reference
    for place, image in enumerate(sample.images, start=1):
        yield Drawing("input", image.role or image.date or f"input {place}", read_rgb, (image,), photo=True)
    future, forecast = (reference.get("images") or (None,))[-1], output.forecast
    if forecast is not None:
        yield Drawing("made", "forecast", _forecast, (forecast, future) if future else (forecast,), photo=True)
    if future is not None:
        yield Drawing("truth", "true future", read_rgb, (future,), photo=True)
    if forecast is not None and future is not None:
        label = f"difference to the truth, white from {LARGE:g} of 255"
        yield Drawing("both", label, _difference, (forecast, future))
    indexed = "classes" in reference or sample.task in (Task.SEMANTIC_CHANGE, Task.DAMAGE)
    draw = _coloured if indexed else _masked
    for key in ("mask", "map_before", "map_after", "buildings", "damage"):
        made = None if sample.task is Task.FORECAST else getattr(output, key)
        truth = true if isinstance(true := reference.get(key), ImageRef) else None
        name = key.replace("map_", "map ")
        levels = reference.get("levels") if key == "mask" else None  # of the true mask; predictions hold indices
        compare: Draw = _compared
        draw_truth: Draw = draw
        if levels is not None:
            compare, draw_truth = partial(_compared, levels=levels), partial(draw, levels=levels)
        if made is not None and truth is not None and not indexed:
            yield Drawing("both", "white: right, orange: too much, blue: missed", compare, (truth, made))
        if made is not None:
            yield Drawing("made", f"predicted {name}", draw, (made,))
        if truth is not None:
            yield Drawing("truth", f"true {name}", draw_truth, (truth,))
    true_boxes, boxes = reference.get("boxes") or (), output.boxes or ()
    if sample.images and (true_boxes or boxes):
        boxed = partial(_boxed, true=true_boxes, found=boxes)
        yield Drawing("both", "blue: true, orange: predicted", boxed, sample.images[-1:], photo=True)


def _forecast(forecast: ImageRef, future: ImageRef | None = None) -> np.ndarray:
    return read_rgb(as_future(forecast, future))


def _difference(forecast: ImageRef, future: ImageRef) -> np.ndarray:
    return difference_map(_forecast(forecast, future), read_rgb(future))


def difference_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the mean absolute difference over channels of an (H, W, 3) uint8 image and the true one, dark where they agree and
    white from :data:`LARGE` on. Raises ValueError for images of two sizes.

    >>> difference_map(np.zeros((1, 2, 3), np.uint8), np.array([[[0] * 3, [200] * 3]], np.uint8)).tolist()
    [[[32, 36, 42], [255, 255, 255]]]
    """
    if image.shape != truth.shape:
        sizes = [f"{width} x {height}" for height, width, _ in (image.shape, truth.shape)]
        raise ValueError(f"it has {sizes[0]} pixels, the truth {sizes[1]}")
    sums = np.abs(image.astype(np.int16) - truth).sum(axis=-1, dtype=np.int16)
    # A colour for each of the 766 sums there are, so that a large picture is never held in float64.
    place = np.clip(np.arange(3 * 255 + 1) / (3 * LARGE), 0.0, 1.0) * (len(_RAMP) - 1)
    colours = np.stack([np.interp(place, np.arange(len(_RAMP)), channel) for channel in _RAMP.T], axis=-1)
    return colours.round().astype(np.uint8)[sums]


def _coloured(image: ImageRef, levels: Sequence[int] | None = None) -> np.ndarray:
    return _in_colours((read_index(in_levels(image, levels)) % len(PALETTE)).astype(np.uint8), PALETTE)


def _compared(truth: ImageRef, made: ImageRef, levels: Sequence[int] | None = None) -> np.ndarray:
    true, found = read_mask(in_levels(truth, levels)), read_mask(made)
    if true.shape != found.shape:
        return _in_colours(found.view(np.uint8), np.array([(32, 32, 32), _HIT], np.uint8))
    colours = np.array([_REST, _EXTRA, _MISSED, _HIT], np.uint8)
    return _in_colours(true.view(np.uint8) << 1 | found.view(np.uint8), colours)


def _masked(mask: ImageRef, levels: Sequence[int] | None = None) -> np.ndarray:
    return _in_colours(read_mask(in_levels(mask, levels)).view(np.uint8), np.array([_REST, _HIT], np.uint8))


def _in_colours(numbers: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: to each of the (H, W) uint8 numbers its colour."""
    from PIL import Image

    # A look-up by numpy would take 16 bytes a pixel, over a gigabyte for the largest files that are read.
    picture = Image.fromarray(numbers)
    picture.putpalette(np.resize(colours, (256, 3)).tobytes())
    return np.asarray(picture.convert("RGB"))


def _boxed(image: ImageRef, true: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> np.ndarray:
    from PIL import Image, ImageDraw

    picture = Image.fromarray(read_rgb(image))
    pen, width = ImageDraw.Draw(picture), max(1, max(picture.size) // 120)
    reach = 2 * max(picture.size)  # a line of a thousand million pixels is drawn pixel by pixel
    for boxes, colour in ((true, _MISSED), (found, _EXTRA)):
        for box in boxes[:50]:
            if len(box) not in (4, 8):
                raise ValueError(f"a box has 4 or 8 numbers, not {len(box)}")
            box = [float(np.clip(corner, -reach, reach)) for corner in box]
            corners = box if len(box) == 8 else (box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3])
            points = [(corners[place], corners[place + 1]) for place in range(0, 8, 2)]
            pen.line([*points, points[0]], fill=colour, width=width)
    return np.asarray(picture)


def data_uri(pixels: np.ndarray, photo: bool = False) -> str:
    """A uint8 picture as a ``data:`` address, made smaller where it is larger than :data:`THUMBNAIL`; a page enlarges what is small.

    Photographs over :data:`LOSSLESS` are stored as JPEG, maps and small pictures without loss.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels, np.uint8))
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=None)
    buffer = io.BytesIO()
    kind = "jpeg" if photo and max(picture.size) > LOSSLESS else "png"
    picture.save(buffer, format=kind.upper(), **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
