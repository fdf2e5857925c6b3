"""What ``heldout.json`` must hold to be read again."""

from __future__ import annotations

from pydantic import BaseModel

from rsw_rewards.evaluation.run_directory import StoredNumber


class _Change(BaseModel):
    before: StoredNumber
    after: StoredNumber
    difference: StoredNumber


class _Alarm(BaseModel):
    step: int
    words: str


class HeldoutRecord(BaseModel):
    """Changes by decoding and metric, and the alarms of the run."""

    steps: int = 0
    changes: dict[str, dict[str, _Change]]
    alarms: list[_Alarm] = []
