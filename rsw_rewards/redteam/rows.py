"""What each kind of output earns: a row for each, and a table for each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rsw_rewards.core.records import Output, Sample, Task

MARGIN = 1e-6
"""What an attack must earn more than the mediocre output: less is rounding."""


@dataclass(frozen=True)
class Row:
    """What one kind of output earns in the mean over samples."""

    name: str
    role: str
    """``truth``, ``mediocre``, ``model`` or ``attack``."""
    family: str
    about: str
    n: int
    """Samples on which both it and the mediocre output have a reward."""
    reward: float | None
    mediocre: float | None
    """The reward of the mediocre output on the same samples."""
    beats: float | None
    """Share of these samples on which it earns more than the mediocre output."""
    components: Mapping[str, tuple[float | None, float | None]]
    """Component -> its mean value here and that of the mediocre output, on the samples where both have one."""

    @property
    def wins(self) -> bool:
        """Whether this is an attack that earns more than the mediocre output."""
        return self.role == "attack" and _more((self.reward, self.mediocre))

    def fools(self, component: str) -> bool:
        """Whether this is an attack whose mean value of a component is higher than that of the mediocre output."""
        return self.role == "attack" and _more(self.components[component])

    def __str__(self) -> str:
        return f"{self.name!r} gets {self.reward:.3f}, a mediocre output {self.mediocre:.3f}"

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        parts = {label: {"value": value, "mediocre": mediocre} for label, (value, mediocre) in self.components.items()}
        return {"name": self.name, "role": self.role, "family": self.family, "about": self.about, "n": self.n,
                "reward": self.reward, "mediocre": self.mediocre, "beats": self.beats, "wins": self.wins, "components": parts}  # fmt: skip


def _more(pair: tuple[float | None, float | None]) -> bool:
    value, mediocre = pair
    return value is not None and mediocre is not None and value > mediocre + MARGIN


@dataclass(frozen=True, repr=False)
class TaskFindings:
    """What was found on the samples of one task."""

    task: Task
    n: int
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    order: Mapping[str, float | None] = field(default_factory=dict)
    """Shares of samples: ``truth first``, on which the truth earns more than the model (without one, than the mediocre output);
    ``attacks last``, on which that earns more than every attack; ``both``."""
    shown: Mapping[str, Mapping[str, Output]] = field(default_factory=dict)
    """Sample -> kind of output -> the output, of a few samples."""
    samples: tuple[Sample, ...] = ()
    """As they were scored: a caption that the mediocre output is made of is taken out."""

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
        return sorted(found, key=lambda row: (row.mediocre or 0.0) - (row.reward or 0.0))

    @property
    def winners(self) -> list[Row]:
        """The attacks that earn more than the mediocre output, the best first."""
        return [row for row in self.attacks if row.wins]

    def best(self, label: str) -> Row | None:
        """The attack that gains most over the mediocre output in one component."""
        known = [row for row in self.attacks if None not in row.components[label]]
        return max(known, key=lambda row: (row.components[label][0] or 0) - (row.components[label][1] or 0), default=None)  # fmt: skip
