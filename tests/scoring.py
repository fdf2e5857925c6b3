"""Scoring one batch, for tests."""

from rsw_rewards import Batch, Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import Scorer


def score_in_process(rubric: Rubric, batch: Batch) -> ScoreTable:
    """The scores of a batch, in this process."""
    with Scorer(rubric) as scorer:
        return scorer.score(batch)
