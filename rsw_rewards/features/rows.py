"""Rows of numbers kept by key, in memory or in files that outlive a crash and that several processes share.

A :class:`FeatureFile` is two files. ``<stem>.f32`` holds rows of little-endian float32, one after another. ``<stem>.idx`` holds one
entry of 48 bytes for each of them, appended after the row is there:

    key (32 bytes) · row number (uint64) · CRC-32 of key and row (uint32) · CRC-32 of the 44 bytes before (uint32)

Whatever a crash cuts off is therefore either not named by an entry or does not match its checksum, and is not there for a reader.

Neither SQLite nor LMDB: both warn against files on network disks, which runs share, and rows that stand one after another can be
mapped as one matrix.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ENTRY = struct.Struct("<32sQII")
ROW = np.dtype("<f4")
_RELEASE_BYTES = 1 << 20
"""A lookup that touches more than this hands the pages back, so that reading a large file block by block stays small."""


class FeatureFile:
    """Rows of ``dim`` float32 values by 32-byte key, on disk. Any number of processes may read and add at the same time; a file lock orders those that add.

    Args:
        stem: path of the two files without their suffixes; they appear with the first row.
        dim: values per row; a file of another ``dim`` is another file, so put the number into the name.
    """

    def __init__(self, stem: Path, dim: int) -> None:
        self.dim = dim
        self._data, self._index = Path(f"{stem}.f32"), Path(f"{stem}.idx")
        self._entries: dict[bytes, int] = {}
        """Key -> row number, shifted left by 32 bits, and checksum: one number is half as large as a pair."""
        self._sound: set[bytes] = set()
        """Keys whose row was read once and matched its checksum."""
        self._parsed = 0
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        """Number of keys that have a row."""
        self._refresh()
        return len(self._entries)

    @property
    def added(self) -> int:
        """Rows that were ever added, by whatever process, those that a later one replaced among them."""
        try:
            return self._index.stat().st_size // ENTRY.size
        except FileNotFoundError:
            return 0

    def keys(self) -> list[bytes]:
        """All keys that have a row."""
        self._refresh()
        return list(self._entries)

    def has(self, key: bytes) -> bool:
        """Whether the key has an undamaged row."""
        if key not in self._entries:
            self._refresh()
        return key in self._entries and (key in self._sound or bool(self._gather([key])[1][0]))

    def read(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """(len(keys), dim) float32 rows, zeros where there is none, and a (len(keys),) bool mask of where there is one."""
        if any(key not in self._entries for key in keys):
            self._refresh()
        return self._gather(keys)

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Keep (len(keys), dim) rows. A later row of a key takes the place of an earlier one."""
        rows = np.ascontiguousarray(rows, ROW)
        if rows.shape != (len(keys), self.dim):
            raise ValueError(f"rows of shape {rows.shape} for {len(keys)} keys of {self.dim} values")
        if not len(keys):
            return
        self._data.parent.mkdir(parents=True, exist_ok=True)
        with _opened(self._index, os.O_RDWR | os.O_CREAT) as index, _opened(self._data, os.O_RDWR | os.O_CREAT) as data:
            fcntl.flock(index, fcntl.LOCK_EX)  # given back when the file is closed, also by a crash
            # What a crash left half written is written over: no entry names it, or none that is whole.
            first = os.fstat(data).st_size // self._row_bytes
            _write_at(data, rows.tobytes(), first * self._row_bytes)
            entries = b"".join(_entry(key, first + place, rows[place]) for place, key in enumerate(keys))
            _write_at(index, entries, os.fstat(index).st_size // ENTRY.size * ENTRY.size)

    @property
    def _row_bytes(self) -> int:
        return self.dim * ROW.itemsize

    def _refresh(self) -> None:
        """Take in the entries that were added since the last look, by whatever process."""
        try:
            with _opened(self._index, os.O_RDONLY) as index:
                size = os.fstat(index).st_size // ENTRY.size * ENTRY.size
                if size <= self._parsed:
                    return
                raw = os.pread(index, size - self._parsed, self._parsed)
        except FileNotFoundError:
            return
        start, sound_end, view = self._parsed, self._parsed, memoryview(raw)
        for offset in range(0, len(raw) // ENTRY.size * ENTRY.size, ENTRY.size):
            key, row, checksum, own = ENTRY.unpack_from(raw, offset)
            if zlib.crc32(view[offset : offset + ENTRY.size - 4]) != own:
                continue
            self._entries[key] = row << 32 | checksum
            self._sound.discard(key)
            sound_end = start + offset + ENTRY.size
        # A damaged end is looked at again next time: it may be an entry that is just being written.
        self._parsed = sound_end

    def _gather(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        found = np.zeros((len(keys), self.dim), np.float32)
        there = np.zeros(len(keys), bool)
        rows = self._mapped_rows()
        for place, key in enumerate(keys):
            entry = self._entries.get(key)
            if entry is None or entry >> 32 >= len(rows):
                continue
            found[place] = rows[entry >> 32]
            if key not in self._sound:
                if _checksum(key, found[place]) != entry & 0xFFFFFFFF:
                    found[place] = 0.0
                    self._entries.pop(key, None)  # it counts as missing; a new row can take its place
                    continue
                self._sound.add(key)
            there[place] = True
        if found.nbytes > _RELEASE_BYTES and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            del rows
            self._map.madvise(mmap.MADV_DONTNEED)
        return found, there

    def _mapped_rows(self) -> np.ndarray:
        """(rows, dim) view of the whole rows of the data file as it is now, shorter where it was cut."""
        try:
            with _opened(self._data, os.O_RDONLY) as data:
                size = os.fstat(data).st_size // self._row_bytes * self._row_bytes
                if size and (self._map is None or len(self._map) != size):
                    self._map = mmap.mmap(data, size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            size = 0
        if not size or self._map is None:
            return np.empty((0, self.dim), ROW)
        return np.frombuffer(self._map, ROW).reshape(-1, self.dim)


class MemoryRows:
    """Rows as :class:`FeatureFile` has them, in memory up to a budget; past it they move to a temporary file, which goes with this object.

    Args:
        dim: values per row.
        budget: bytes of rows that stay in memory.
    """

    def __init__(self, dim: int, budget: int) -> None:
        self.dim = dim
        self._budget = budget
        self.added = 0
        self._rows: dict[bytes, np.ndarray] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._spilled: FeatureFile | None = None

    def __len__(self) -> int:
        return len(self._rows) if self._spilled is None else len(self._spilled)

    @property
    def in_memory(self) -> int:
        """Rows that are in memory, not in the temporary file."""
        return len(self._rows)

    def keys(self) -> list[bytes]:
        return list(self._rows) if self._spilled is None else self._spilled.keys()

    def has(self, key: bytes) -> bool:
        return key in self._rows if self._spilled is None else self._spilled.has(key)

    def read(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        if self._spilled is not None:
            return self._spilled.read(keys)
        found = np.zeros((len(keys), self.dim), np.float32)
        there = np.zeros(len(keys), bool)
        for place, key in enumerate(keys):
            if (row := self._rows.get(key)) is not None:
                found[place], there[place] = row, True
        return found, there

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        self.added += len(keys)
        if self._spilled is not None:
            self._spilled.add(keys, rows)
            return
        for key, row in zip(keys, np.asarray(rows, np.float32), strict=True):
            self._rows[key] = row.copy()
        if len(self._rows) * self.dim * ROW.itemsize > self._budget:
            self._folder = tempfile.TemporaryDirectory(prefix="rsw_features_")
            self._spilled = FeatureFile(Path(self._folder.name) / "rows", self.dim)
            self._spilled.add(list(self._rows), np.stack(list(self._rows.values())))
            self._rows.clear()


def _checksum(key: bytes, row: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(row, ROW).data, zlib.crc32(key))


def _entry(key: bytes, number: int, row: np.ndarray) -> bytes:
    if len(key) != 32:
        raise ValueError(f"a key of {len(key)} bytes, not 32")
    head = ENTRY.pack(key, number, _checksum(key, row), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def _write_at(file: int, content: bytes, offset: int) -> None:
    """Write all of it; ``os.pwrite`` alone may stop half way, as on a full disk."""
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)
