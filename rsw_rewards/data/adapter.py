"""What a data adapter takes, writes and returns. It writes a samples file; images stay where they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rsw_rewards.errors import InputError


@dataclass(frozen=True, slots=True)
class Conversion:
    """What an adapter wrote: the samples file, roots and notes.

    >>> rsw.data.Conversion(2, pathlib.Path("out/samples.jsonl"), roots=[pathlib.Path("LEVIR-CD")]).notes
    []
    """

    samples: int
    file: Path
    """The samples file (JSON Lines)."""
    roots: list[Path]
    """Folders to pass as ``--root`` when the file is used: its paths are relative to them."""
    notes: list[str] = field(default_factory=list)
    """What a user should know: what was left out and why, counts that look odd."""


class Adapter(Protocol):
    """The signature of ``convert`` in every adapter module; an adapter may have further keyword options."""

    def __call__(self, source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
        """Write ``out/samples.jsonl`` from the folder ``source``.

        Args:
            source: the data set's own folder, in its official layout.
            out: folder to write to; made where it does not exist.
            split: the part to convert, such as ``"test"``; None for the only one or for all, as the adapter says.
            limit: stop after this many samples.

        Raises:
            InputError: the layout does not fit; the sentence says what was expected where.
        """
        ...


def write_samples(out: Path, records: Iterable[Mapping[str, Any]], what: str) -> tuple[int, Path]:
    """Write records as ``out/samples.jsonl`` and return how many there were, and the file. It appears whole or not at all.

    Raises:
        InputError: there is no record at all (``what`` says what was looked for), or ``out`` cannot be written to.

    >>> count, file = rsw.data.write_samples(pathlib.Path("out"), [{"id": "q1", "task": "change_qa"}], "questions")
    >>> count, file.name
    (1, 'samples.jsonl')
    """
    file = out / "samples.jsonl"
    partial = out / ".samples.jsonl.partial"
    count = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as lines:
            for record in records:
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
        if not count:
            raise InputError(f"nothing to convert: {what}")
        partial.replace(file)
    except OSError as error:
        raise InputError(f"{error.filename or out} cannot be read or written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count, file
