"""The report: one self-contained HTML file with the numbers, what they stand beside, and samples to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rsw_rewards.evaluation.results import write_text
from rsw_rewards.images import ImageError, ImageRef, read_index, read_rgb
from rsw_rewards.samples import Output, Sample, Task

if TYPE_CHECKING:
    from rsw_rewards.evaluation.run import Evaluation

GALLERY = 8
"""Samples of each sort (best, worst, not scored) that the gallery shows."""
THUMBNAIL = 192
"""Longer side of a picture in the gallery, in pixels."""
LONGEST_TEXT = 600
"""Characters of a text that are shown."""


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the report of one evaluation. Everything that comes from files is escaped by the template."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters["number"] = number
    page = environment.get_template("report.html").render(
        protocol=evaluation.protocol,
        summary=evaluation.summary,
        columns=columns(evaluation.summary),
        cards=gallery(evaluation),
    )
    write_text(path, page)


def number(value: float | None) -> str:
    """A number for people: three to four digits that say something."""
    if value is None:
        return "-"
    if value != 0 and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def columns(summary: Mapping[str, Any]) -> list[str]:
    """Metric keys in the order of the summary."""
    return list(summary["metrics"])


def gallery(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Cards of the worst, the best and the unscored outputs, by the mean value over components."""
    frame = evaluation.table.frame
    if frame.empty:
        return []
    value = frame.groupby(["sample", "candidate"], sort=False)["value"].mean()
    failed = frame[frame["status"].isin(("invalid_output", "error", "timeout"))]
    unscored = list(dict.fromkeys(zip(failed["sample"], failed["candidate"], strict=True)))[:GALLERY]
    ranked = [key for key in value.dropna().sort_values(kind="stable").index if key not in set(unscored)]
    worst = ranked[:GALLERY]
    best = ranked[len(worst) :][::-1][:GALLERY]
    samples = {sample.id: sample for sample in evaluation.samples}
    outputs = {(output.sample_id, output.candidate): output for output in evaluation.outputs}
    shown = pd.MultiIndex.from_tuples([*unscored, *worst, *best]) if unscored or ranked else None
    few = (
        frame[pd.MultiIndex.from_frame(frame[["sample", "candidate"]]).isin(shown)] if shown is not None else frame[:0]
    )
    rows = dict(iter(few.groupby(["sample", "candidate"], sort=False)))  # a frame each: only for those that are shown
    cards = []
    for sort, keys in (("worst", worst), ("best", best), ("not scored", unscored)):
        for key in keys:
            if key[0] in samples and key in outputs:
                cards.append(_card(sort, samples[key[0]], outputs[key], rows[key]))
    return cards


def _card(sort: str, sample: Sample, output: Output, rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "sort": sort,
        "id": sample.id,
        "kind": sample.kind or "",
        "prompt": _short(sample.prompt),
        "pictures": _pictures(sample, output),
        "answer": _short(output.text or output.invalid or output.lost or "")
        if output.text is not None or output.invalid or output.lost
        else "",
        "truth": _short(_truth(sample)),
        "scores": [
            {
                "verifier": row["verifier"],
                "status": str(row["status"]),
                "value": None if pd.isna(row["value"]) else float(row["value"]),
                "raw": {key: number(raw) for key, raw in (row["raw"] or {}).items()},
                "reason": row["reason"],
            }
            for row in rows.to_dict("records")
        ],
    }


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _truth(sample: Sample) -> str:
    reference = sample.reference
    for key in ("answers", "captions", "labels"):
        if reference.get(key):
            return " / ".join(str(item) for item in reference[key])
    return str(reference.get("label") or reference.get("text") or "")


def _pictures(sample: Sample, output: Output) -> list[dict[str, str]]:
    shown: list[tuple[str, ImageRef, bool]] = []
    for place, image in enumerate(sample.images):
        shown.append((image.role or image.date or f"input {place + 1}", image, False))
    if output.forecast is not None:
        shown.append(("forecast", output.forecast, False))
    shown += [("true future", image, False) for image in (sample.reference.get("images") or ())[-1:]]
    if sample.task in (Task.CHANGE_MASK, Task.FORECAST):
        shown += [("predicted mask", output.mask, True)] if output.mask is not None else []
        shown += [("true mask", sample.reference["mask"], True)] if sample.reference.get("mask") is not None else []
    return [{"label": label, **_picture(image, is_map)} for label, image, is_map in shown]


def _picture(image: ImageRef, is_map: bool) -> dict[str, str]:
    try:
        pixels = read_index(image) if is_map else read_rgb(image)
        return {"src": data_uri(pixels.astype(np.uint8))}
    except ImageError as error:
        return {"problem": str(error)}


def data_uri(pixels: np.ndarray) -> str:
    """A thumbnail of a uint8 picture as a ``data:`` address. Small pictures are enlarged without smoothing."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = THUMBNAIL / max(picture.size)
    size: Sequence[int] = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
