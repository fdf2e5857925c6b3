"""Files of JSON Lines that hold the numbers of every step of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import write_text


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON Lines that each have a ``step``; none where there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # the line that was being written when the run was killed
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def keep_until(path: Path, step: int) -> None:
    """Drop the rows of later steps, which come from a run that was interrupted."""
    if path.exists():
        rows = [row for row in read_log(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
