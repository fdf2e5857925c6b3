"""What a red team found: a table for each task, and whether an attack earns more than a mediocre output."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import write_json, write_text
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.redteam.page import page
from rsw_rewards.redteam.rows import TaskFindings


@dataclass(frozen=True, repr=False)
class Findings:
    """What :func:`rsw_rewards.attack` found.

    >>> samples = [{"task": "change_qa", "reference": {"answers": [a], "vocabulary": ["yes", "no"]}} for a in ["yes", "no"] * 4]
    >>> rsw.attack({"exact_match": 1.0}, samples)
    <attack on 8 samples: no attack gets a higher reward than a mediocre output>
    """

    rubric: Rubric
    tasks: tuple[TaskFindings, ...]
    seed: int

    @property
    def ok(self) -> bool:
        """Whether no attack earns more than the mediocre output, in any task; the exit status of ``rsw attack``."""
        return not any(task.winners for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        listed = [
            {"task": str(one.task), "n": one.n, "winners": [row.name for row in one.winners], "order": dict(one.order),
             "rows": [row.to_json() for row in one.rows]}
            for one in self.tasks
        ]  # fmt: skip
        return {"ok": self.ok, "seed": self.seed, "rubric": self.rubric.dump(), "tasks": listed}

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``attack.json`` and ``attack.html``, and return the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "attack.json", self.to_json())
        write_text(folder / "attack.html", page(self.tasks, self.rubric, self.seed))
        return folder

    def __repr__(self) -> str:
        winners = [f"{row.name!r}" for task in self.tasks for row in task.winners]
        told = f"{len(winners)} attacks get a higher reward than a mediocre output: {', '.join(winners[:3])}"
        n = sum(task.n for task in self.tasks)
        return (
            f"<attack on {n} samples: {told if winners else 'no attack gets a higher reward than a mediocre output'}>"
        )
