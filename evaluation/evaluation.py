"""What one protocol's evaluation found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.io.pairing import Problem


@dataclass
class Evaluation:
    """What one protocol's evaluation found."""

    protocol: Protocol
    samples: list[Sample]
    outputs: list[Output]
    table: ScoreTable
    summary: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
