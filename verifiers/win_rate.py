"""Pairwise preference within a group: how many of its siblings an output beats, by the score of another verifier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from rsw_rewards.core.functions import finished
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Card, Context, NoConfig, Verifier
from rsw_rewards.errors import ConfigError


def win_rates(values: np.ndarray, beaten: int = 0, margin: float = 0.0) -> np.ndarray:
    """The share of its siblings that each output beats; a tie counts half.

    Args:
        values: (n,) scores of the outputs of one group, higher is better.
        beaten: further siblings that each of them beats, because they cannot be used.
        margin: differences up to it are ties.

    Returns:
        (n,) float64 in [0, 1]; 1 for an output without siblings.

    >>> win_rates(np.array([0.2, 0.9, 0.9])).tolist()
    [0.0, 0.75, 0.75]
    """
    difference = values[:, None] - values[None, :]
    wins = (difference > margin).sum(1) + 0.5 * ((np.abs(difference) <= margin).sum(1) - 1) + beaten
    siblings = len(values) - 1 + beaten
    return wins / siblings if siblings else np.ones(len(values))


class WinRate(Verifier):
    """The share of its siblings that an output beats."""

    name = "win_rate"
    scope = "group"
    card = Card(
        summary="The share of the other outputs of a sample that an output beats, by the score of another verifier.",
        range="win_rate: [0, 1], a tie counts half; score: the value of the other verifier",
        transform="none",
        source="Pref-GRPO (arXiv 2508.20751), with the order of scores in the place of a model that compares pairs",
        gaming=(
            "Only the order counts: the best of bad outputs gets 1, and without 'margin' a difference of 1e-6 counts "
            "as much as one of 1."
        ),
        cost="that of the other verifier",
    )

    class Config(NoConfig):
        """Configuration of ``win_rate``."""

        use: str = Field(description="the verifier whose scores are compared; it must look at one output at a time")
        config: dict[str, Any] = Field({}, description="its settings")
        margin: float = Field(0.0, ge=0, description="differences of its values up to this are ties")

    def __init__(self, config: Any) -> None:
        from rsw_rewards.core.rubric import build

        super().__init__(config)
        self.judge = build(config.use, config.config)
        what = (
            "only measures"
            if not self.judge.rewarding
            else f"compares the outputs of a {self.judge.scope}"
            if self.judge.scope != "sample"
            else "keeps a state"
            if type(self.judge).observe is not Verifier.observe
            else ""
        )
        if what:
            raise ConfigError(
                f"the verifier 'win_rate' needs scores of single outputs, but {config.use!r} {what}; name another under 'use'"
            )
        self.tasks, self.needs, self.at_once = self.judge.tasks, self.judge.needs, self.judge.at_once  # type: ignore[misc]

    @property
    def detector(self) -> Any:
        """The other verifier's, whose weights stand in the results."""
        return self.judge.detector

    @property
    def network(self) -> Any:
        """The same of its network."""
        return self.judge.network

    @property
    def needs_samples(self) -> bool:
        return self.judge.needs_samples

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.judge.setup(context)

    def warm(self) -> None:
        self.judge.warm()

    def prepare(self, samples: Sequence[Sample]) -> None:
        self.judge.prepare(samples)

    def truth(self, sample: Sample) -> Any:
        return self.judge.truth(sample)

    def score(self, batch: Batch) -> list[Score]:
        scores = list(finished(self.judge.score(batch)))
        for key in dict.fromkeys(batch.groups):
            rows = [row for row, group in enumerate(batch.groups) if group == key]
            usable = [row for row in rows if scores[row].status is Status.OK]
            worthless = sum(scores[row].status is Status.INVALID_OUTPUT for row in rows) + batch.invalid.get(key, 0)
            values = np.array([scores[row].value for row in usable])
            for row, rate in zip(usable, win_rates(values, worthless, self.config.margin), strict=True):
                raw = {**scores[row].raw, "score": float(scores[row].value or 0.0), "win_rate": float(rate)}
                scores[row] = replace(scores[row], value=float(rate), raw=raw)
        return scores

    def encoders(self) -> Sequence[str]:
        return self.judge.encoders()

    def files(self) -> Iterable[str | Path]:
        return self.judge.files()

    def close(self) -> None:
        self.judge.close()

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"{super().hash} {self.judge.hash}".encode()).hexdigest()[:12]
