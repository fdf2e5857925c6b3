"""A suite: several protocols over several data sets, as one row of headline numbers and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import write_json, write_text
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.leaderboard import sign
from rsw_rewards.evaluation.report import number

KNOWING = frozenset({"oracle", "tokenizer_ceiling"})
"""Baselines that know the truth."""


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
    def beats_baseline(self) -> bool | None:
        """Whether the number is better than that of the best baseline; None where one is missing."""
        if self.value is None or self.baseline_value is None:
            return None
        return sign(self.headline) * (self.value - self.baseline_value) > 0


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
    rows = {
        name: ((row.get("metrics") or {}).get(key) or {}).get("value")
        for name, row in baselines.items()
        if name not in KNOWING
    }
    known = {name: value for name, value in rows.items() if value is not None}
    best = max(known, key=lambda name: (sign(key) or 1) * known[name], default="")
    ci95 = metrics[key]["ci95"]
    return SuiteRow(
        **about,
        headline=key,
        value=metrics[key]["value"],
        ci95=tuple(ci95) if ci95 else None,
        baseline=best,
        baseline_value=known.get(best),
    )


@dataclass(frozen=True)
class Suite:
    """What a suite found: one row a part and protocol, in the order of the suite.

    >>> from rsw_rewards.evaluation.suite import SuiteRow
    >>> found = rsw.Suite("mine", "my model", [SuiteRow("a", "exact-qa", "accuracy", 0.5), SuiteRow("b", "exact-qa", failed="no data")])
    >>> found.failed, found.to_text().splitlines()[-1]
    (['b'], '1 of 2 failed')
    """

    title: str
    model: str
    rows: Sequence[SuiteRow] = field(default_factory=list)

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
        heads = " | ".join(f"{row.part} {row.headline}".strip() for row in self.rows)
        cells = " | ".join("failed" if row.failed else number(row.value) for row in self.rows)
        return f"| model | {heads} |\n|---{'|---' * len(self.rows)}|\n| {self.model} | {cells} |\n"

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"title": self.title, "model": self.model, "rows": [asdict(row) for row in self.rows]}

    def save(self, folder: Path) -> None:
        """Write ``suite.json``, ``row.md`` and ``suite.html`` into the folder, which is made where it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "suite.json", self.to_json())
        write_text(folder / "row.md", self.to_markdown())
        write_text(folder / "suite.html", page(self))


def _with_interval(row: SuiteRow) -> str:
    return number(row.value) + (f" [{number(row.ci95[0])}, {number(row.ci95[1])}]" if row.ci95 else "")


def page(found: Suite) -> str:
    """The page of a suite: one row of headlines, what failed and why, and a line for every part with a link to its report."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters |= {"number": number}
    return environment.get_template("suite.html").render(suite=found, lanes=[_lane(row) for row in found.rows])


def _lane(row: SuiteRow) -> Mapping[str, Any] | None:
    """Places on a line from 0 to 1 in percent; None where the number does not lie there."""
    marks = [value for value in (row.value, row.baseline_value, *(row.ci95 or ())) if value is not None]
    if row.value is None or not all(0 <= value <= 1 for value in marks):
        return None
    ends = row.ci95 or (row.value, row.value)
    return {
        "at": 100 * row.value,
        "from": 100 * ends[0],
        "width": 100 * (ends[1] - ends[0]),
        "baseline": None if row.baseline_value is None else 100 * row.baseline_value,
    }
