"""The report: one self-contained HTML file with the numbers, what they stand beside, and samples to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.files import write_text
from rsw_rewards.core.scores import Status
from rsw_rewards.evaluation.format import number
from rsw_rewards.evaluation.gallery import gallery
from rsw_rewards.evaluation.plots import histograms, lanes, slice_lanes
from rsw_rewards.evaluation.validity import in_words

if TYPE_CHECKING:
    from rsw_rewards.evaluation.evaluation import Evaluation


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the report of one evaluation. Everything that comes from files is escaped by the template."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters["number"] = number
    environment.filters["footnote"] = footnote
    environment.filters["in_words"] = in_words
    slice_key, slices = slice_lanes(evaluation.summary)
    page = environment.get_template("report.html").render(
        protocol=evaluation.protocol,
        summary=evaluation.summary,
        columns=list(evaluation.summary["metrics"]),
        headline=[key for key, entry in evaluation.summary["metrics"].items() if not entry.get("diagnostic")],
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
