"""Samples as cards: which are shown first and why, what a card holds, and the pages of all samples beside a report."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Status
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.pages import render
from rsw_rewards.evaluation.pictures import pictures
from rsw_rewards.evaluation.progress import Progress, silent

GALLERY = 8
"""Samples of each sort that are shown first, beside the worst one of every kind."""
KINDS = 24
"""Kinds that are sure to be shown; more of them would make a page nobody scrolls through."""
LONGEST_TEXT = 600
"""Characters of a text that are shown."""
CARDS = 60
"""Most samples of a page."""
LIMIT = 3_500_000
"""Characters of images on a page, which keeps it below 5 MB."""
_BEGIN, _END = '<script type="application/json">', "</script>"

NOT_OK = (Status.INVALID_OUTPUT, Status.ERROR, Status.TIMEOUT)

Key = tuple[str, int]
"""Sample and candidate."""
Rows = Mapping[Key, Sequence[Mapping[str, Any]]]
"""The scores of every output."""
_COLUMNS = ["sample", "candidate", "verifier", "value", "status", "reason", "raw"]


def score_rows(frame: pd.DataFrame) -> dict[Key, list[dict[str, Any]]]:
    """The rows of a score table by output."""
    found: dict[Key, list[dict[str, Any]]] = {}
    for row in frame[_COLUMNS].to_dict("records"):
        found.setdefault((row["sample"], row["candidate"]), []).append({str(key): item for key, item in row.items()})
    return found


def choose(frame: pd.DataFrame) -> dict[Key, str]:
    """Which outputs are shown first and why, from a score table: (sample, candidate) -> why, in the order of the page."""
    by_output = frame.groupby(["sample", "candidate"], sort=False)["value"]
    value = by_output.mean().dropna().sort_values(kind="stable")
    failed = failed_outputs(frame)
    unscored = failed.groupby("status", sort=False).head(GALLERY // 2).sort_values("status", kind="stable")
    spread = _spread(by_output, value).sort_values(ascending=False, kind="stable")
    kinds = frame.drop_duplicates(["sample", "candidate"]).set_index(["sample", "candidate"])["kind"]
    ranked = value[~value.index.isin(pd.MultiIndex.from_frame(failed[["sample", "candidate"]]))]
    middle = (ranked.max() + ranked.min()) / 2 if len(ranked) else 0.0
    worst, best = ranked[ranked <= middle], ranked[ranked > middle][::-1]
    rest = list(ranked.index)
    chosen: dict[Key, str] = {}
    for why, keys in (
        ("worst", list(worst.index[:GALLERY])),
        ("disputed", list(spread[spread > 0.25].index[:GALLERY])),
        ("best", list(best.index[:GALLERY])),
        ("not scored", list(zip(unscored["sample"], unscored["candidate"], strict=True))),
        ("random", random.Random(0).sample(rest, min(len(rest), GALLERY))),
        ("worst of a kind", _of_each_kind(worst, kinds)),
    ):
        for key in keys:
            chosen.setdefault(key, why)
    return chosen


def failed_outputs(frame: pd.DataFrame) -> pd.DataFrame:
    """The first failure of every output that a component could not score; a component that scored none, of which a report tells once,
    counts only where no component scored any."""
    scored = frame.loc[~frame["status"].isin(NOT_OK), "verifier"].unique()
    rows = frame[frame["status"].isin(NOT_OK)]
    own = rows[rows["verifier"].isin(scored)] if len(scored) else rows
    return own.drop_duplicates(["sample", "candidate"])


def _of_each_kind(ranked: pd.Series[float], kinds: pd.Series[str]) -> list[Key]:
    """The first output of every kind in a ranking."""
    of_kind = kinds.reindex(ranked.index).dropna()
    return list(of_kind[~of_kind.duplicated()].index[:KINDS])


def _spread(by_output: Any, value: pd.Series[float]) -> pd.Series[float]:
    """How far verifiers disagree on an output, or, where that is nothing, the candidates of its sample."""
    between = (by_output.max() - by_output.min()).reindex(value.index)
    if float(between.max() or 0.0) > 0:
        return between
    sample = value.groupby(level="sample")
    return sample.transform("max") - sample.transform("min")


def card(sample: Sample, output: Output, rows: Iterable[Mapping[str, Any]], why: str = "") -> dict[str, Any]:
    """What a page shows of one output.

    Args:
        sample: what was asked.
        output: the answer.
        rows: its scores, records of a score table.
        why: it is shown.
    """
    # A verifier of sets has a row without a value for every output.
    scores = [one for one in map(score, rows) if one["status"] != Status.OK or one["value"] is not None or one["raw"]]
    statuses = {one["status"] for one in scores}
    said = output.text if output.text is not None else output.invalid or output.lost or ""
    return {
        "why": why,
        "id": sample.id,
        "candidate": output.candidate,
        "kind": sample.kind or "",
        "status": next((status for status in map(str, NOT_OK) if status in statuses), str(Status.OK)),
        "prompt": shortened(sample.prompt),
        "pictures": pictures(sample, output),
        "answer": shortened(said),
        "truth": "" if (truth := truth_of(sample)) == sample.prompt else shortened(truth),
        "scores": scores,
    }


def score(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows of one score, a record of a score table."""
    return {
        "verifier": row["verifier"],
        "status": str(row["status"]),
        "value": None if row["value"] is None or row["value"] != row["value"] else float(row["value"]),
        "raw": {key: None if value != value else value for key, value in (row.get("raw") or {}).items()},
        "reason": shortened(row["reason"] or ""),
    }


def gathered(cards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Cards as a page holds them: ``images``, every picture once, and ``cards``, which name pictures by their number.

    >>> one = {"pictures": [{"label": "input 1", "src": "data:a"}], "sides": [{"pictures": [{"label": "again", "src": "data:a"}]}]}
    >>> gathered([one])["images"], gathered([one])["cards"][0]["sides"][0]["pictures"]
    (['data:a'], [{'label': 'again', 'image': 0}])
    """
    images: dict[str, int] = {}

    def numbered(part: Mapping[str, Any]) -> dict[str, Any]:
        shown = [
            {**{key: value for key, value in one.items() if key != "src"}, "image": images.setdefault(one["src"], len(images))}
            if "src" in one else one
            for one in part.get("pictures", ())
        ]  # fmt: skip
        found = {**part, "pictures": shown}
        return {**found, "sides": [numbered(side) for side in part["sides"]]} if "sides" in part else found

    listed = [numbered(card) for card in cards]
    return {"images": list(images), "cards": listed}


def paged(cards: Iterable[Mapping[str, Any]], limit: int, most: int | None = None) -> Iterable[list[Mapping[str, Any]]]:
    """Cards in pages of at most about ``limit`` characters of distinct pictures, and ``most`` cards; a larger card has a page of its own."""
    page: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    for one in cards:
        sources = {
            picture["src"]
            for part in (one, *one.get("sides", ()))
            for picture in part.get("pictures", ())
            if "src" in picture
        }
        used = sum(map(len, seen | sources))
        if page and (used > limit or len(page) == most):
            yield page
            page, seen = [], set()
        page.append(one)
        seen |= sources
    if page:
        yield page


def shortened(text: str, most: int = LONGEST_TEXT) -> str:
    """At most ``most`` characters of a text."""
    return text if len(text) <= most else text[: most - 1] + "…"


def truth_of(sample: Sample) -> str:
    """What is known to be true, as a text: all answers, captions or labels."""
    reference = sample.reference
    for key in ("answers", "captions", "labels"):
        if reference.get(key):
            return " / ".join(str(item) for item in reference[key])
    return str(reference.get("label") or reference.get("text") or "")


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
