"""The samples that a report shows: the worst, the best, those on which verifiers or candidates disagree, and those not scored."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os.path import isfile
from typing import Any

import numpy as np
import pandas as pd

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Status
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_index, read_mask, read_rgb
from rsw_rewards.verifiers.forecast_case import as_future
from rsw_rewards.verifiers.maps import in_levels

GALLERY = 8
"""Samples of each sort that the gallery shows, beside one best and one worst of every kind."""
KINDS = 24
"""Kinds that are sure to be shown; more of them would make a page nobody scrolls through."""
THUMBNAIL = 256
"""Longer side of a picture in the gallery, in pixels."""
LONGEST_TEXT = 600
"""Characters of a text that are shown."""

FAILED = (Status.INVALID_OUTPUT, Status.ERROR, Status.TIMEOUT)

PALETTE = np.array(
    [(32, 36, 42), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
     (160, 160, 160)], np.uint8,
)  # fmt: skip
"""Colours of the indices of a map; the hues of Okabe and Ito (2008), which colour-blind readers can tell apart."""
_HIT, _EXTRA, _MISSED, _REST = (245, 245, 245), (213, 94, 0), (0, 114, 178), (32, 36, 42)

Key = tuple[str, int]
"""Sample and candidate."""


def gallery(frame: pd.DataFrame, samples: Iterable[Sample], outputs: Iterable[Output]) -> list[dict[str, Any]]:
    """Cards for the template, each of one output of a score table; a card's ``sort`` says why it is shown."""
    if frame.empty:
        return []
    chosen = choose(frame)
    if not chosen:  # no row has a value or failed: nothing was applicable
        return []
    keys = pd.MultiIndex.from_tuples(list(chosen))
    few = frame[pd.MultiIndex.from_frame(frame[["sample", "candidate"]]).isin(keys)]
    rows: dict[Any, pd.DataFrame] = dict(iter(few.groupby(["sample", "candidate"], sort=False)))
    by_id = {sample.id: sample for sample in samples}
    by_key = {(output.sample_id, output.candidate): output for output in outputs}
    return [
        card(sort, by_id[key[0]], by_key[key], rows[key])
        for key, sort in chosen.items()
        if key in by_key and key in rows
    ]


def choose(frame: pd.DataFrame) -> dict[Key, str]:
    """Which outputs are shown and why, from a score table: (sample, candidate) -> sort, in the order of the page."""
    by_output = frame.groupby(["sample", "candidate"], sort=False)["value"]
    value = by_output.mean().dropna().sort_values(kind="stable")
    failed = frame[frame["status"].isin(FAILED)].drop_duplicates(["sample", "candidate"])
    unscored = failed.groupby("status", sort=False).head(GALLERY // 2).sort_values("status", kind="stable")
    spread = _spread(by_output, value).sort_values(ascending=False, kind="stable")
    kinds = frame.drop_duplicates(["sample", "candidate"]).set_index(["sample", "candidate"])["kind"]
    ranked = value[~value.index.isin(pd.MultiIndex.from_frame(failed[["sample", "candidate"]]))]
    worst, best = _ends(ranked, kinds, worst=True), _ends(ranked[::-1], kinds, worst=False)
    chosen: dict[Key, str] = {}
    for sort, keys in (
        ("worst", worst),
        ("disagreeing", list(spread[spread > 0.25].index[:GALLERY])),
        ("best", best),
        ("not scored", list(zip(unscored["sample"], unscored["candidate"], strict=True))),
    ):
        for key in keys:
            chosen.setdefault(key, sort)
    return chosen


def _ends(ranked: pd.Series[float], kinds: pd.Series[str], worst: bool) -> list[Key]:
    """The first outputs of a ranking, and the first of every kind. A best output must be above the middle, a worst one below."""
    middle = (ranked.max() + ranked.min()) / 2 if len(ranked) else 0.0
    fit = ranked[ranked <= middle] if worst else ranked[ranked > middle]
    of_kind = kinds.reindex(fit.index).dropna()
    each = of_kind[~of_kind.duplicated()].index[:KINDS]
    return [*fit.index[:GALLERY], *each]


def _spread(by_output: Any, value: pd.Series[float]) -> pd.Series[float]:
    """How far verifiers disagree on an output, or, where that is nothing, the candidates of its sample."""
    between = (by_output.max() - by_output.min()).reindex(value.index)
    if float(between.max() or 0.0) > 0:
        return between
    sample = value.groupby(level="sample")
    return sample.transform("max") - sample.transform("min")


def card(sort: str, sample: Sample, output: Output, rows: pd.DataFrame) -> dict[str, Any]:
    """What the template shows of one output."""
    statuses = [str(status) for status in rows["status"]]
    bad = [status for status in map(str, FAILED) if status in statuses]
    said = output.text if output.text is not None else output.invalid or output.lost or ""
    return {
        "sort": sort,
        "id": sample.id,
        "candidate": output.candidate,
        "kind": sample.kind or "",
        "status": bad[0] if bad else str(Status.OK),
        "prompt": shortened(sample.prompt),
        "pictures": pictures(sample, output),
        "answer": shortened(said),
        "truth": shortened(truth_of(sample)),
        "scores": [
            {
                "verifier": row["verifier"],
                "status": str(row["status"]),
                "value": None if pd.isna(row["value"]) else float(row["value"]),
                "raw": row["raw"] or {},
                "reason": shortened(row["reason"] or ""),
            }
            for row in rows.to_dict("records")
        ],
    }


def shortened(text: str) -> str:
    """At most :data:`LONGEST_TEXT` characters of a text."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def truth_of(sample: Sample) -> str:
    """What is known to be true, as a text: all answers, captions or labels."""
    reference = sample.reference
    for key in ("answers", "captions", "labels"):
        if reference.get(key):
            return " / ".join(str(item) for item in reference[key])
    return str(reference.get("label") or reference.get("text") or "")


def pictures(sample: Sample, output: Output) -> list[dict[str, str]]:
    """Labelled pictures of a sample and an output; one that cannot be read carries its ``problem`` instead of ``src``."""
    reference = sample.reference
    shown: list[tuple[str, Callable[[], np.ndarray], bool]] = [
        (image.role or image.date or f"input {place}", partial(read_rgb, image), True)
        for place, image in enumerate(sample.images, start=1)
    ]
    if (forecast := output.forecast) is not None:
        future = (reference.get("images") or (None,))[-1]
        shown.append(("forecast", lambda: read_rgb(as_future(forecast, future)), True))
    shown += [("true future", partial(read_rgb, image), True) for image in (reference.get("images") or ())[-1:]]
    indexed = "classes" in reference or sample.task in (Task.SEMANTIC_CHANGE, Task.DAMAGE)
    for key in ("mask", "map_before", "map_after", "buildings", "damage"):
        truth, made = reference.get(key), getattr(output, key)
        if sample.task is Task.FORECAST:
            made = None
        name = key.replace("map_", "map ")
        truth = truth if isinstance(truth, ImageRef) else None
        if indexed:
            levels = reference.get("levels") if key == "mask" else None  # of the true mask; predictions hold indices
            shown += [(f"predicted {name}", _coloured(made), False)] if made is not None else []
            shown += [(f"true {name}", _coloured(truth, levels), False)] if truth is not None else []
        elif made is not None and truth is not None:
            shown.append(
                ("white: right, orange: too much, blue: missed", _compared(truth, made, reference.get("levels")), False)
            )
        elif (single := made if made is not None else truth) is not None:
            shown.append((f"{'predicted' if made is not None else 'true'} {name}", _compared(single, single), False))
    if sample.images and (reference.get("boxes") or output.boxes):
        boxed = _boxed(sample.images[-1], reference.get("boxes") or (), output.boxes or ())
        shown.append(("blue: true, orange: predicted", boxed, True))
    return [{"label": label, **_picture(draw, photo)} for label, draw, photo in shown]


def _coloured(image: ImageRef, levels: Sequence[int] | None = None) -> Callable[[], np.ndarray]:
    return lambda: _in_colours((read_index(in_levels(image, levels)) % len(PALETTE)).astype(np.uint8), PALETTE)


def _compared(truth: ImageRef, made: ImageRef, levels: Sequence[int] | None = None) -> Callable[[], np.ndarray]:
    def draw() -> np.ndarray:
        true, found = read_mask(in_levels(truth, levels)), read_mask(made)
        if true.shape != found.shape:
            return _in_colours(found.view(np.uint8), np.array([(32, 32, 32), _HIT], np.uint8))
        colours = np.array([_REST, _EXTRA, _MISSED, _HIT], np.uint8)
        return _in_colours(true.view(np.uint8) << 1 | found.view(np.uint8), colours)

    return draw


def _in_colours(numbers: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: to each of the (H, W) uint8 numbers its colour."""
    from PIL import Image

    # A look-up by numpy would take 16 bytes a pixel, over a gigabyte for the largest files that are read.
    picture = Image.fromarray(numbers)
    picture.putpalette(np.resize(colours, (256, 3)).tobytes())
    return np.asarray(picture.convert("RGB"))


def _boxed(
    image: ImageRef, true: Iterable[Sequence[float]], found: Iterable[Sequence[float]]
) -> Callable[[], np.ndarray]:
    def draw() -> np.ndarray:
        from PIL import Image, ImageDraw

        picture = Image.fromarray(read_rgb(image))
        pen, width = ImageDraw.Draw(picture), max(1, max(picture.size) // 120)
        reach = 2 * max(picture.size)  # a line of a thousand million pixels is drawn pixel by pixel
        for boxes, colour in ((true, _MISSED), (found, _EXTRA)):
            for box in list(boxes)[:50]:
                if len(box) not in (4, 8):
                    raise ValueError(f"a box has 4 or 8 numbers, not {len(box)}")
                box = [float(np.clip(corner, -reach, reach)) for corner in box]
                corners = box if len(box) == 8 else (box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3])
                points = [(corners[place], corners[place + 1]) for place in range(0, 8, 2)]
                pen.line([*points, points[0]], fill=colour, width=width)
        return np.asarray(picture)

    return draw


def _picture(draw: Callable[[], np.ndarray], photo: bool) -> dict[str, str]:
    try:
        return {"src": data_uri(draw(), photo)}
    except (ImageError, TypeError, ValueError, OverflowError) as error:  # a file or a box that cannot be drawn
        file = getattr(getattr(error, "image", None), "path", None)
        return {"problem": str(error) if file is None or isfile(file) else f"there is no file {file.name}"}


def data_uri(pixels: np.ndarray, photo: bool = False) -> str:
    """A thumbnail of a uint8 picture as a ``data:`` address; small pictures are enlarged without smoothing.

    Photographs are stored as JPEG unless they were enlarged, maps without loss.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels, np.uint8))
    scale = THUMBNAIL / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    buffer = io.BytesIO()
    kind = "jpeg" if photo and scale <= 1 else "png"
    picture.save(buffer, format=kind.upper(), **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
