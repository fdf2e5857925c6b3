"""Records in JSON files: one a line, several one after another over many lines, or the entries of a list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rsw_rewards.errors import InputError
from rsw_rewards.io import text_files
from rsw_rewards.io.text_files import bounded, open_utf8, read_whole

_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_decode = json.JSONDecoder().raw_decode


def load_json(path: Path) -> Any:
    """The one value of a JSON file. Raises :class:`InputError`."""
    return parse_json(read_whole(path), str(path))


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON text in UTF-8. Raises :class:`InputError`."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error


def read_records(path: Path, writable: bool = True) -> Iterator[tuple[str, Any]]:
    """The records of a JSON file, each with the words that say where it stands; or the ``ValueError`` that reading it gave.

    JSON Lines are read line by line, and a line that cannot be read costs itself alone. In a file with one list, or with values
    over several lines, nothing after a mistake can be read.

    Args:
        path: the file.
        writable: refuse a record in which a text holds half of a surrogate pair, which cannot be written down.

    Raises:
        InputError: as :func:`open_utf8`; also for a line, or a file of the second kind, of more than ``MAX_FILE_BYTES``.

    >>> _ = Path("answers.json").write_text('[{"id": "a"},\\n {"id": "b"}]')
    >>> list(read_records(Path("answers.json")))
    [('answers.json: entry 0', {'id': 'a'}), ('answers.json: entry 1', {'id': 'b'})]
    """
    with open_utf8(path) as stream:
        first = True
        for number, line in enumerate(iter(partial(stream.readline, text_files.MAX_FILE_BYTES + 1), b""), start=1):
            if not line.strip():
                continue
            if len(line) > text_files.MAX_FILE_BYTES:
                raise InputError(
                    f"{path}:{number} has more than the {text_files.MAX_FILE_BYTES:,} bytes that are read; divide it"
                )
            value = _parsed(line)
            begin = line.lstrip()[:1]
            if first and (begin == b"[" or (begin == b"{" and isinstance(value, ValueError))):
                text = bounded(stream, path, line).decode("utf-8", "surrogateescape")
                escaped = "\\u" in text or _SURROGATE.search(text) is not None
                read = _in_lines if begin == b"{" and not _is_begun(text) else _in_text
                for where, found in read(text, path, number):
                    yield where, _writable(found) if escaped and writable else found
                return
            first = False
            yield f"{path}:{number}", _writable(value) if writable and b"\\u" in line else value


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return ValueError(str(error))


def _is_begun(text: str) -> bool:
    """Whether a text begins with a value, be it over several lines."""
    try:
        _decode(text, _after_blank(text, 0))
    except (ValueError, RecursionError):
        return False
    return True


def _in_lines(text: str, path: Path, number: int) -> Iterator[tuple[str, Any]]:
    for place, line in enumerate(text.split("\n"), start=number):
        if line.strip():
            yield f"{path}:{place}", _parsed(line.encode("utf-8", "surrogateescape"))


def _in_text(text: str, path: Path, line: int) -> Iterator[tuple[str, Any]]:
    """The values that stand one after another in a text, and the entries in place of a list, until the first mistake."""
    place, counted, entry = 0, 0, 0
    is_open = is_ended = False  # the list, and an entry of it
    while (place := _after_blank(text, place)) < len(text):
        line, counted = line + text.count("\n", counted, place), place
        sign = text[place]
        if (sign == "[" and not is_open) or (sign == "]" and is_open) or (sign == "," and is_ended):
            place, is_open, is_ended = place + 1, sign != "]", False
            continue
        try:
            if is_ended:
                raise ValueError("there is no comma after an entry of the list")
            value, place = _decode(text, place)
        except (ValueError, RecursionError) as error:
            yield f"{path}:{line}", ValueError(f"{error}; nothing after it is read")
            return
        yield f"{path}: entry {entry}" if is_open else f"{path}:{line}", value
        entry, is_ended = entry + 1, is_open
    if is_open:
        yield f"{path}:{line}", ValueError("the list has no end: the file is cut off")


def _after_blank(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    return found.end() if found else place


def _writable(value: Any) -> Any:
    """The value, or a ``ValueError`` where a text in it cannot be written down."""
    if isinstance(value, ValueError):
        return value
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return ValueError("a text holds half of a surrogate pair, or bytes that are not UTF-8")
    return value
