"""What a data adapter takes, writes and returns. It writes a samples file; images stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rsw_rewards.data.layout import take
from rsw_rewards.errors import InputError
from rsw_rewards.io.records_io import write_jsonl


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
    count = 0

    def counted() -> Iterator[Mapping[str, Any]]:
        nonlocal count
        for record in records:
            count += 1
            yield record
        if not count:
            raise InputError(f"nothing to convert: {what}")

    try:
        write_jsonl(file, counted())
    except OSError as error:
        raise InputError(f"{error.filename or out} cannot be read or written: {error.strerror}") from error
    return count, file


def conversion(
    out: Path,
    records: Iterable[Mapping[str, Any]],
    limit: int | None,
    what: str,
    roots: list[Path],
    notes: Iterable[str] = (),
) -> Conversion:
    """The first ``limit`` records, or all of them, as :func:`write_samples` writes them.

    Args:
        roots, notes: as for :class:`Conversion`. Notes are read after the last record, so that a generator of them may count; empty ones are left out.
    """
    count, file = write_samples(Path(out), take(records, limit), what)
    return Conversion(count, file, roots, [note for note in notes if note])


def unknown_kinds(asked: Iterable[str], known: Collection[str], name: str, hint: str = "") -> Iterator[str]:
    """A note of the question types that a data set does not have; it looks at ``asked`` when it is read, after the last record."""
    if unknown := sorted(set(asked) - set(known)):
        yield f"question types that {name} does not have: {', '.join(unknown)}{hint}"
