"""Files of text as people have them, and the records of JSON in them.

The text is UTF-8 or UTF-16, with a byte order mark or without, plain or compressed with gzip. The records stand one a line, several one
after another over many lines, or as the entries of a list.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rsw_rewards.errors import InputError, as_input_error

MAX_FILE_BYTES = 1 << 30
"""Most bytes that are read whole, or unpacked (1 GiB)."""

TABLES = frozenset({".csv", ".tsv", ".xlsx", ".xlsm", ".xls"})
"""Suffixes of files that hold a table."""

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_NO_TEXT = {
    b"BZh": "is compressed with bzip2; unpack it, or compress it with gzip",
    b"\xfd7zXZ": "is compressed with xz; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it, or compress it with gzip",
    b"PK\x03\x04": "is a zip archive or an Excel file, not text; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel file of the old kind (.xls) or one with a password; save it as .xlsx or as CSV",
    b"PAR1": "is a Parquet file, not text; write its table as CSV or JSON Lines",
    b"\x80\x03": "is a pickle, which is never read, as it may run code; write JSON Lines",
    b"\x80\x04": "is a pickle, which is never read, as it may run code; write JSON Lines",
    b"\x80\x05": "is a pickle, which is never read, as it may run code; write JSON Lines",
}
"""How files begin that are no text, and what to do with them."""


def suffix_of(path: Path) -> str:
    """The suffix in lower case, without that of gzip.

    >>> suffix_of(Path("Answers.CSV.gz"))
    '.csv'
    """
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


@contextmanager
def open_utf8(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a text file in UTF-8, unpacked and without a byte order mark.

    A plain UTF-8 file is passed on as it is, so its bytes may still be wrong.

    Raises:
        InputError: it cannot be read, is no text, is not in the encoding that its first bytes tell, or unpacks to more than
            ``MAX_FILE_BYTES``. Its unpacked size is counted before anything is kept.
    """
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == _GZIP
            stream: BinaryIO = _unpacked(file, path) if packed else file  # type: ignore[assignment]
            head = stream.peek(8)[:8]  # type: ignore[attr-defined]
            for start, why in _NO_TEXT.items():
                if head.startswith(start):
                    raise InputError(f"{path} {why}")
            encoding = json.detect_encoding(head)
            if encoding == "utf-8-sig":
                stream.read(3)
            elif encoding != "utf-8":
                stream = _as_utf8(stream, encoding, path)
            yield stream
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def read_whole(path: Path) -> bytes:
    """The bytes of :func:`open_utf8`, at most ``MAX_FILE_BYTES``. Raises :class:`InputError`."""
    with open_utf8(path) as stream:
        return bounded(stream, path)


def read_text(path: Path) -> str:
    """The text of a file. Bytes that are not UTF-8 are halves of surrogate pairs in it, so that they cost no more than their record.

    Raises:
        InputError: as :func:`open_utf8`, or the file has more than ``MAX_FILE_BYTES``.
    """
    return read_whole(path).decode("utf-8", "surrogateescape")


def bounded(stream: BinaryIO, path: Path, before: bytes = b"") -> bytes:
    """The rest of a stream after what was read ``before``. Raises :class:`InputError` for more than ``MAX_FILE_BYTES`` in all."""
    data = before + stream.read(MAX_FILE_BYTES + 1 - len(before))
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path} has more than the {MAX_FILE_BYTES:,} bytes that are read; divide it")
    return data


def _unpacked(file: BinaryIO, path: Path) -> gzip.GzipFile:
    size = 0
    with as_input_error(f"{path} cannot be unpacked, it is cut off or broken", EOFError, zlib.error, gzip.BadGzipFile):
        with gzip.GzipFile(fileobj=file) as counted:
            while part := counted.read(_CHUNK):
                size += len(part)
                if size > MAX_FILE_BYTES:
                    raise InputError(
                        f"{path} unpacks to more than the {MAX_FILE_BYTES:,} bytes that are read; divide it"
                    )
        file.seek(0)
    return gzip.GzipFile(fileobj=file)


def _as_utf8(stream: BinaryIO, encoding: str, path: Path) -> BinaryIO:
    try:
        return io.BytesIO(bounded(stream, path).decode(encoding).encode())
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} begins as {encoding.upper()} but is not in it: {error.reason} at byte {error.start}"
        ) from error


_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_decode = json.JSONDecoder().raw_decode


def load_json(path: Path) -> Any:
    """The one value of a JSON file. Raises :class:`InputError`."""
    return parse_json(read_whole(path), str(path))


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON text in UTF-8. Raises :class:`InputError`."""
    with as_input_error(f"{where} is not valid JSON", ValueError, RecursionError):
        return json.loads(data.decode("utf-8-sig"))


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
        readline, number, first = stream.readline, 0, True
        while line := readline(MAX_FILE_BYTES + 1):
            number += 1
            if not line.strip():
                continue
            if len(line) > MAX_FILE_BYTES:
                raise InputError(f"{path}:{number} has more than the {MAX_FILE_BYTES:,} bytes that are read; divide it")
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
                value = ValueError(str(error))
            begin = line.lstrip()[:1]
            if first and (begin == b"[" or (begin == b"{" and isinstance(value, ValueError))):
                whole = bounded(stream, path, line)
                text = whole.decode("utf-8", "surrogateescape")
                if begin == b"[" or _is_begun(text):
                    escaped = "\\u" in text or _SURROGATE.search(text) is not None
                    for where, found in _in_text(text, path, number):
                        yield where, _writable(found) if escaped and writable else found
                    return
                readline = io.BytesIO(whole[len(line) :]).readline  # JSON Lines, of which the first is broken
            first = False
            yield f"{path}:{number}", _writable(value) if writable and b"\\u" in line else value


def _is_begun(text: str) -> bool:
    """Whether a text begins with a value, be it over several lines."""
    try:
        _decode(text, _after_blank(text, 0))
    except (ValueError, RecursionError):
        return False
    return True


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
