"""Files of a run's folder: written whole or not at all, and with a checksum by which damage is noticed when they are read.

A file without a checksum, by an earlier version or by hand, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.errors import InputError, reason_of

if TYPE_CHECKING:
    import pyarrow as pa

CHECKSUM = "sha256"
"""Key of a JSON object that holds the checksum of the others."""
LINE_CHECKSUM = "crc32"
"""The same of a line of JSON Lines."""

_PARQUET_OWNER = b"rsw.of"
_PARQUET_LABEL = b"rsw.sha256"
_BEFORE_DIGEST = _PARQUET_LABEL + b"\x18\x40"
"""What stands before the checksum in a Parquet file: its key, and that a text of 64 bytes follows (Thrift's compact form)."""
_NO_DIGEST = b"0" * 64
"""What stands in place of the checksum while it is computed."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes the place of ``path`` at the end, and is removed after an error.

    >>> from rsw_rewards.core.files import atomic
    >>> with atomic(Path("numbers.txt")) as partial:
    ...     _ = partial.write_text("1 2 3")
    >>> Path("numbers.txt").read_text()
    '1 2 3'
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def checksum(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def open_as(path: Path, folder: Path) -> None:
    """Give every file below ``folder`` the permissions of ``path``, a file that was just made; safetensors makes its own readable to
    their owner alone."""
    mode = path.stat().st_mode & 0o777
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def damaged(path: Path) -> InputError:
    """The error of a file whose checksum is not that of its content."""
    return InputError(
        f"{path} is damaged or was changed by hand: its content does not fit its checksum; bring it back from a copy, or delete it"
        " and make it again"
    )


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum; NumPy's numbers become numbers, and other objects texts."""
    plain = json.loads(json.dumps(record, default=lambda value: value.item() if hasattr(value, "item") else str(value)))
    marked = {**plain, CHECKSUM: checksum(json.dumps(plain, sort_keys=True))}
    write_text(path, json.dumps(marked, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, shape: Any) -> dict[str, Any]:
    """The object that :func:`write_json` wrote, without its checksum.

    Args:
        path: the file.
        shape: what it must hold, as a type that pydantic knows; keys that a model does not name are allowed.

    Raises:
        InputError: it cannot be read, is no JSON, is damaged, or holds something else.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        record = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON, it is cut off or damaged: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(record).__name__}")
    known = record.pop(CHECKSUM, None)
    if known is not None and known != checksum(json.dumps(record, sort_keys=True)):
        raise damaged(path)
    try:
        TypeAdapter(shape).validate_python(record)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            raise InputError(f"{path}: the key {key!r} is missing") from error
        raise InputError(f"{path}: {key}: {reason_of(problem)}") from error
    return record


def line_with_checksum(record: Mapping[str, Any], of: str = "") -> str:
    """A record as a line of JSON Lines that ends with its checksum, for files that grow line by line.

    Args:
        of: what the file belongs to, which enters the checksum.

    >>> from rsw_rewards.core.files import line_with_checksum
    >>> line_with_checksum({"step": 1})
    '{"step": 1, "crc32": 3203044938}\\n'
    """
    return json.dumps({**record, LINE_CHECKSUM: _crc(record, of)}) + "\n"


def _crc(record: Mapping[str, Any], of: str) -> int:
    return zlib.crc32(json.dumps(record).encode(), zlib.crc32(of.encode()))


def read_lines(path: Path, of: str = "") -> list[dict[str, Any]]:
    """The records that :func:`line_with_checksum` wrote, without their checksums; none where there is no file.

    The last line is left out where it has no end: it was being written when its process was killed.

    Raises:
        InputError: the file cannot be read, or a line is damaged or of something else than ``of``.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: the line is damaged, it is no JSON: {error}") from error
        if not isinstance(record, dict) or record.pop(LINE_CHECKSUM, _crc(record, of)) != _crc(record, of):
            raise InputError(
                f"{path}:{number}: the line is damaged, was changed by hand or is of another run: it does not fit its checksum"
                f" ({LINE_CHECKSUM}); bring the file back from a copy"
            )
        records.append(record)
    return records


def digest_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits. Raises :class:`OSError`."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def damage_among(folder: Path, digests: Mapping[str, str]) -> str:
    """What is wrong with files of a folder, as a clause; empty where each has the digest that is noted for it."""
    for name, digest in digests.items():
        try:
            if digest_of(folder / name) != digest:
                return f"{folder / name} is not as it was written"
        except OSError as error:
            return f"{folder / name} cannot be read ({error.strerror})"
    return ""


def write_table(path: Path, table: pa.Table, of: str = "") -> None:
    """Write Parquet with a checksum of every page and one of the whole file; its folder is made where it does not exist.

    Args:
        of: what the file belongs to, by which :func:`read_table` tells it from that of another run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        owner = {_PARQUET_OWNER.decode(): of} if of else {}
        writer.add_key_value_metadata({**owner, _PARQUET_LABEL.decode(): _NO_DIGEST.decode()})
    content = sink.getvalue().to_pybytes()
    before, mark, after = content.rpartition(_BEFORE_DIGEST)
    digest = hashlib.sha256(content).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        partial.write_bytes(before + mark + digest + after[len(digest) :])


def read_table(path: Path, columns: Sequence[str], of: str = "") -> pa.Table:
    """Columns of a Parquet file, in this order, their values checked to be valid for their types.

    Args:
        of: what it must belong to, where it says so at all.

    Raises:
        InputError: it cannot be read, is damaged, is no Parquet file, lacks a column, or belongs to something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
        before, mark, after = content.rpartition(_BEFORE_DIGEST)  # all empty but the last in files of other programs
        digest, rest = after[: len(_NO_DIGEST)], after[len(_NO_DIGEST) :]
        if mark and digest != hashlib.sha256(before + mark + _NO_DIGEST + rest).hexdigest().encode():
            raise damaged(path)
        # In this thread alone: a process that ends while Arrow's threads still run is aborted.
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True, pre_buffer=False) as file:
            owner = (file.metadata.metadata or {}).get(_PARQUET_OWNER, of.encode())
            if of and owner != of.encode():
                raise InputError(
                    f"{path} belongs to another run ({owner.decode(errors='replace')}, not {of}); bring back its own"
                )
            if missing := set(columns) - set(file.schema_arrow.names):
                raise InputError(f"{path} lacks the columns {sorted(missing)}")
            table = file.read(columns=list(columns), use_threads=False).select(list(columns))
        table.validate(full=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read, it is damaged or no Parquet file: {error}") from error
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path} is damaged or no Parquet file: {error}") from error
    return table
