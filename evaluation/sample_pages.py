"""Pages of all samples of an evaluation, in a folder beside its report: written, linked to and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.gallery import Key, card, gathered, paged, score_rows
from rsw_rewards.evaluation.pages import render
from rsw_rewards.evaluation.progress import Progress, silent

CARDS = 60
"""Most samples of a page."""
LIMIT = 3_500_000
"""Characters of images on a page, which keeps it below 5 MB."""
_BEGIN, _END = '<script type="application/json">', "</script>"


def folder_of(report: Path) -> Path:
    """Where the pages of a report lie: ``report/`` beside ``report.html``. Raises :class:`InputError` for a report of another name."""
    if report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report {report} must end in .html; its pages lie in a folder of that name")
    return report.with_suffix("")


def write_pages(
    report: Path,
    name: str,
    frame: pd.DataFrame,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    progress: Progress = silent,
) -> dict[Key, str]:
    """Write the pages of all outputs, in place of those that are there, and return the address of each output from the report.

    Args:
        report: the page beside which they lie.
        name: of the run.
        frame: the score table.
        samples: what was asked.
        outputs: the answers.
        progress: told how far the work is.
    """  # fmt: skip
    folder = folder_of(report)
    for old in folder.glob("samples-*.html"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    rows, asked = score_rows(frame), {sample.id: sample for sample in samples}
    where: dict[Key, str] = {}

    def cards() -> Iterator[dict[str, Any]]:
        for place, output in enumerate(outputs):
            progress("pages of samples", place, len(outputs))
            key = (output.sample_id, output.candidate)
            yield {**card(asked[output.sample_id], output, rows.get(key, ())), "anchor": f"s{place}"}
        progress("pages of samples", len(outputs), len(outputs))

    for number, page in enumerate(paged(cards(), LIMIT, CARDS), start=1):
        file = folder / f"samples-{number:04d}.html"
        where |= {(one["id"], one["candidate"]): f"{quote(folder.name)}/{file.name}#{one['anchor']}" for one in page}
        before = f"samples-{number - 1:04d}.html" if number > 1 else ""
        after = f"samples-{number + 1:04d}.html" if len(where) < len(outputs) else ""
        links = {"report": f"../{report.name}", "before": before, "after": after}
        write_text(file, render("samples.html", name=name, number=number, cards=gathered(page), **links))
    return where


def read_cards(report: Path, keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """Cards of some outputs, read back from the pages beside a report; those that are not there are left out.

    Raises:
        InputError: a page is damaged.
    """
    wanted = set(keys)
    found: dict[Key, dict[str, Any]] = {}
    for file in sorted(folder_of(report).glob("samples-*.html")):
        if len(found) == len(wanted):
            break
        try:
            held = json.loads(file.read_text(encoding="utf-8").split(_BEGIN, 1)[1].split(_END, 1)[0])
            for one in held["cards"]:
                if (key := (one["id"], one["candidate"])) in wanted:
                    found[key] = {**one, "pictures": [_whole(picture, held["images"]) for picture in one["pictures"]]}
        except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{file} is damaged: {error!r}; evaluate again with --resume, which writes it") from error
    return found


def _whole(picture: Mapping[str, Any], images: Sequence[str]) -> dict[str, Any]:
    if "image" not in picture:
        return dict(picture)
    source = str(images[picture["image"]])
    if not source.startswith("data:image/"):
        raise ValueError("a picture is no image")
    return {**{key: value for key, value in picture.items() if key != "image"}, "src": source}
