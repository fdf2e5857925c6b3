"""Rewards for many outputs, by the rubric and the code that training uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.records import Output
from rsw_rewards.core.rewards import NOTHING_KNOWN, rewards
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.yaml_text import write_run_yaml
from rsw_rewards.engine.scorer import Scorer, batches
from rsw_rewards.evaluation.inputs import read_pair
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.warnings import Evidence, missing_predictions
from rsw_rewards.io.pairing import Problem
from rsw_rewards.io.records_io import write_jsonl

if TYPE_CHECKING:
    import pandas as pd


@dataclass(repr=False)
class Rewards:
    """Rewards of many outputs, and the scores of their components.

    >>> sample = {"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
    >>> rsw.rewards({"exact_match": 1.0}, [sample, sample], ["yes", "no"])
    <rewards of 2 outputs, mean 0.5000>
    """

    rubric: Rubric
    table: ScoreTable
    records: list[dict[str, Any]]
    """Per output, in their order: ``id``, ``candidate``, ``reward`` (None where a failure of ours leaves none) and, where there is
    one, ``reason``."""
    problems: list[Problem] = field(default_factory=list)
    """Records among the outputs that could not be used as they were, and samples without an output."""
    warnings: list[str] = field(default_factory=list)
    """What a reader must know of the outputs, a sentence each."""

    @property
    def scores(self) -> pd.DataFrame:
        """One row per output and verifier: value, status, reason, raw numbers."""
        return self.table.frame

    @property
    def mean(self) -> float | None:
        """Mean of the rewards that there are; None where there is none."""
        known = [record["reward"] for record in self.records if record["reward"] is not None]
        return sum(known) / len(known) if known else None

    def to_frame(self) -> pd.DataFrame:
        """The rewards as a table with the columns ``id``, ``candidate``, ``reward`` and ``reason``."""
        import pandas as pd

        frame = pd.DataFrame(self.records, columns=["id", "candidate", "reward", "reason"])
        return frame.astype({"reward": float}).fillna({"reason": ""})

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``scores.parquet``, ``rewards.jsonl`` and ``rubric.yaml``, and return the folder."""
        folder = Path(folder)
        self.table.write(folder / "scores.parquet")
        write_jsonl(folder / "rewards.jsonl", self.records)
        write_run_yaml(folder / "rubric.yaml", self.rubric.dump())
        return folder

    def __repr__(self) -> str:
        mean = self.mean
        return f"<rewards of {len(self.records)} outputs, mean {'none' if mean is None else format(mean, '.4f')}>"


def rewards_of(
    rubric: Rubric,
    samples: Any,
    outputs: Any,
    *,
    roots: Sequence[Path] = (),
    limit: int | None = None,
    on_missing: str = "invalid",
    workers: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Rewards:
    """Rewards for outputs in memory, for a predictions file, or for a dump of rollouts; see :func:`rsw_rewards.rewards`."""
    given = read_pair(samples, outputs, roots, limit, on_missing)
    asked, answers = given.samples, given.outputs
    with Scorer(rubric, workers=workers, device=device) as scorer:
        scorer.check(asked)
        scorer.prepare(asked)
        tables = []
        pieces = list(batches(scorer, asked, answers))
        for number, piece in enumerate(pieces):
            progress("scoring", number, len(pieces))
            tables.append(scorer.score(piece))
            scorer.bank.settle()
        progress("scoring", len(pieces), len(pieces))
    table = ScoreTable.concat(tables)
    evidence = Evidence(asked, problems=given.problems, told=given.warnings)
    warnings = [*given.warnings, *missing_predictions(evidence)]
    return Rewards(rubric, table, _records(rewards(table, rubric), answers), given.problems, warnings)


def _records(found: pd.DataFrame, outputs: Sequence[Output]) -> list[dict[str, Any]]:
    """One record per output, in the order of the outputs, whatever order the components scored them in."""
    known = {
        (sample, candidate): (reward, reason)
        for sample, candidate, reward, reason in found[["sample", "candidate", "reward", "reason"]].itertuples(
            index=False
        )
    }
    records = []
    for output in outputs:
        reward, reason = known.get((output.sample_id, output.candidate), (math.nan, NOTHING_KNOWN))
        record = {
            "id": output.sample_id,
            "candidate": output.candidate,
            "reward": None if math.isnan(reward) else reward,
        }
        records.append({**record, "reason": reason} if reason else record)
    return records
