"""The page of a red team: what attacks earn beside mediocre ones, and the winning outputs themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rsw_rewards.core.rubric import Rubric
from rsw_rewards.evaluation.pages import gathered, render, shortened
from rsw_rewards.evaluation.pictures import pictures
from rsw_rewards.redteam.compared_with import MEDIOCRE
from rsw_rewards.redteam.rows import Row, TaskFindings


def page(tables: Iterable[TaskFindings], rubric: Rubric, seed: int) -> str:
    """One self-contained HTML file. Everything that comes from files is escaped by the template."""
    tasks = [
        {"found": one, "rows": [*_compared(one), *one.attacks], "mediocre": MEDIOCRE[one.task], "cards": gathered(_cards(one)),
         "model": any(row.role == "model" for row in one.rows)}
        for one in tables
    ]  # fmt: skip
    weights = {component.label: component.weight for component in rubric.components}
    return render("attack.html", tasks=tasks, weights=weights, seed=seed)


def _compared(found: TaskFindings) -> list[Row]:
    return [row for row in found.rows if row.role != "attack"]


def _cards(found: TaskFindings) -> list[dict[str, Any]]:
    """The outputs of the best attack on the reward and on every component, beside what it is compared with."""
    why: dict[str, list[str]] = {}
    for row in (found.winners or found.attacks)[:3]:
        why.setdefault(row.name, []).append("the reward")
    for label in found.labels:
        if (best := found.best(label)) is not None:
            why.setdefault(best.name, []).append(label)
    known: dict[str, list[str]] = {row.name: [] for row in _compared(found)}
    samples = {sample.id: sample for sample in found.samples}
    return [
        {"id": name, "why": kind, "texts": {"best on": ", ".join(reasons), "boxes": "" if outputs[kind].boxes is None else str(len(outputs[kind].boxes or ()))},
         "answer": shortened(outputs[kind].text or ""), "pictures": pictures(samples[name], outputs[kind])}
        for name, outputs in found.shown.items() for kind, reasons in {**known, **why}.items() if kind in outputs
    ]  # fmt: skip
