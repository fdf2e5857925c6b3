"""Answers in plain files: tables with an id column, JSON records or mappings, and COCO caption results.

COCO results are a list of ``{"image_id", "caption"}``, as cocodataset.org defines them for captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data.importers.fields import ID_NAMES, TEXT_NAMES, answer, answers_of, dig, find_field, text_field
from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.data.importers.tables import read_table
from rsw_rewards.errors import InputError
from rsw_rewards.io.text_files import read_records


def read_csv(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """A table with a header, also an Excel file: columns ``id`` and ``text`` or ``prediction``, optional ``candidate``."""
    yield from answers_of(read_table(file), file, id, text)


def read_json(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """Records as a list, one a line or one after another; or a mapping from id to text or to a list of candidates."""
    records = list(read_records(file, writable=False))
    if records and all(isinstance(record, ValueError) for _, record in records):
        place, error = records[0]
        raise InputError(f"{place} is not valid JSON: {error}; a table is read with the importer csv")
    loaded = _unwrapped(records[0][1]) if len(records) == 1 else None
    if isinstance(loaded, list):
        records = [(f"{file}: entry {number}", record) for number, record in enumerate(loaded)]
    if not isinstance(loaded, dict) or _is_record(loaded, id, text, file):
        yield from answers_of(records, file, id, text)
        return
    for number, (name, value) in enumerate(loaded.items()):
        where = f"{file}: {name[:60]!r}"
        values = value if isinstance(value, list) else [value]
        for candidate, one in enumerate(values):
            one = dig(one, text_field([one], text, TEXT_NAMES, where)) if isinstance(one, Mapping) else one
            yield answer(where, name, one, candidate=candidate, position=number)
        if not values:
            yield Answer(where, name, problem="its list of answers is empty")


def _unwrapped(value: Any) -> Any:
    """The records or the mapping that an object holds, alone or beside what is said of the run; else the object."""
    if not isinstance(value, dict):
        return value
    lists = [held for held in value.values() if isinstance(held, list) and held and isinstance(held[0], dict)]
    if len(lists) == 1 and (len(value) == 1 or any(name in lists[0][0] for name in ID_NAMES)):
        return lists[0]
    only = next(iter(value.values()), None)
    if len(value) != 1 or not isinstance(only, dict) or any(name in only for name in TEXT_NAMES):
        return value
    return only if all(isinstance(one, str | list) for one in only.values()) else value


def _is_record(value: Mapping[str, Any], id: str | None, text: str | None, file: Path) -> bool:
    """Whether an object is one record, and not a mapping from ids to texts."""
    try:
        name = find_field([value], id, ID_NAMES, "id", file)
    except InputError:
        return False
    return name is not None and find_field([value], text, TEXT_NAMES, "text", file) is not None


def read_coco_captions(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """COCO caption results: a list of ``{"image_id": .., "caption": ..}``."""
    records = list(read_records(file, writable=False))
    if not any(isinstance(record, Mapping) and (id or "image_id") in record for _, record in records):
        raise InputError(f"{file} should hold a list of {{'image_id', 'caption'}}, as COCO's caption results do")
    yield from answers_of(records, file, id, text, id_names=("image_id",), text_names=("caption",))
