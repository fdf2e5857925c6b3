"""Files of a run that are torn, flipped or of something else are refused in one sentence that names them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.files import atomic, read_json, write_json
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import RswError

SAMPLES = [
    {
        "id": f"q{n}",
        "scene": f"s{n}",
        "task": "change_qa",
        "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]},
    }
    for n in range(4)
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "first"
    rsw.evaluate("exact-qa", SAMPLES, ["yes", "no", "yes", "yes"], folder)
    return folder


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def records(table: ScoreTable) -> str:
    return repr(table.frame.to_dict("list"))


def test_a_flipped_bit_never_changes_stored_scores(run: Path, tmp_path: Path) -> None:
    whole, file = (run / "scores.parquet").read_bytes(), tmp_path / "scores.parquet"
    known = records(ScoreTable.read(run / "scores.parquet"))
    refused = 0
    for place in random.Random(0).sample(range(len(whole)), 60):
        file.write_bytes(flipped(whole, place))
        try:
            assert records(ScoreTable.read(file)) == known
        except RswError as error:
            refused += str(file) in str(error)
    assert refused >= 55  # a flip in the name of the checksum takes it away
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RswError, match=r"scores\.parquet"):
        ScoreTable.read(file)


def test_pages_of_tables_have_checksums_of_their_own(run: Path) -> None:
    whole = (run / "scores.parquet").read_bytes()
    place = whole.index(b"exact_match") + 2  # in a page, where no structure is
    damaged = whole[:place] + b"X" + whole[place + 1 :]
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(pa.BufferReader(damaged), page_checksum_verification=True)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("summary.json", lambda old: old[: len(old) // 2], "no valid JSON"),
        ("summary.json", lambda old: old.replace('"value": 0.75', '"value": 0.95'), "checksum"),
        ("summary.json", lambda _: '{"metrics": [1]}', "metrics"),
        ("summary.json", lambda _: '{"metrics": {"accuracy": true}}', "metrics.accuracy"),
        ("summary.json", lambda _: '{"metrics": {"accuracy": {"value": NaN, "ci95": null}}}', "metrics.accuracy.value"),
        ("summary.json", lambda _: '{"metrics": {"accuracy": {"ci95": null}}}', "metrics.accuracy.value"),
        ("summary.json", lambda _: '"text"', "JSON object"),
        ("config.yaml", lambda old: old[: len(old) // 2], "checksum"),
        ("config.yaml", lambda _: "", "mapping"),
        ("config.yaml", lambda _: "protocol: [exact-qa]", "names no protocol"),
        ("config.yaml", lambda _: "{protocol: exact-qa, components: [1]}", "components"),
    ],
)
def test_a_run_that_is_torn_or_tampered_with_is_not_compared(
    run: Path, tmp_path: Path, name: str, change: Callable[[str], str], words: str
) -> None:
    for file in ("config.yaml", "summary.json", "scores.parquet"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    (tmp_path / name).write_text(change((run / name).read_text()))
    with pytest.raises(RswError, match=words) as caught:
        rsw.compare(run, tmp_path)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("value", [2.0] * 4, "not in \\[0, 1\\]"), ("status", ["fine"] * 4, "status"), ("value", ["a"] * 4, "a"), ("sample", [None] * 4, "sample")],
)  # fmt: skip
def test_a_table_of_impossible_scores_is_refused(
    run: Path, tmp_path: Path, column: str, value: list[object], words: str
) -> None:
    table = pq.read_table(run / "scores.parquet")
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(value)), tmp_path / "scores.parquet")
    with pytest.raises(RswError, match=words):
        ScoreTable.read(tmp_path / "scores.parquet")
    with pytest.raises(RswError, match=words):
        rsw.reweight(tmp_path, [{"exact_match": 1.0}], rubric={"components": [{"use": "exact_match"}]})


def test_checksums_stand_in_text_that_other_programs_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"value": 0.1, "words": "größer"})
    assert json.loads((tmp_path / "a.json").read_text())["value"] == 0.1
    assert read_json(tmp_path / "a.json", dict) == {"value": 0.1, "words": "größer"}
    write_run_yaml(tmp_path / "a.yaml", {"value": 0.1})
    assert read_yaml(tmp_path / "a.yaml") == {"value": 0.1}
    lines = (tmp_path / "a.yaml").read_text().replace("0.1", "0.2")
    (tmp_path / "a.yaml").write_text(lines)
    with pytest.raises(RswError, match="delete that line"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(lines.split("\n", 1)[1])  # as the sentence says
    assert read_yaml(tmp_path / "a.yaml") == {"value": 0.2}


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="full"), atomic(tmp_path / "a.txt") as partial:
        partial.write_text("ne")
        raise OSError("full")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"
