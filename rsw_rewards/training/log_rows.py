"""Files of JSON Lines that hold the numbers of every step of a run, each line with its checksum.

What the run learns from (``inputs.json``) enters the checksums, so that the log of another run is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import digest_of, line_with_checksum, read_lines, write_text
from rsw_rewards.rollouts.trained import INPUTS


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON Lines that each have a ``step``; none where there is no file.

    Raises:
        InputError: a line is damaged, or of another run.
    """
    return [row for row in read_lines(path, _run_of(path)) if "step" in row]


def _run_of(path: Path) -> str:
    """What tells the run of a log from others; nothing for a log that lies alone."""
    inputs = next((file for folder in path.parents[:2] if (file := folder / INPUTS).is_file()), None)
    return "" if inputs is None else digest_of(inputs)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row at the end."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(line_with_checksum(row, _run_of(path)))


def keep_until(path: Path, step: int) -> None:
    """Drop the rows of later steps, which come from a run that was interrupted. Raises :class:`InputError` for a damaged file."""
    if path.exists():
        write_text(
            path, "".join(line_with_checksum(row, _run_of(path)) for row in read_log(path) if row["step"] <= step)
        )
