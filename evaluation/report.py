"""The report: one self-contained HTML file with the numbers, what they stand beside, and samples to look at.

What it plots are places on a line and heights of columns; all of them are percentages for the style sheet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.evaluation.gallery import gallery
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.summary import in_words

BINS = 20
"""Columns of a histogram of values over [0, 1]."""
LANES = 14
"""Most lines of a plot; a plot of fifty is a table."""


def report(
    protocol: Protocol,
    summary: Mapping[str, Any],
    table: ScoreTable,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
) -> str:
    """The page of one evaluation. Everything that comes from files is escaped by the template."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters |= {"number": number, "footnote": footnote, "in_words": in_words}
    slice_key, slices = slice_lanes(summary)
    return environment.get_template("report.html").render(
        protocol=protocol,
        summary=summary,
        columns=list(summary["metrics"]),
        headline=[key for key, entry in summary["metrics"].items() if not entry.get("diagnostic")],
        statuses=[str(status) for status in Status],
        lanes=lanes(summary),
        slice_key=slice_key,
        slices=slices,
        histograms=histograms(table.frame),
        cards=gallery(table.frame, samples, outputs),
        footnotes=list(dict.fromkeys(footnote(row) for row in summary.get("published", ()))),
    )


def number(value: float | None) -> str:
    """A number for people: three to four digits that say something. Below 1e-12 there is nothing but rounding."""
    if value is None:
        return "-"
    if abs(value) < 1e-12:
        return "0.000"
    if abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def footnote(row: Mapping[str, Any]) -> str:
    """Where a published row was read, and what must be known before it is compared."""
    parts = [row["source"], row.get("note") or ""]
    if row.get("confidence") != "read":
        parts.append("at second hand")
    return "; ".join(part for part in parts if part)


def lanes(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers that lie in [-1, 1], each with its interval, the baselines and the published rows on one line."""
    drawn = []
    for key, entry in summary["metrics"].items():
        if entry.get("diagnostic") or entry["value"] is None or not -1.0 <= entry["value"] <= 1.0:
            continue
        marks = [
            ("baseline", name, (row["metrics"].get(key) or {}).get("value"))
            for name, row in summary["baselines"].items()
        ]
        marks += [("published", row["method"], row["metrics"].get(key)) for row in summary.get("published", ())]
        known = [(sort, name, number) for sort, name, number in marks if number is not None and -1 <= number <= 1]
        drawn.append(_lane(key, entry, known, _low([entry], known)))
    return drawn[:LANES]


Mark = tuple[str, str, float]
"""Sort (baseline, published), name and value."""


def _low(entries: Iterable[Mapping[str, Any]], marks: Iterable[Mark]) -> float:
    """Where the scale begins: at 0, or at -1 where anything on it is negative."""
    shown = [number for entry in entries for number in (entry["value"], *(entry["ci95"] or ()))]
    return -1.0 if min([*shown, *(number for *_, number in marks)], default=0.0) < 0 else 0.0


def _lane(key: str, entry: Mapping[str, Any], marks: Iterable[Mark], low: float) -> dict[str, Any]:
    """One number on its line; an interval that leaves the scale is cut there."""
    ci95 = entry["ci95"]
    return {
        "key": key,
        "value": entry["value"],
        "ci95": ci95,
        "at": _percent(entry["value"], low),
        "from": _percent(ci95[0], low) if ci95 else None,
        "width": _percent(ci95[1], low) - _percent(ci95[0], low) if ci95 else None,
        "zero": _percent(0.0, low) if low < 0 else None,
        "marks": [{"sort": s, "name": n, "value": v, "at": _percent(v, low)} for s, n, v in marks],
    }


def slice_lanes(summary: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The first headline number that slices have, by kind, best first: its key and the lines."""
    for key in summary["metrics"]:
        found = {kind: metrics.get(key) for kind, metrics in summary["slices"].items()}
        known = {kind: entry for kind, entry in found.items() if entry and entry["value"] is not None}
        if len(known) < 2 or not all(-1 <= entry["value"] <= 1 for entry in known.values()):
            continue
        order = sorted(known, key=lambda kind: -known[kind]["value"])
        low = _low(known.values(), ())
        return key, [{**_lane(kind, known[kind], (), low), "n": known[kind]["n"]} for kind in order]
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


def _percent(value: float, low: float) -> float:
    return 100.0 * (min(1.0, max(low, value)) - low) / (1.0 - low)
