"""The report: one self-contained HTML file with the numbers, what they stand beside, and samples to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.evaluation.format import number
from rsw_rewards.evaluation.gallery import gallery
from rsw_rewards.evaluation.plots import histograms, lanes, slice_lanes
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.validity import in_words


def write_report(
    path: Path,
    protocol: Protocol,
    summary: Mapping[str, Any],
    table: ScoreTable,
    samples: Iterable[Sample],
    outputs: Iterable[Output],
) -> None:
    """Write the report of one evaluation. Everything that comes from files is escaped by the template."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters["number"] = number
    environment.filters["footnote"] = footnote
    environment.filters["in_words"] = in_words
    slice_key, slices = slice_lanes(summary)
    page = environment.get_template("report.html").render(
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
    write_text(path, page)


def footnote(row: Mapping[str, Any]) -> str:
    """Where a published row was read, and what must be known before it is compared."""
    parts = [row["source"], row.get("note") or ""]
    if row.get("confidence") != "read":
        parts.append("at second hand")
    return "; ".join(part for part in parts if part)
