"""What the folder of a training run holds, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rsw_rewards.core.files import read_json
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.evaluation.run_directory import StoredNumber
from rsw_rewards.methods import key_of_steps
from rsw_rewards.rollouts.trained import CONFIG, STARTS
from rsw_rewards.training.agreement import alarms_so_far
from rsw_rewards.training.log_rows import read_log

BASELINES = "baselines.json"
"""In ``heldout/``: what the baselines get of the measured metrics."""

Row = Mapping[str, Any]


class _Change(BaseModel):
    before: StoredNumber
    after: StoredNumber
    difference: StoredNumber


class _Alarm(BaseModel):
    step: int
    words: str


class HeldoutRecord(BaseModel):
    """What ``heldout.json`` must hold to be read again: changes by decoding and metric, and the alarms of the run."""

    steps: int = 0
    changes: dict[str, dict[str, _Change]]
    alarms: list[_Alarm] = []


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, as far as they are there."""

    folder: Path
    config: Row
    log: Sequence[Row] = field(default_factory=list)
    """The numbers of every step, oldest first."""
    during: Sequence[Row] = field(default_factory=list)
    """Held-out measurements while training went on."""
    heldout: Row = field(default_factory=dict)
    """``heldout.json``; empty before training has ended."""
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By the name of a baseline, its held-out metrics."""
    starts: Sequence[Row] = field(default_factory=list)
    dumps: list[Path] = field(default_factory=list)
    """Folders of dumped generations, oldest first."""

    @property
    def method(self) -> str:
        """What trains."""
        return str(self.config.get("method", "grpo"))

    @property
    def settings(self) -> Row:
        """The section of a method with rewards; the configuration itself of a supervised stage."""
        found = self.config.get(self.method)
        return found if isinstance(found, dict) else self.config

    @property
    def steps(self) -> int | None:
        """The length of the run; None where the configuration does not say."""
        steps: Any = self.config
        for key in key_of_steps(self.config).split("."):
            steps = steps.get(key) if isinstance(steps, dict) else None
        return steps if isinstance(steps, int) else None

    @property
    def done(self) -> int:
        """Steps in the log."""
        return max((int(row["step"]) for row in self.log), default=0)

    @property
    def alarms(self) -> Sequence[Row]:
        """Every alarm so far."""
        found = self.heldout.get("alarms")
        return alarms_so_far(self.during, self.log) if found is None else list(found)

    def series(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of a logged quantity, where it was measured."""
        return [(int(row["step"]), float(value)) for row in self.log if isinstance(value := row.get(key), (int, float))]

    def quantities(self) -> list[str]:
        """Every key of the log, in the order of appearance."""
        return list(dict.fromkeys(key for row in self.log for key in row))


def check_run(folder: Path) -> None:
    """Raise :class:`InputError` where a folder holds no training run."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is not the folder of a training run: it holds no {CONFIG}")
    if "inputs_hash" in read_yaml(folder / CONFIG):
        raise InputError(
            f"{folder} is the folder of an evaluation, not of a training run; its report is written by 'rsw evaluate'"
        )


def read_heldout(folder: Path) -> dict[str, Any]:
    """What ``heldout.json`` of a run holds; empty before training has ended."""
    file = folder / "heldout.json"
    return read_json(file, HeldoutRecord) if file.is_file() else {}


def read_run(folder: Path) -> RunFiles:
    """The files of a run.

    Raises:
        InputError: the folder holds no training run, or a file of it cannot be read.
    """
    folder = Path(folder)
    check_run(folder)
    config = read_yaml(folder / CONFIG)
    file = folder / "heldout" / BASELINES
    baselines = read_json(file, dict[str, dict[str, float]]) if file.is_file() else {}
    return RunFiles(
        folder,
        config,
        log=[*_curve(folder / "curve.json"), *read_log(folder / "log.jsonl")],
        during=read_log(folder / "heldout" / "during.jsonl"),
        heldout=read_heldout(folder),
        baselines=baselines,
        starts=_lines(folder / STARTS),
        dumps=sorted(path for path in (folder / "dumps").glob("step_*") if (path / "samples.jsonl").is_file()),
    )


def _curve(path: Path) -> Sequence[Row]:
    """The points of ``curve.json``, which the supervised stage of the token world model writes."""
    with as_input_error(f"{path} is damaged", ValueError):
        points = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    points = points if isinstance(points, list) else points.get("points", [])
    return [point for point in points if isinstance(point, dict) and "step" in point]


def _lines(path: Path) -> Sequence[Row]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:  # cut off while it was written
            continue
        if isinstance(row, dict):
            found.append(row)
    return found
