"""Answers of another tool as outputs, and the predictions file that they become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from rsw_rewards.core.records import Output
from rsw_rewards.errors import InputError
from rsw_rewards.io.pairing import Problem
from rsw_rewards.io.records_io import output_to_json, write_jsonl


@dataclass(frozen=True, slots=True)
class Imported:
    """Answers of another tool as outputs; :func:`rsw_rewards.evaluate` takes it in place of a list."""

    outputs: list[Output]
    problems: list[Problem]
    """Answers that could not be used, and samples without an answer."""
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None
    """Where the images lie that the outputs name."""

    def __iter__(self) -> Iterator[Output]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def answered(self) -> int:
        """Samples that have at least one output."""
        return len({output.sample_id for output in self.outputs})

    def roots(self, file: str | PathLike[str]) -> list[Path]:
        """The folders that a predictions file of that name points into, beside its own: what reads it must be told (``--root``)."""
        if self.folder is None or self.folder.resolve().is_relative_to(Path(file).parent.resolve()):
            return []
        return [self.folder]

    def save(self, file: str | PathLike[str]) -> Path:
        """Write a predictions file (JSON Lines), which appears whole or not at all, and return its path."""
        out = Path(file)
        base = next(iter(self.roots(out)), out.parent)
        try:
            write_jsonl(out, (output_to_json(output, base) for output in self.outputs))
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror}") from error
        return out
