"""Which field of a record holds the id and which the answer: the names that tools use, in one place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.core.answer import TRUNCATED
from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.errors import InputError

ID_NAMES = (
    "custom_id", "id", "sample_id", "question_id", "qid", "image_id", "img_id", "index", "idx", "uid", "filename", "file_name",
    "image_name", "image", "image_path", "img", "img_path", "file", "path", "name", "key",
)  # fmt: skip
"""Fields that hold an id, the likeliest first. Case, blanks and signs between the words do not count."""

TEXT_NAMES = (
    "prediction", "pred", "predict", "predicted", "model_prediction", "response", "model_response", "output", "model_output",
    "generated_text", "generation", "generated", "completion", "model_answer", "predicted_answer", "pred_answer",
    "predicted_caption", "generated_caption", "pred_caption", "hypothesis", "text", "caption", "answer",
)  # fmt: skip
"""Fields that hold an answer, likewise. Two of the last three in one file are ambiguous: one may be the truth."""

MAX_CHARACTERS = 1 << 24
"""Longest answer that is imported."""

TEXT_PATHS = ("response.body.choices.0.message.content", "choices.0.message.content")
"""Where an answer stands in the results of OpenAI's batches and in a chat completion, if no field holds one."""

FINISH_PATHS = ("finish_reason", "stop_reason", "response.body.choices.0.finish_reason", "choices.0.finish_reason")
"""Where a record says why the model stopped."""

_EITHER = frozenset(TEXT_NAMES[-3:])
_SIGNS = re.compile(r"[\W_]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


Row = tuple[str, dict[str, Any] | ValueError]
"""Where a row of a table stands, and its cells by column; a ValueError for a row or a cell that cannot be read."""


class Unsplit(ValueError):
    """Why a row of a table cannot be told from its neighbours; what stands after it has no certain place in the order."""


def named_columns(header: list[str], file: Path) -> list[str]:
    """The names in a header. Raises :class:`InputError` where a name is there twice."""
    for place, name in enumerate(header):
        if name and name in header[:place]:
            raise InputError(f"{file} names the column {name!r} twice; give each column a name of its own")
    return header


def dig(record: Any, key: str) -> Any:
    """The entry under a key, or under a path of keys and places in lists with dots; None where there is none.

    >>> dig({"choices": [{"text": "yes"}]}, "choices.0.text")
    'yes'
    """
    if isinstance(record, Mapping) and key in record:
        return record[key]
    for part in key.split("."):
        if isinstance(record, list) and part.isdecimal() and int(part) < len(record):
            record = record[int(part)]
        else:
            record = record.get(part) if isinstance(record, Mapping) else None
    return record


def as_text(value: Any) -> str | None:
    """A text or number as text; None for anything else, NaN among it. ``3.0`` stays ``3.0``."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value else None


def _name_in(record: Any, field: str) -> Any:
    """The id under a field; of a list of images that of the first."""
    found = dig(record, field)
    first = found[0] if isinstance(found, list) and found else found
    return first.get("path") if isinstance(first, Mapping) else first


def answer(where: str, name: Any, value: Any, **more: Any) -> Answer:
    """An answer of any types, checked. None is the empty text of a model that was cut off before it, where the record says so."""
    if value is None and more.get("finish_reason") in TRUNCATED:
        value = ""
    text, problem = as_text(value), None
    if isinstance(name, ValueError):
        problem = f"its id is {name}"
    elif isinstance(value, ValueError):
        problem = f"its answer is {value}"
    elif text is None:
        problem = f"its answer is {str(value)[:60]!r}, which is not a text"
    elif len(text) > MAX_CHARACTERS:
        problem = f"its answer has {len(text):,} characters, more than the {MAX_CHARACTERS:,} that are read"
    elif _SURROGATE.search(text):
        problem = "its answer holds half of a surrogate pair, or bytes that are not UTF-8 (save the file as UTF-8)"
    return Answer(where, as_text(name), text if problem is None else None, problem=problem, **more)


def find_field(
    records: Sequence[Any], wanted: str | None, usual: Sequence[str], what: str, where: str | Path
) -> str | None:
    """The field of records that was asked for, or the first usual one that holds a text, or that is there.

    Args:
        records: those of a file; only mappings count.
        what: ``id`` or ``text``, as it is set.

    Returns:
        The field, or None where none of the usual ones is there.

    Raises:
        InputError: the one asked for is in no record, or two fields may both hold the answer.

    >>> find_field([{"Image ID": 3, "Prediction": "yes"}], None, ID_NAMES, "id", "a.csv")
    'Image ID'
    """
    names = names_of(records)
    if wanted is not None:
        if wanted not in names and not any(dig(record, wanted) is not None for record in records):
            raise InputError(f"{where} has no column {wanted!r}; {_hint(names, [wanted], what)}")
        return wanted
    found = {usual_one: name for name in reversed(names) for usual_one in usual if _plain(name) == _plain(usual_one)}
    there = [found[usual_one] for usual_one in usual if usual_one in found]
    held = {name for record in records for name in there if as_text(record.get(name)) is not None}
    chosen = next((name for name in there if name in held), None)
    if chosen is None and what == "text":
        chosen = next((path for path in TEXT_PATHS if any(dig(record, path) is not None for record in records)), None)
    chosen = chosen or (there[0] if there else None)
    either = [name for name in there if _plain(name) in _EITHER]
    if chosen in either and len(either) > 1:
        raise InputError(
            f"{where} has both {' and '.join(sorted(either))}, one of which may be the truth; name the answer with --set text={min(either)}"
        )
    return chosen


def text_field(records: Sequence[Any], wanted: str | None, usual: Sequence[str], where: str | Path) -> str:
    """As :func:`find_field` for the answer, without which no file can be used. Raises :class:`InputError`."""
    found = find_field(records, wanted, usual, "text", where)
    if found is None:
        raise InputError(f"{where} has no column {usual[0]!r}; {_hint(names_of(records), usual, 'text')}")
    return found


def without_ids(names: Sequence[str], where: str | Path) -> str:
    """The error of a file that names no ids."""
    hint = f" ({_hint(names, ID_NAMES, 'id')})" if names else ""
    return (
        f"{where} names no ids of its own; if its order is that of the samples use by=order, or name the field that holds the id"
        f" with id=FIELD, on the command line with --set{hint}"
    )


def names_of(records: Iterable[Any]) -> list[str]:
    """The names of the fields of records, in the order in which they come."""
    return list(dict.fromkeys(str(name) for record in records for name in record))


def answers_of(
    records: Iterable[tuple[str, Any]],
    where: str | Path,
    id: str | None,
    text: str | None,
    *,
    id_names: Sequence[str] = ID_NAMES,
    text_names: Sequence[str] = TEXT_NAMES,
    target: str | None = None,
) -> Iterator[Answer]:
    """The answers in records of a table or a JSON file; those in a list of texts are candidates.

    Args:
        records: place and record, or the ``ValueError`` that reading it gave.
        id, text: the fields to read, where they were named.
        target: the field that holds the truth.

    Raises:
        InputError: no field holds the answer, or two may.
    """
    every = list(records)
    usable = [record for _, record in every if isinstance(record, Mapping)]
    if not usable:
        yield from (_unusable(place, record, number) for number, (place, record) in enumerate(every))
        return
    name_field = find_field(usable, id, id_names, "id", where)
    answer_field = text_field(usable, text, text_names, where)
    fields = tuple(names_of(usable))
    is_ordered = True
    for number, (place, record) in enumerate(every):
        is_ordered = is_ordered and not isinstance(record, Unsplit)
        position = number if is_ordered else None
        if not isinstance(record, Mapping):
            yield _unusable(place, record, position)
            continue
        name = None if name_field is None else _name_in(record, name_field)
        candidate = candidate_in(record.get("candidate"))
        if candidate is None:
            why = f"'candidate' is {str(record['candidate'])[:20]!r}, not a whole number"
            yield Answer(place, as_text(name), problem=why, position=position)
            continue
        said = dig(record, answer_field)
        reasons = (as_text(dig(record, path)) for path in FINISH_PATHS)
        finish = next((reason for reason in reasons if reason), None)
        several = (
            isinstance(said, list) and said and "candidate" not in record and all(isinstance(one, str) for one in said)
        )
        for number_of_one, one in enumerate(said if several else [said]):
            yield answer(
                place, name, one, candidate=candidate + number_of_one, position=position, fields=fields, finish_reason=finish,
                target=as_text(record.get(target)) if target else None,
            )  # fmt: skip


def _unusable(place: str, record: Any, position: int | None) -> Answer:
    why = str(record) if isinstance(record, ValueError) else f"it is not an object: {str(record)[:60]!r}"
    return Answer(place, None, problem=why, position=position)


def candidate_in(value: Any) -> int | None:
    """The number of a candidate, 0 where there is none; None for what is no whole number."""
    if value is None or value == "":
        return 0
    found = re.fullmatch(r"(-?[0-9]{1,11})(?:\.0*)?", str(value).strip()) if not isinstance(value, bool) else None
    return int(found[1]) if found else None


def _plain(name: str) -> str:
    return _SIGNS.sub("", name.casefold())


def _hint(names: Sequence[str], usual: Sequence[str], what: str) -> str:
    plain = {_plain(name): name for name in reversed(names)}
    near = [plain[close] for one in usual for close in difflib.get_close_matches(_plain(one), plain, 1, 0.75)]
    shown = ", ".join(map(repr, names))[:200]
    where = "" if near else " (the first line of a table names its columns)"
    return f"the file has {shown}: say --set {what}={near[0] if near else 'COLUMN'}{where}"
