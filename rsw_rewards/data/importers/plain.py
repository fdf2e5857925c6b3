"""Answers in plain files: tables with an id column, JSON lists or mappings, and COCO caption results.

COCO results are a list of ``{"image_id", "caption"}``, as cocodataset.org defines them for captions.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.errors import InputError
from rsw_rewards.io.json_files import read_values
from rsw_rewards.io.text_files import MAX_FILE_BYTES

ID_KEYS = (
    "id",
    "sample_id",
    "question_id",
    "qid",
    "image_id",
    "img_id",
    "index",
    "filename",
    "file_name",
    "image",
    "key",
)
"""Keys that hold an id, the first of them that is there."""

TEXT_KEYS = ("prediction", "pred", "response", "output", "generated_text", "text", "caption", "answer")
"""Keys that hold an answer. Two of the last three in one record are ambiguous: one may be the truth."""

_EITHER = frozenset(TEXT_KEYS[5:])


def check_size(file: Path) -> None:
    """Refuse a file too large to be read whole, or one that cannot be looked at."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise InputError(f"{file} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read; divide it")


def dig(record: Any, key: str) -> Any:
    """The entry under a key, or under a path of keys with dots; None where there is none."""
    if isinstance(record, Mapping) and key in record:
        return record[key]
    for part in key.split("."):
        record = record.get(part) if isinstance(record, Mapping) else None
    return record


def as_text(value: Any) -> str | None:
    """A text or number as text; None for anything else. ``3.0`` stays ``3.0``."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


_SURROGATE = re.compile("[\ud800-\udfff]")


def answer(where: str, name: Any, value: Any, **more: Any) -> Answer:
    """An answer of any types, checked."""
    text = as_text(value)
    problem = None if text is not None else f"its answer is {str(value)[:60]!r}, which is not a text"
    if text is not None and _SURROGATE.search(text):
        text, problem = None, "its answer holds half of a surrogate pair, which is not a text"
    return Answer(where, as_text(name), text, problem=problem, **more)


def rows_of(file: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, as (place, row)."""
    check_size(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter=delimiter)
            for row in reader:
                yield f"{file}:{reader.line_num}", {key: value for key, value in row.items() if isinstance(value, str)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as a table: {error}") from error


def choose(known: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, where: str) -> str:
    """The field that was asked for, or the first usual one that is there."""
    if wanted is not None:
        return wanted
    found = next((key for key in usual if key in known), None)
    if found is None:
        shown = ", ".join(map(str, known))[:200]
        raise InputError(f"{where} has no field for the {what} among {', '.join(usual)} (it has {shown}); name it with --set {what}=FIELD")  # fmt: skip
    return found


def read_csv(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """A table with a header (``.tsv`` by tabs, else by commas): columns ``id`` and ``text`` or ``prediction``, optional ``candidate``."""
    columns: tuple[str, str] | None = None
    for number, (where, row) in enumerate(rows_of(file, "\t" if file.suffix.lower() == ".tsv" else ",")):
        if columns is None:
            known = list(row)
            usual = [key for key in TEXT_KEYS if key != "answer"]
            columns = (choose(known, id, ID_KEYS, "id", str(file)), choose(known, text, usual, "text", str(file)))
            for column in columns:
                if column not in row:
                    raise InputError(f"{file} has no column {column!r}; it has {', '.join(known)[:200]}")
        candidate = row.get("candidate") or "0"
        if not (candidate.isascii() and candidate.isdecimal()):
            yield Answer(where, row.get(columns[0]), problem=f"'candidate' is {candidate[:20]!r}, not a whole number")
            continue
        yield answer(where, row.get(columns[0]), row.get(columns[1]), candidate=int(candidate[:11]), position=number)


def _text_key(record: Mapping[str, Any], wanted: str | None, where: str) -> str:
    key = choose(list(record), wanted, TEXT_KEYS, "text", where)
    both = sorted(_EITHER & record.keys())
    if wanted is None and key in _EITHER and len(both) > 1:
        raise InputError(f"{where} has both {' and '.join(both)}, one of which may be the truth; name the answer with --set text={both[0]}")  # fmt: skip
    return key


def read_json(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """A list of records, one record a line (``.jsonl``), or a mapping from id to text or to a list of candidates."""
    records = list(read_values(file))
    loaded = records[0][1] if len(records) == 1 else None
    if isinstance(loaded, dict) and len(loaded) == 1:
        only = next(iter(loaded.values()))
        if isinstance(only, list) and only and isinstance(only[0], dict):
            records = [(f"{file}: entry {number}", record) for number, record in enumerate(only)]
    if len(records) != 1 or not isinstance(loaded, dict) or _is_record(loaded, id, text):
        yield from _records(iter(records), id, text)
        return
    for number, (name, value) in enumerate(loaded.items()):
        where = f"{file}: {name[:60]!r}"
        values = value if isinstance(value, list) else [value]
        for candidate, one in enumerate(values):
            one = dig(one, _text_key(one, text, where)) if isinstance(one, dict) else one
            yield answer(where, name, one, candidate=candidate, position=number)
        if not values:
            yield Answer(where, name, problem="its list of answers is empty")


def _is_record(value: Mapping[str, Any], id: str | None, text: str | None) -> bool:
    """Whether an object is one record, and not a mapping from ids to texts."""
    return all(
        any(dig(value, key) is not None for key in keys)
        for keys in ([id] if id else ID_KEYS, [text] if text else TEXT_KEYS)
    )


def _records(records: Iterator[tuple[str, Any]], id: str | None, text: str | None) -> Iterator[Answer]:
    keys: tuple[str, str] | None = None
    for number, (where, record) in enumerate(records):
        if isinstance(record, ValueError):
            yield Answer(where, None, problem=f"it is not valid JSON: {record}", position=number)
            continue
        if not isinstance(record, Mapping):
            yield Answer(where, None, problem=f"it is not an object: {str(record)[:60]!r}", position=number)
            continue
        if keys is None:
            names = [key for key in ID_KEYS if key in record]
            keys = (id or (names[0] if names else ""), _text_key(record, text, where))
        candidate = record.get("candidate", 0)
        if not isinstance(candidate, int) or isinstance(candidate, bool):
            yield Answer(where, None, problem=f"'candidate' is {str(candidate)[:20]!r}, not a whole number")
            continue
        yield answer(where, dig(record, keys[0]), dig(record, keys[1]), candidate=candidate, position=number)


def read_coco_captions(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """COCO caption results: a list of ``{"image_id": .., "caption": ..}``."""
    records = list(read_values(file))
    if not any(isinstance(record, Mapping) and "image_id" in record for _, record in records) and not id:
        raise InputError(f"{file} should hold a list of {{'image_id', 'caption'}}, as COCO's caption results do")
    yield from _records(iter(records), id or "image_id", text or "caption")
