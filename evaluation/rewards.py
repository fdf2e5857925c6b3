"""Rewards for a predictions file or a dump of rollouts, by the rubric and the code that training uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.evaluation.chunks import CHUNK, batch_of, group_chunks, needs_whole
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.results import write_text
from rsw_rewards.evaluation.run import load_pair
from rsw_rewards.io.pairing import Problem
from rsw_rewards.io.records_io import write_jsonl


def score_file(
    rubric: Rubric,
    samples: Path,
    predictions: Path,
    out: Path,
    *,
    roots: Sequence[Path] = (),
    limit: int | None = None,
    on_missing: str = "invalid",
    workers: int = 0,
    progress: Progress = silent,
) -> tuple[ScoreTable, list[dict[str, Any]], list[Problem]]:
    """Rewards for a predictions file, or for a dump of rollouts, as training gives them.

    Writes ``scores.parquet``, ``rewards.jsonl`` (``id``, ``candidate``, ``reward`` or null, ``reason``) and ``rubric.yaml`` to
    ``out``.

    Returns:
        The score table, the records of ``rewards.jsonl``, and the problems of the predictions file.
    """
    asked, outputs, problems = load_pair(samples, predictions, roots, limit, on_missing, own=True)
    with Scorer(rubric, workers=workers) as scorer:
        scorer.check(asked)
        scorer.prepare(asked)
        tables = []
        by_id = {sample.id: sample for sample in asked}
        pieces = list(group_chunks(outputs, CHUNK, whole=needs_whole(scorer)))
        for number, piece in enumerate(pieces):
            progress("scoring", number, len(pieces))
            tables.append(scorer.score(batch_of(by_id, piece)))
        progress("scoring", len(pieces), len(pieces))
    table = ScoreTable.concat(tables)
    table.write(Path(out) / "scores.parquet")
    records = [_reward_record(row) for row in rewards(table, rubric).to_dict("records")]
    write_jsonl(Path(out) / "rewards.jsonl", records)
    write_text(Path(out) / "rubric.yaml", yaml.safe_dump(rubric.dump(), sort_keys=False))
    return table, records, problems


def _reward_record(row: Mapping[Any, Any]) -> dict[str, Any]:
    reward = float(row["reward"])
    record = {"id": row["sample"], "candidate": int(row["candidate"]), "reward": None if math.isnan(reward) else reward}
    return {**record, "reason": row["reason"]} if row["reason"] else record
