"""A suite: several protocols over several data sets, as one row of headline numbers and one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rsw_rewards.core.files import read_json, write_json, write_text
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.numbers import Mark, arrow, axis_of, lane, number
from rsw_rewards.evaluation.pages import render
from rsw_rewards.evaluation.report import best_baseline

FILES = ("suite.json", "row.md", "suite.html")
"""What a suite writes beside the folders of its parts."""


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """What one protocol over one data set came to."""

    part: str
    protocol: str
    headline: str = ""
    """The first number of the protocol's headline that has a value."""
    value: float | None = None
    ci95: tuple[float, float] | None = None
    n: int = 0
    n_scenes: int = 0
    baseline: str = ""
    """The best baseline that does not know the truth."""
    baseline_value: float | None = None
    failed: str = ""
    """Why there is no number; empty where there is one."""
    folder: str = ""
    """Where the whole result is, relative to the suite's folder."""
    warnings: int = 0

    @property
    def report(self) -> str:
        """Where the report is, relative to the suite's folder; empty where there is none."""
        return f"{self.folder}/report.html" if self.folder else ""


def row_of(part: str, found: Evaluation, folder: str) -> SuiteRow:
    """The row of one evaluation."""
    metrics, baselines = found.summary["metrics"], found.summary["baselines"]
    key = next((key for key in found.protocol.headline if (metrics.get(key) or {}).get("value") is not None), "")
    about = {"part": part, "protocol": found.protocol.name, "folder": folder, "n": found.summary["n"], "n_scenes": found.summary["n_scenes"],
             "warnings": len(found.summary["warnings"])}  # fmt: skip
    if found.summary["nothing_valid"]:
        reasons = [reason["reason"] for one in found.summary["nothing_valid"] for reason in one["reasons"]]
        return SuiteRow(**about, failed=f"no output is valid: {reasons[0]}" if reasons else "there is no output")
    if not key:
        why = next((entry.get("reason") for entry in metrics.values() if entry.get("reason")), "no number has a value")
        return SuiteRow(**about, failed=str(why))
    best, best_value, _ = best_baseline(key, baselines)
    ci95 = metrics[key]["ci95"]
    return SuiteRow(
        **about,
        headline=key,
        value=metrics[key]["value"],
        ci95=tuple(ci95) if ci95 else None,
        baseline=best,
        baseline_value=best_value,
    )


@dataclass(frozen=True)
class Suite:
    """The result of a suite: one row for each part and protocol, in the order of the suite.

    >>> from rsw_rewards.evaluation.suite import SuiteRow
    >>> found = rsw.Suite("mine", "my model", [SuiteRow("a", "exact-qa", "accuracy", 0.5), SuiteRow("b", "exact-qa", failed="no data")])
    >>> found.failed, found.to_text().splitlines()[-1]
    (['b'], '1 of 2 failed')
    """

    title: str
    model: str
    rows: Sequence[SuiteRow] = field(default_factory=list)
    answers: str = ""
    """What made the outputs: a policy, or a folder of predictions."""

    @property
    def failed(self) -> list[str]:
        """Names of the parts without a number."""
        return [row.part for row in self.rows if row.failed]

    def to_text(self) -> str:
        """A line a row, and how many failed."""
        lines = [f"{self.title}: {self.model}"]
        for row in self.rows:
            said = (
                f"failed: {row.failed}"
                if row.failed
                else f"{row.headline} {_with_interval(row)}, {row.baseline or 'no baseline'} {number(row.baseline_value)}"
            )
            lines.append(f"{row.part} ({row.protocol}): {said}")
        return "\n".join(
            [
                *lines,
                f"{len(self.failed)} of {len(self.rows)} failed"
                if self.failed
                else f"{len(self.rows)} of {len(self.rows)} done",
            ]
        )

    def to_markdown(self) -> str:
        """One row with a column for every part, as tables of papers have them."""
        heads = " | ".join(_cell(f"{row.part} {row.headline}") for row in self.rows)
        cells = " | ".join("failed" if row.failed else number(row.value) for row in self.rows)
        return f"| model | {heads} |\n|---{'|---' * len(self.rows)}|\n| {_cell(self.model)} | {cells} |\n"

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "title": self.title,
            "model": self.model,
            "answers": self.answers,
            "rows": [asdict(row) for row in self.rows],
        }

    def save(self, folder: Path) -> None:
        """Write ``suite.json``, ``row.md`` and ``suite.html`` into the folder, which is made where it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILES[0], self.to_json())
        write_text(folder / FILES[1], self.to_markdown())
        write_text(folder / FILES[2], page(self))


def _with_interval(row: SuiteRow) -> str:
    return number(row.value) + (f" [{number(row.ci95[0])}, {number(row.ci95[1])}]" if row.ci95 else "")


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


class _Record(BaseModel):
    """What ``suite.json`` holds."""

    title: str
    model: str
    rows: list[SuiteRow]
    answers: str = ""


def read_suite(folder: Path) -> Suite:
    """The suite that was saved in a folder. Raises :class:`InputError` where its file cannot be read or is damaged."""
    found = _Record.model_validate(read_json(folder / FILES[0], _Record))
    return Suite(found.title, found.model, found.rows, found.answers)


def page(found: Suite) -> str:
    """The page of a suite: one row of headlines, what failed and why, and a line for every part with a link to its report."""
    return render("suite.html", suite=found, lanes=[_lane(row) for row in found.rows if row.value is not None])


def _lane(row: SuiteRow) -> dict[str, Any]:
    """The number of a part on an axis of its own, beside the best baseline."""
    assert row.value is not None
    marks = [] if row.baseline_value is None else [Mark("baseline", row.baseline, row.baseline_value)]
    note = f"{row.protocol}, {row.headline} {arrow(row.headline)} · n {row.n}"
    if row.warnings:
        note += f" · {row.warnings} warning{'s' if row.warnings > 1 else ''}"
    values = [row.value, *(row.ci95 or ()), *(mark.value for mark in marks)]
    return lane(row.part, row.value, axis_of(values), row.ci95, marks, note=note, page=row.report)
