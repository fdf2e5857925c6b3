"""What tests of training runs share: configurations with changes, and what a run left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rsw_rewards.training.log_rows import read_log


def changed(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in which the parts that are named are merged with, or replaced by, what is given."""
    merged = dict(config)
    for key, value in changes.items():
        merged[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    return merged


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Whether weights are equal bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's log."""
    return read_log(out / "log.jsonl")


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of logs, but for how long things took."""
    return [{key: value for key, value in row.items() if "time" not in key} for row in rows]


def dumped_rewards(folder: Path) -> dict[tuple[str, int], float | None]:
    """The rewards that the trainer saw, by sample id and candidate, from the folder of a dump."""
    records = map(json.loads, (folder / "rewards.jsonl").read_text().splitlines())
    return {(record["id"], record["candidate"]): record["reward"] for record in records}
