"""The page of a red team: what attacks earn beside honest outputs, and the winning outputs themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rsw_rewards.core.rubric import Rubric
from rsw_rewards.evaluation.gallery import pictures, shortened
from rsw_rewards.evaluation.report import number
from rsw_rewards.redteam.honest import MEDIOCRE
from rsw_rewards.redteam.rows import Row, TaskFindings


def page(tables: Iterable[TaskFindings], rubric: Rubric, seed: int) -> str:
    """One self-contained HTML file. Everything that comes from files is escaped by the template."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rsw_rewards.evaluation"), autoescape=True, trim_blocks=True)
    environment.filters["number"] = number
    tasks = [
        {"found": one, "rows": [*_honest(one), *one.attacks], "mediocre": MEDIOCRE[one.task], "cards": _cards(one),
         "model": any(row.role == "model" for row in one.rows),
         "best": [(label, one.best(label)) for label in one.labels]}
        for one in tables
    ]  # fmt: skip
    weights = {component.label: component.weight for component in rubric.components}
    return environment.get_template("attack.html").render(tasks=tasks, weights=weights, seed=seed)


def _honest(found: TaskFindings) -> list[Row]:
    return [row for row in found.rows if row.role != "attack"]


def _cards(found: TaskFindings) -> list[dict[str, Any]]:
    """The outputs of the best attack on the reward and on every component, beside the honest ones."""
    why: dict[str, list[str]] = {}
    for row in (found.winners or found.attacks)[:3]:
        why.setdefault(row.name, []).append("the reward")
    for label in found.labels:
        if (best := found.best(label)) is not None:
            why.setdefault(best.name, []).append(label)
    honest: dict[str, list[str]] = {row.name: [] for row in _honest(found)}
    samples = {sample.id: sample for sample in found.samples}
    return [
        {"sample": name, "prompt": shortened(samples[name].prompt), "name": kind, "pleases": reasons,
         "text": shortened(outputs[kind].text or ""), "pictures": pictures(samples[name], outputs[kind]), "boxes": outputs[kind].boxes}
        for name, outputs in found.shown.items() for kind, reasons in {**honest, **why}.items() if kind in outputs
    ]  # fmt: skip
