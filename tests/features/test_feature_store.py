"""Rows that survive: a crash at any byte, damage anywhere, several writers at once, and more of them than memory should hold."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.features.rows import ENTRY, FeatureFile, MemoryRows

DIM = 5
COUNT = 12


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(dim).astype(np.float32)


def written(stem: Path) -> FeatureFile:
    """A file of ``COUNT`` rows, added in three goes."""
    file = FeatureFile(stem, DIM)
    for part in np.array_split(np.arange(COUNT), 3):
        file.add([key(number) for number in part], np.stack([row(number) for number in part]))
    return file


def check_and_mend(stem: Path) -> int:
    """Read everything anew: what is there must be right. Add what is not, and all must be there. Returns how many were lost."""
    file = FeatureFile(stem, DIM)
    keys = [key(number) for number in range(COUNT)]
    found, there = file.read(keys)
    for number in np.flatnonzero(there):
        np.testing.assert_array_equal(found[number], row(int(number)))
    lost = [int(number) for number in np.flatnonzero(~there)]
    assert [number for number in range(COUNT) if not file.has(keys[number])] == lost
    file.add([keys[number] for number in lost], np.array([row(number) for number in lost]).reshape(-1, DIM))
    for reader in (file, FeatureFile(stem, DIM)):
        found, there = reader.read(keys)
        assert there.all()
        np.testing.assert_array_equal(found, np.stack([row(number) for number in range(COUNT)]))
    return len(lost)


@given(data=st.integers(0, COUNT * DIM * 4), index=st.integers(0, COUNT * ENTRY.size))
def test_files_cut_anywhere_give_right_rows_or_none_and_can_go_on(data: int, index: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "rows"
        written(stem)
        os.truncate(f"{stem}.f32", data)
        os.truncate(f"{stem}.idx", index)
        lost = check_and_mend(stem)
        assert lost == COUNT - min(data // (DIM * 4), index // ENTRY.size)


@given(st.sampled_from(["f32", "idx"]), st.integers(0, COUNT * ENTRY.size - 1), st.integers(1, 255))
def test_a_changed_byte_costs_one_row_and_gives_no_wrong_one(suffix: str, place: int, change: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "rows"
        written(stem)
        path = Path(f"{stem}.{suffix}")
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= change
        path.write_bytes(content)
        assert check_and_mend(stem) == 1


def test_a_reader_sees_what_others_add_and_damage_it_meets(tmp_path: Path) -> None:
    reader = FeatureFile(tmp_path / "a" / "rows", DIM)
    assert not reader.has(key(0)) and len(reader) == 0
    assert not reader.read([key(0)])[1].any()
    written(tmp_path / "a" / "rows")
    assert len(reader) == COUNT and reader.has(key(3))
    os.truncate(tmp_path / "a" / "rows.f32", DIM * 4 * 2)  # under an open reader: no bus error
    np.testing.assert_array_equal(reader.read([key(1), key(3)])[1], [True, False])
    newer = row(99)
    FeatureFile(tmp_path / "a" / "rows", DIM).add([key(1)], newer[None])
    assert reader.has(key(98)) is False  # a miss is what makes it look again
    np.testing.assert_array_equal(reader.read([key(1)])[0][0], newer)
    with pytest.raises(ValueError, match="rows of shape"):
        reader.add([key(1)], np.zeros((1, DIM + 1)))


_WRITER = """
import hashlib, sys, numpy as np
from pathlib import Path
from rsw_rewards.features.rows import FeatureFile
stem, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
file = FeatureFile(stem, 5)
print("ready", flush=True)
for start in range(first, last, 4):
    numbers = range(start, min(start + 4, last))
    rows = np.stack([np.random.default_rng(n).standard_normal(5).astype(np.float32) for n in numbers])
    file.add([hashlib.sha256(str(n).encode()).digest() for n in numbers], rows)
"""


def start_writer(stem: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(stem), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_write_one_file_and_a_killed_one_spoils_nothing(tmp_path: Path) -> None:
    stem = tmp_path / "rows"
    writers = [start_writer(stem, first, first + 400) for first in (0, 300, 600)]  # overlapping
    victim = start_writer(stem, 10_000, 10_000_000)
    assert victim.stdout is not None and victim.stdout.readline()
    reader = FeatureFile(stem, DIM)
    while any(writer.poll() is None for writer in writers):
        numbers = list(range(0, 1000, 7))
        found, there = reader.read([key(number) for number in numbers])
        for place in np.flatnonzero(there):
            np.testing.assert_array_equal(found[place], row(numbers[place]))
    victim.kill()
    victim.wait()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    found, there = FeatureFile(stem, DIM).read([key(number) for number in range(1000)])
    assert there.all()
    np.testing.assert_array_equal(found, np.stack([row(number) for number in range(1000)]))
    FeatureFile(stem, DIM).add([key(-1)], row(7)[None])
    np.testing.assert_array_equal(reader.read([key(-1)])[0][0], row(7))


@pytest.mark.parametrize("budget", [1 << 20, 6 * DIM * 4])
def test_memory_is_bounded_and_forgets_nothing(budget: int) -> None:
    rows = MemoryRows(DIM, budget)
    for number in range(COUNT):
        rows.add([key(number)], row(number)[None])
    assert len(rows) == COUNT and rows.has(key(0)) and not rows.has(key(99))
    found, there = rows.read([key(number) for number in (3, 99, 11)])
    assert there.tolist() == [True, False, True]
    np.testing.assert_array_equal(found, [row(3), np.zeros(DIM), row(11)])
    assert rows.in_memory * DIM * 4 <= budget


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_large_file_is_read_block_by_block_in_little_memory(tmp_path: Path) -> None:
    dim, count, block = 2048, 12_000, 1000
    file = FeatureFile(tmp_path / "rows", dim)
    some = np.random.default_rng(0).standard_normal((block, dim)).astype(np.float32)
    keys = [key(number) for number in range(count)]
    for start in range(0, count, block):
        file.add(keys[start : start + block], some)
    before = resident()
    highest = 0
    for start in range(0, count, block):
        found, there = file.read(keys[start : start + block])
        assert there.all()
        np.testing.assert_array_equal(found[:: block // 4], some[:: block // 4])
        highest = max(highest, resident() - before)
    assert highest < 45 << 20  # of 98 million bytes


_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from tests.features.test_feature_store import DIM, key, row
from rsw_rewards.features.store import FeatureFile

resource.setrlimit(resource.RLIMIT_FSIZE, (777, 777))
file = FeatureFile(Path(sys.argv[1]), DIM)
for number in range(1000):
    try:
        file.add([key(number)], row(number)[None])
    except OSError as error:
        print(number, error.errno)
        break
"""


def test_a_full_disk_costs_the_rows_that_found_no_room(tmp_path: Path) -> None:
    stem = tmp_path / "rows"
    told = subprocess.run([sys.executable, "-c", _FULL, str(stem)], capture_output=True, text=True, check=True)
    count, number = map(int, told.stdout.split())
    assert number == errno.EFBIG and 0 < count < 1000
    found, there = FeatureFile(stem, DIM).read([key(place) for place in range(count + 1)])
    assert there.tolist() == [True] * count + [False]
    np.testing.assert_array_equal(found[:count], np.stack([row(place) for place in range(count)]))
    FeatureFile(stem, DIM).add([key(count)], row(count)[None])  # once there is room again
    np.testing.assert_array_equal(FeatureFile(stem, DIM).read([key(count)])[0][0], row(count))
