"""The report of an evaluation: one page with samples first, then the numbers beside their baselines, and pages of all samples beside it."""

from __future__ import annotations

import random
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.evaluation.numbers import Mark, arrow, axis_of, lane, number, sign
from rsw_rewards.evaluation.pages import (
    NOT_OK,
    Card,
    Key,
    cards_of,
    gathered,
    render,
    short_names,
    shortened,
    write_pages,
)
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.published import footnote
from rsw_rewards.evaluation.summary import common_reasons

GALLERY = 8
"""Samples of each sort that are shown first, beside the worst one of every kind."""
KINDS = 24
"""Kinds that are sure to be shown; more of them would make a page nobody scrolls through."""
LIMIT = 2_200_000
"""Characters of images on the report itself, which keeps it under 5 MB beside a table of 10,000 samples."""
ROWS = 25
"""Rows of a page of the table of all samples."""
TEXT = 120
"""Characters of a text in that table."""
BINS = 20
"""Columns of a histogram of values over [0, 1]."""
REASONS = 4
"""Reasons of failures that stand at the top."""
TRUTH = "oracle"
"""The baseline that is the truth."""
CEILINGS = (TRUTH, "tokenizer_ceiling")
"""Baselines that know the truth."""


def write_report(
    path: Path,
    protocol: Protocol,
    summary: Mapping[str, Any],
    table: ScoreTable,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    progress: Progress = silent,
) -> Path:
    """Write the report of an evaluation, and the pages of all its samples into the folder of the same name beside it.

    Args:
        path: of the page, such as ``runs/mine/report.html``.
        protocol: what was measured.
        summary: as :class:`Evaluation` has it.
        table: all scores.
        samples: what was asked.
        outputs: the answers.
        progress: told how far the work is.
    """
    name = path.resolve().parent.name if path.name == "report.html" else path.stem
    cards = cards_of(table.frame, samples, outputs)
    chosen = choose(table.frame) if cards else {}
    links, drawn = write_pages(path, name, cards, chosen, progress)
    first = [{**drawn[key], "why": why} for key, why in chosen.items()]
    kind_key, kinds = kind_lanes(summary)
    failed = table.frame[table.frame["status"].isin(NOT_OK)]
    page = render(
        "report.html",
        name=name,
        protocol=protocol,
        summary=summary,
        written=time.strftime("%Y-%m-%d %H:%M"),
        command=command(),
        documentation=documentation(),
        failures=common_reasons(failed, ("verifier", "status"), REASONS),
        failed=sum(card.content["status"] != Status.OK for card in cards),
        outputs=len(outputs),
        tiles=tiles(summary),
        first=gathered(first, LIMIT),
        lanes=lanes(summary),
        kind_key=kind_key,
        kinds=kinds,
        all=all_rows(cards, links, table),
        statuses=[str(status) for status in Status],
        histograms=histograms(table.frame),
        footnotes=list(dict.fromkeys(footnote(row) for row in summary.get("published", ()))),
    )
    write_text(path, page)
    return path


def choose(frame: pd.DataFrame) -> dict[Key, str]:
    """Which outputs are shown first and why, from a score table: (sample, candidate) -> why, in the order of the page."""
    by_output = frame.groupby(["sample", "candidate"], sort=False)["value"]
    value = by_output.mean().dropna().sort_values(kind="stable")
    failed = failed_outputs(frame)
    unscored = failed.groupby(failed, sort=False).head(GALLERY // 2).sort_values(kind="stable")
    spread = _spread(by_output, value).sort_values(ascending=False, kind="stable")
    ranked = value[~value.index.isin(failed.index)]
    middle = (ranked.max() + ranked.min()) / 2 if len(ranked) else 0.0
    worst, best = ranked[ranked <= middle], ranked[ranked > middle][::-1]
    kinds = frame.drop_duplicates(["sample", "candidate"]).set_index(["sample", "candidate"])["kind"]
    worst_of_kinds = kinds.reindex(worst.index).dropna().drop_duplicates()
    chosen: dict[Key, str] = {}
    for why, keys in (
        ("worst", worst.index[:GALLERY]),
        ("disputed", spread[spread > 0.25].index[:GALLERY]),
        ("best", best.index[:GALLERY]),
        ("not scored", unscored.index),
        ("random", random.Random(0).sample(list(ranked.index), min(len(ranked), GALLERY))),
        ("worst of a kind", worst_of_kinds.index[:KINDS]),
    ):
        for key in keys:
            chosen.setdefault(key, why)
    return chosen


def failed_outputs(frame: pd.DataFrame) -> pd.Series[str]:
    """The status of the first failure of every output that a component could not score, by sample and candidate. A component that scored
    none, of which a report tells once, counts only where no component scored any."""
    scored = frame.loc[~frame["status"].isin(NOT_OK), "verifier"].unique()
    rows = frame[frame["status"].isin(NOT_OK)]
    own = rows[rows["verifier"].isin(scored)] if len(scored) else rows
    return own.drop_duplicates(["sample", "candidate"]).set_index(["sample", "candidate"])["status"]


def _spread(by_output: Any, value: pd.Series[float]) -> pd.Series[float]:
    """How far verifiers disagree on an output, or, where that is nothing, the candidates of its sample."""
    between = (by_output.max() - by_output.min()).reindex(value.index)
    if float(between.max() or 0.0) > 0:
        return between
    sample = value.groupby(level="sample")
    return sample.transform("max") - sample.transform("min")


def all_rows(cards: Sequence[Card], links: Sequence[str], table: ScoreTable) -> dict[str, Any]:
    """The table of all outputs for the template: the columns that say anything, and rows."""
    heading, names = short_names([card.key for card in cards])
    status = failed_outputs(table.frame).to_dict()
    answered = any(card.output.text is not None for card in cards)
    labels = table.names
    columns: list[list[Any]] = [
        [heading, "link"],
        ["kind", "text", True],
        ["status", "text", True],
        *([name, "text"] for name in ("prompt", "answer", "truth")),
        *([label, "number"] for label in labels),
    ]
    rows = []
    for card, name, link in zip(cards, names, links, strict=True):
        shown = card.content
        texts = (shown["prompt"], shown["answer"] if answered else "", shown["truth"])
        values = {one["verifier"]: one["value"] for one in shown["scores"]}
        rows.append(
            [
                [name, link],
                shown["kind"],
                str(status.get(card.key, Status.OK)),
                *(shortened(text, TEXT) for text in texts),
                *(None if (value := values.get(label)) is None else round(value, 4) for label in labels),
            ]
        )
    used = [k for k in range(len(columns)) if any(row[k] not in ("", None, "ok") for row in rows)]
    return {"columns": [columns[k] for k in used], "rows": [[row[k] for k in used] for row in rows], "size": ROWS}


def beside(key: str, baselines: Mapping[str, Any]) -> dict[str, float]:
    """What the baselines have of a number."""
    found = {name: (row["metrics"].get(key) or {}).get("value") for name, row in baselines.items()}
    return {name: value for name, value in found.items() if value is not None}


def best_baseline(key: str, baselines: Mapping[str, Any]) -> tuple[str, float | None, float | None]:
    """The best baseline that does not know the truth, what it has of a number, and what the truth has; "" and None where there is none."""
    found = beside(key, baselines)
    others = {name: value for name, value in found.items() if name not in CEILINGS}
    name = max(others, key=lambda name: sign(key) * others[name]) if others and sign(key) else ""
    return name, others.get(name), found.get(TRUTH)


def standing(key: str, value: float, baselines: Mapping[str, Any]) -> tuple[str, str]:
    """Where a number lies between the best baseline and the truth: a class of the style sheet, and words.

    >>> rows = {"majority": {"metrics": {"accuracy": {"value": 0.6}}}, "oracle": {"metrics": {"accuracy": {"value": 1.0}}}}
    >>> standing("accuracy", 0.5, rows)
    ('low', 'no better than majority, 0.600; the truth has 1.000')
    >>> standing("accuracy", 0.7, rows)[0], standing("accuracy", 0.9, rows)[0]
    ('between', 'high')
    """
    name, best, truth = best_baseline(key, baselines)
    end = "" if truth is None else f"; the truth has {number(truth)}"
    if best is None:
        return "", end.lstrip("; ")
    if sign(key) * (value - best) <= 0:
        return "low", f"no better than {name}, {number(best)}{end}"
    near = truth is not None and truth != best and (value - best) / (truth - best) >= 2 / 3
    return "high" if near else "between", f"best baseline {name}, {number(best)}{end}"


def tiles(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers, each with where it lies."""
    found = []
    for key, entry in summary["metrics"].items():
        if entry.get("diagnostic"):
            continue
        place, words = ("", "") if entry["value"] is None else standing(key, entry["value"], summary["baselines"])
        found.append({"key": key, "place": place, "words": words, **entry})
    return found


def lanes(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers, each on an axis of its own with its interval, the baselines and the published rows."""
    drawn = []
    for key, entry in summary["metrics"].items():
        if entry.get("diagnostic") or entry["value"] is None:
            continue
        marks = [Mark("baseline", name, value) for name, value in beside(key, summary["baselines"]).items()]
        published = ((row["method"], row["metrics"].get(key)) for row in summary.get("published", ()))
        marks += [Mark("published", method, value) for method, value in published if value is not None]
        values = [entry["value"], *(entry["ci95"] or ()), *(mark.value for mark in marks)]
        drawn.append(lane(key, entry["value"], axis_of(values), entry["ci95"], marks, arrow=arrow(key)))
    return drawn


def kind_lanes(summary: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The first headline number that two kinds have, by kind, best first: its key and the lines, which share an axis."""
    for key in summary["metrics"]:
        found = {kind: metrics.get(key) for kind, metrics in summary["slices"].items()}
        known = {kind: entry for kind, entry in found.items() if entry and entry["value"] is not None}
        if len(known) < 2:
            continue
        order = sorted(known, key=lambda kind: -(sign(key) or 1) * known[kind]["value"])
        axis = axis_of([value for entry in known.values() for value in (entry["value"], *(entry["ci95"] or ()))])
        return key, [
            lane(kind, known[kind]["value"], axis, known[kind]["ci95"], note=f"n {known[kind]['n']}") for kind in order
        ]
    return "", []


def histograms(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """How the values of each verifier are spread: shares per bin of [0, 1], for verifiers with more than two values."""
    drawn = []
    for name, values in frame.groupby("verifier", sort=False)["value"]:
        known = values.dropna().to_numpy(np.float64)
        if len(np.unique(known[:10_000])) < 3:
            continue
        counts, _ = np.histogram(np.clip(known, 0.0, 1.0), BINS, (0.0, 1.0))
        drawn.append(
            {
                "verifier": name,
                "n": len(known),
                "columns": [{"count": int(count), "height": 100 * count / counts.max()} for count in counts],
            }
        )
    return drawn


def command() -> str:
    """The command that is running, empty in a program of somebody else."""
    name = Path(sys.argv[0]).name
    return shlex.join([name, *sys.argv[1:]]) if name == "rsw" else ""


def documentation() -> str:
    """The address of the documentation that the installed distribution names; empty where it names none."""
    try:
        found = metadata("rsw_rewards").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    return next((url.partition(", ")[2] for url in found if url.lower().startswith("documentation")), "")
