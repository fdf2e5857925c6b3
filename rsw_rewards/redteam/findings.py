"""What a red team found: a table for each task, and whether an attack earns more than an honest mediocre output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import write_json, write_text
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Rubric

MARGIN = 1e-6
"""What an attack must earn more than the honest mediocre output: less is rounding."""


@dataclass(frozen=True)
class Row:
    """What one kind of output earns in the mean over samples."""

    name: str
    role: str
    """``truth``, ``honest mediocre``, ``model`` or ``attack``."""
    family: str
    about: str
    n: int
    """Samples on which both it and the honest mediocre output have a reward."""
    reward: float | None
    honest: float | None
    """The reward of the honest mediocre output on the same samples."""
    beats: float | None
    """Share of these samples on which it earns more than the honest mediocre output."""
    components: Mapping[str, tuple[float | None, float | None]]
    """Component -> its mean value here and that of the honest mediocre output, on the samples where both have one."""

    @property
    def wins(self) -> bool:
        """Whether this is an attack that earns more than the honest mediocre output."""
        return self.role == "attack" and _more((self.reward, self.honest))

    def fools(self, component: str) -> bool:
        """Whether this is an attack whose mean value of a component is higher than that of the honest mediocre output."""
        return self.role == "attack" and _more(self.components[component])

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        parts = {label: {"value": value, "honest": honest} for label, (value, honest) in self.components.items()}
        return {"name": self.name, "role": self.role, "family": self.family, "about": self.about, "n": self.n,
                "reward": self.reward, "honest": self.honest, "beats": self.beats, "wins": self.wins, "components": parts}  # fmt: skip


def _more(pair: tuple[float | None, float | None]) -> bool:
    value, honest = pair
    return value is not None and honest is not None and value > honest + MARGIN


@dataclass(frozen=True, repr=False)
class TaskFindings:
    """What was found on the samples of one task."""

    task: Task
    n: int
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    order: Mapping[str, float | None] = field(default_factory=dict)
    """Shares of samples: ``truth first``, on which the truth earns more than the model (without one, than the honest mediocre output);
    ``attacks last``, on which that earns more than every attack; ``both``."""
    shown: Mapping[str, Mapping[str, Output]] = field(default_factory=dict)
    """Sample -> kind of output -> the output, of a few samples."""
    samples: tuple[Sample, ...] = ()
    """As they were scored: a caption that the honest mediocre output is made of is taken out."""

    def row(self, name: str) -> Row:
        """The row of that name. Raises ``KeyError``."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def attacks(self) -> list[Row]:
        """The attacks, those that earn most first."""
        found = [row for row in self.rows if row.role == "attack" and row.reward is not None]
        return sorted(found, key=lambda row: (row.honest or 0.0) - (row.reward or 0.0))

    @property
    def winners(self) -> list[Row]:
        """The attacks that earn more than the honest mediocre output, the best first."""
        return [row for row in self.attacks if row.wins]

    def best(self, label: str) -> Row | None:
        """The attack that gains most over the honest mediocre output in one component."""
        known = [row for row in self.attacks if None not in row.components[label]]
        return max(known, key=lambda row: (row.components[label][0] or 0) - (row.components[label][1] or 0), default=None)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Findings:
    """What :func:`rsw_rewards.attack` found.

    >>> samples = [{"task": "change_qa", "reference": {"answers": [a], "vocabulary": ["yes", "no"]}} for a in ["yes", "no"] * 4]
    >>> rsw.attack({"exact_match": 1.0}, samples)
    <attack on 8 samples: no attack earns more than an honest mediocre output>
    """

    rubric: Rubric
    tasks: tuple[TaskFindings, ...]
    seed: int

    @property
    def ok(self) -> bool:
        """Whether no attack earns more than the honest mediocre output, in any task; the exit status of ``rsw attack``."""
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
        from rsw_rewards.redteam.page import page

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "attack.json", self.to_json())
        write_text(folder / "attack.html", page(self))
        return folder

    def __repr__(self) -> str:
        winners = [f"{row.name!r}" for task in self.tasks for row in task.winners]
        told = f"{len(winners)} attacks earn more than an honest mediocre output: {', '.join(winners[:3])}"
        n = sum(task.n for task in self.tasks)
        return f"<attack on {n} samples: {told if winners else 'no attack earns more than an honest mediocre output'}>"
