"""The report: one self-contained HTML file with the numbers, what they stand beside, and samples to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.evaluation.gallery import gallery
from rsw_rewards.evaluation.plots import histograms, lanes, slice_lanes
from rsw_rewards.evaluation.results import write_text
from rsw_rewards.scores import Status

if TYPE_CHECKING:
    from rsw_rewards.evaluation.run import Evaluation


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the report of one evaluation. Everything that comes from files is escaped by the template."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters["number"] = number
    environment.filters["footnote"] = footnote
    slice_key, slices = slice_lanes(evaluation.summary)
    page = environment.get_template("report.html").render(
        protocol=evaluation.protocol,
        summary=evaluation.summary,
        columns=list(evaluation.summary["metrics"]),
        statuses=[str(status) for status in Status],
        lanes=lanes(evaluation.summary),
        slice_key=slice_key,
        slices=slices,
        histograms=histograms(evaluation.table.frame),
        cards=gallery(evaluation),
        footnotes=list(dict.fromkeys(footnote(row) for row in evaluation.summary.get("published", ()))),
    )
    write_text(path, page)


def footnote(row: Mapping[str, Any]) -> str:
    """Where a published row was read, and what must be known before it is compared."""
    parts = [row["source"], row.get("note") or ""]
    if row.get("confidence") != "read":
        parts.append("at second hand")
    return "; ".join(part for part in parts if part)


def number(value: float | None) -> str:
    """A number for people: three to four digits that say something. Below 1e-12 there is nothing but rounding."""
    if value is None:
        return "-"
    if abs(value) < 1e-12:
        return "0.000"
    if abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
