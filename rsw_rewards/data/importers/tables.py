"""Rows of tables: CSV with any usual separator, TSV, and the first sheet of an Excel file."""

from __future__ import annotations

import csv
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsw_rewards.data.importers.excel import read_sheet
from rsw_rewards.data.importers.fields import Row, Unsplit, named_columns
from rsw_rewards.errors import InputError
from rsw_rewards.io.text_files import MAX_FILE_BYTES, read_text, suffix_of

_SEPARATORS = (",", ";", "\t", "|")
_DECLARED = re.compile(r'"?sep=([^"])"?\s*', re.IGNORECASE)  # Excel's own first line
_LONE_RETURN = re.compile(r"\r(?!\n)")
_RETURN = "\udc0d"
"""Stands for a carriage return within a cell, which the csv module takes for the end of a row. No other text holds it."""

_limit = threading.Lock()


def read_table(file: Path) -> list[Row]:
    """The rows of a table under its header, each with its first line, or its row in a sheet.

    Rows that cannot be split into the columns of the header cost themselves alone.

    Raises:
        InputError: the file cannot be read as text or as an Excel file, is JSON, or names a column twice.

    >>> _ = Path("a.csv").write_text('id;prediction\\nq1;"yes; both"\\nq2;no;no\\n')
    >>> for place, row in read_table(Path("a.csv")):
    ...     print(place, row)
    a.csv:2 {'id': 'q1', 'prediction': 'yes; both'}
    a.csv:3 it has 3 cells and the header 2: a text that holds the separator ';' must stand in quotation marks
    """
    if suffix_of(file) in (".xlsx", ".xlsm") or zipfile.is_zipfile(file):
        return read_sheet(file)
    text = read_text(file)
    if text.lstrip()[:1] in ("{", "["):
        raise InputError(f"{file} is JSON and no table; read it with the importer json")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    text = _LONE_RETURN.sub(_RETURN, text)
    lines = list(io.StringIO(text, newline="\n"))
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if start == len(lines):
        return []
    declared = _DECLARED.fullmatch(lines[start])
    start += declared is not None
    with _cells_of_any_length():
        separator = declared[1] if declared else _separator(lines[start:], "\t" if suffix_of(file) == ".tsv" else ",")
        rows = _split(lines, start, separator)
    if not rows:
        return []
    if separator == "|":
        rows = [
            (line, _without_bars(cells)) for line, cells in rows if isinstance(cells, Unsplit) or not _is_rule(cells)
        ]
    first, header = rows[0]
    if isinstance(header, Unsplit):
        raise InputError(f"{file}:{first}: the header cannot be read: {header}")
    columns = named_columns([cell.strip() for cell in header], file)
    found: list[Row] = []
    for number, (line, cells) in enumerate(rows[1:], start=1):
        goes_on = not isinstance(cells, Unsplit) and len(cells) == 1 < len(columns)
        is_cut = number == len(rows) - 1 and not lines[-1].endswith("\n")
        if goes_on and not is_cut and found and isinstance(found[-1][1], dict):
            why = f"its text may go on in line {line}, which has 1 cell: a text of several lines must stand in quotation marks"
            found[-1] = (found[-1][0], Unsplit(why))
        found.append((f"{file}:{line}", _fitted(cells, columns, separator)))
    return found


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The limit of the csv module holds for the whole process, so it is put back."""
    with _limit:
        before = csv.field_size_limit(MAX_FILE_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _separator(lines: list[str], usual: str) -> str:
    """The separator that divides the header into most columns; the usual one of several."""

    def columns(separator: str) -> tuple[int, bool]:
        try:
            return len(next(csv.reader(lines, delimiter=separator, strict=True), [])), separator == usual
        except csv.Error:
            return lines[0].count(separator) + 1, separator == usual

    return max(_SEPARATORS, key=columns)


def _split(lines: list[str], start: int, separator: str) -> list[tuple[int, list[str] | Unsplit]]:
    """The rows of lines with the number of their first line, from 1.

    Where quotation marks cannot be read as those of CSV and no cell stands in them, they are part of the texts.
    """
    header = next(csv.reader(lines[start : start + 1], delimiter=separator), [])
    spaced = len(header) > 1 and all(cell[:1] == " " for cell in header[1:])
    rows = _strict(lines, start, separator, spaced)
    if any(isinstance(cells, Unsplit) for _, cells in rows):
        bare = csv.reader(lines[start:], delimiter=separator, quoting=csv.QUOTE_NONE, skipinitialspace=spaced)
        literal = [(start + number, cells) for number, cells in enumerate(bare, start=1) if any(cells)]
        width = len(literal[0][1])
        if all(len(cells) == width and not any(map(_is_quoted, cells)) for _, cells in literal):
            return [(number, [_restored(cell) for cell in cells]) for number, cells in literal]
    return rows


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _is_rule(cells: list[str]) -> bool:
    """Whether a row is the line under the header of a table in Markdown."""
    return all(re.fullmatch(r" *:?-{3,}:? *|", cell) for cell in cells)


def _without_bars(cells: list[str] | Unsplit) -> list[str] | Unsplit:
    return cells if isinstance(cells, Unsplit) else [cell.strip() for cell in cells]


def _restored(cell: str) -> str:
    return cell.replace(_RETURN, "\r")


def _strict(lines: list[str], start: int, separator: str, spaced: bool) -> list[tuple[int, list[str] | Unsplit]]:
    rows: list[tuple[int, list[str] | Unsplit]] = []
    while start < len(lines):
        rest = (lines[number] for number in range(start, len(lines)))
        reader = csv.reader(rest, delimiter=separator, strict=True, skipinitialspace=spaced)
        done = 0
        try:
            for cells in reader:
                if any(cells):
                    rows.append((start + done + 1, [_restored(cell) for cell in cells]))
                done = reader.line_num
            break
        except csv.Error:
            why = "its quotation marks do not match: one within a quoted text must be written twice"
            rows.append((start + done + 1, Unsplit(why)))
            start += done + 1
    return rows


def _fitted(cells: list[str] | Unsplit, columns: list[str], separator: str) -> dict[str, Any] | ValueError:
    if isinstance(cells, Unsplit):
        return cells
    if any(cells[len(columns) :]):
        return Unsplit(
            f"it has {len(cells)} cells and the header {len(columns)}: a text that holds the separator {separator!r} must stand in quotation marks"
        )
    if len(cells) == 1 < len(columns):
        return Unsplit(f"it has 1 cell and the header {len(columns)}")
    return dict(zip(columns, cells, strict=False))
