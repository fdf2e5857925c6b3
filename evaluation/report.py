"""The report of an evaluation: one page with samples first, then the numbers beside their baselines, and pages of all samples beside it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.evaluation.gallery import (
    NOT_OK,
    Key,
    card,
    choose,
    failed_outputs,
    gathered,
    paged,
    score_rows,
    shortened,
    truth_of,
    write_pages,
)
from rsw_rewards.evaluation.numbers import Axis, Lane, Mark, arrow, number, sign
from rsw_rewards.evaluation.pages import render
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.published import footnote
from rsw_rewards.evaluation.summary import kind_of

BINS = 20
"""Columns of a histogram of values over [0, 1]."""
LIMIT = 2_200_000
"""Characters of images on the report itself, which keeps it under 5 MB beside a table of 10,000 samples."""
ROWS = 25
"""Rows of a page of the table of all samples."""
TEXT = 120
"""Characters of a text in that table."""
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
    path = Path(path)
    name = path.resolve().parent.name if path.name == "report.html" else path.stem
    frame = table.frame
    where = write_pages(path, name, frame, samples, outputs, progress)
    kind_key, kinds = kind_lanes(summary)
    page = render(
        "report.html",
        name=name,
        protocol=protocol,
        summary=summary,
        written=time.strftime("%Y-%m-%d %H:%M"),
        command=command(),
        documentation=documentation(),
        failures=failures(frame),
        failed=len(frame[frame["status"].isin(NOT_OK)].drop_duplicates(["sample", "candidate"])),
        outputs=len(outputs),
        tiles=tiles(summary),
        first=first_cards(frame, samples, outputs),
        lanes=lanes(summary),
        kind_key=kind_key,
        kinds=kinds,
        all=all_rows(frame, samples, outputs, where),
        columns=list(summary["metrics"]),
        statuses=[str(status) for status in Status],
        histograms=histograms(frame),
        footnotes=list(dict.fromkeys(footnote(row) for row in summary.get("published", ()))),
    )
    write_text(path, page)
    return path


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


def failures(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The most common reasons of scores that failed: ``count``, ``verifier``, ``status``, and ``sample`` and ``reason`` of the first.
    Reasons that differ in names and numbers alone are one."""
    bad = frame[frame["status"].isin(NOT_OK)]
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in bad[["verifier", "status", "sample", "reason"]].to_dict("records"):
        reason = " ".join(str(row["reason"] or "no reason was given").split())[:200]
        key = (row["verifier"], str(row["status"]), kind_of(reason))
        entry = found.setdefault(
            key, {"count": 0, "verifier": key[0], "status": key[1], "sample": row["sample"], "reason": reason}
        )
        entry["count"] += 1
    return sorted(found.values(), key=lambda entry: -entry["count"])[:REASONS]


def first_cards(frame: pd.DataFrame, samples: Sequence[Sample], outputs: Sequence[Output]) -> dict[str, Any] | None:
    """The samples that are shown first, for the template; None where nothing was scored."""
    chosen = choose(frame) if len(frame) else {}
    asked = {sample.id: sample for sample in samples}
    by_key = {(output.sample_id, output.candidate): output for output in outputs}
    few = frame[frame["sample"].isin({key[0] for key in chosen})]
    rows = score_rows(few)
    cards = (
        card(asked[key[0]], by_key[key], rows[key], why) for key, why in chosen.items() if key in by_key and key in rows
    )
    page = next(iter(paged(cards, LIMIT)), None)
    return gathered(page) if page else None


def all_rows(
    frame: pd.DataFrame, samples: Sequence[Sample], outputs: Sequence[Output], where: Mapping[Key, str]
) -> dict[str, Any] | None:
    """The table of all outputs for the template: columns and rows. None where there is no output."""
    if not outputs:
        return None
    asked = {sample.id: sample for sample in samples}
    several = any(output.candidate for output in outputs)
    shared = shared_folder([sample.id for sample in samples])
    labels = list(dict.fromkeys(frame["verifier"]))
    values: dict[Key, dict[str, float]] = {}
    for name, candidate, label, value in zip(
        *(frame[column].tolist() for column in ("sample", "candidate", "verifier", "value")), strict=True
    ):
        values.setdefault((name, candidate), {})[label] = value
    failed = failed_outputs(frame)
    status = {(one["sample"], one["candidate"]): str(one["status"]) for one in failed.to_dict("records")}
    measured = [label for label in labels if frame.loc[frame["verifier"] == label, "value"].notna().any()]
    texts = any(output.text is not None for output in outputs)
    columns: list[list[Any]] = [
        [f"sample in {shared}" if shared else "sample", "link"],
        ["kind", "text", True],
        ["status", "text", True],
        *([name, "text"] for name in ("prompt", "answer", "truth")),
        *([label, "number"] for label in measured),
    ]
    rows = []
    for output in outputs:
        key, sample = (output.sample_id, output.candidate), asked[output.sample_id]
        name = sample.id[len(shared) + 1 if shared else 0 :] + (f" #{output.candidate}" if several else "")
        said = (output.text if output.text is not None else output.invalid or output.lost or "") if texts else ""
        truth = true if (true := truth_of(sample)) != sample.prompt else ""
        found = (values.get(key, {}).get(label) for label in measured)
        numbers = [None if value is None or value != value else round(value, 4) for value in found]
        told = [
            sample.kind or "",
            status.get(key, "ok"),
            *(shortened(text, TEXT) for text in (sample.prompt, said, truth)),
        ]
        rows.append([[name, where.get(key, "")], *told, *numbers])
    used = [k for k in range(len(columns)) if any(row[k] not in ("", None, "ok") for row in rows)]
    return {"columns": [columns[k] for k in used], "rows": [[row[k] for k in used] for row in rows], "size": ROWS}


def shared_folder(ids: Sequence[str]) -> str:
    """What all ids begin with up to a slash, which tells no sample from another; empty where there is nothing.

    >>> shared_folder(["world/7/a/q1", "world/7/b/q1"]), shared_folder(["a", "b"])
    ('world/7', '')
    """
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*(name.split("/")[:-1] for name in ids), strict=False))
    return "/".join(parts[0] for parts in same)


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


def lanes(summary: Mapping[str, Any]) -> list[Lane]:
    """The headline numbers, each on an axis of its own with its interval, the baselines and the published rows."""
    drawn = []
    for key, entry in summary["metrics"].items():
        if entry.get("diagnostic") or entry["value"] is None:
            continue
        marks = [Mark("baseline", name, value) for name, value in beside(key, summary["baselines"]).items()]
        published = ((row["method"], row["metrics"].get(key)) for row in summary.get("published", ()))
        marks += [Mark("published", method, value) for method, value in published if value is not None]
        values = [entry["value"], *(entry["ci95"] or ()), *(mark.value for mark in marks)]
        drawn.append(Lane(key, entry["value"], axis_of(values), entry["ci95"], marks, {"arrow": arrow(key)}))
    return drawn


def axis_of(values: Sequence[float]) -> Axis:
    """[0, 1] or [-1, 1] where all values lie within it, else what they need."""
    return Axis.over(values, (0.0, 1.0) if min(values) >= 0 else (-1.0, 1.0))


def kind_lanes(summary: Mapping[str, Any]) -> tuple[str, list[Lane]]:
    """The first headline number that two kinds have, by kind, best first: its key and the lines, which share an axis."""
    for key in summary["metrics"]:
        found = {kind: metrics.get(key) for kind, metrics in summary["slices"].items()}
        known = {kind: entry for kind, entry in found.items() if entry and entry["value"] is not None}
        if len(known) < 2:
            continue
        order = sorted(known, key=lambda kind: -(sign(key) or 1) * known[kind]["value"])
        axis = axis_of([value for entry in known.values() for value in (entry["value"], *(entry["ci95"] or ()))])
        return key, [
            Lane(kind, known[kind]["value"], axis, known[kind]["ci95"], (), {"note": f"n {known[kind]['n']}"})
            for kind in order
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
