"""Files of text as people have them: UTF-8 or UTF-16, with a byte order mark or without, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rsw_rewards.errors import InputError

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
    try:
        with gzip.GzipFile(fileobj=file) as counted:
            while part := counted.read(_CHUNK):
                size += len(part)
                if size > MAX_FILE_BYTES:
                    raise InputError(
                        f"{path} unpacks to more than the {MAX_FILE_BYTES:,} bytes that are read; divide it"
                    )
        file.seek(0)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} cannot be unpacked, it is cut off or broken: {error}") from error
    return gzip.GzipFile(fileobj=file)


def _as_utf8(stream: BinaryIO, encoding: str, path: Path) -> BinaryIO:
    try:
        return io.BytesIO(bounded(stream, path).decode(encoding).encode())
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} begins as {encoding.upper()} but is not in it: {error.reason} at byte {error.start}"
        ) from error
