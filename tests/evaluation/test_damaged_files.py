"""Files of a run that are torn, flipped or of something else are refused in one sentence that names them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.files import atomic, read_json, write_json
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import RswError
from rsw_rewards.training.log_rows import append_row, read_log

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


@pytest.mark.parametrize("name", ["scores.parquet", "summary.json", "config.yaml"])
def test_a_file_of_another_run_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    other, mixed = tmp_path / "other", tmp_path / "mixed"
    rsw.evaluate("exact-qa", SAMPLES, ["no"] * 4, other)
    shutil.copytree(run, mixed)
    shutil.copy(other / name, mixed / name)
    with pytest.raises(RswError, match="belongs to another run"):
        rsw.compare(other, mixed)
    with (
        pytest.raises(RswError, match=r"another run|other samples, truths or outputs")
        if name != "summary.json"
        else nullcontext()
    ):
        rsw.evaluate("exact-qa", SAMPLES, ["yes", "no", "yes", "yes"], mixed, resume=True)


def test_scores_by_other_settings_are_refused_where_the_configuration_was_edited_to_fit(tmp_path: Path) -> None:
    given = (
        [{"id": "q", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}],
        ["yes"],
    )
    rsw.evaluate("exact-qa", *given, out=tmp_path / "kept", settings={"exact_match.thinking": "keep"})
    rsw.evaluate("exact-qa", *given, out=tmp_path / "plain")
    shutil.copy(tmp_path / "plain" / "config.yaml", tmp_path / "kept" / "config.yaml")
    with pytest.raises(RswError, match="other settings or code of 'exact_match'"):
        rsw.evaluate("exact-qa", *given, out=tmp_path / "kept", resume=True)


def test_a_run_goes_on_where_its_folder_was_moved_to(tmp_path: Path) -> None:
    rsw.data.make_scene_world(tmp_path / "data", 2, 0, tasks=["forecast"])
    mine = rsw.protocol("mine", ["gain_over_copy"], task="forecast")
    asked = tmp_path / "data" / "samples.jsonl"
    first = rsw.evaluate(mine, asked, policy="copy_before", out=tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    again = rsw.evaluate(mine, asked, policy="copy_before", out=tmp_path / "b", resume=True)
    assert again.summary["metrics"] == first.summary["metrics"]


def test_a_flipped_letter_in_the_answers_of_a_policy_is_refused(tmp_path: Path) -> None:
    mine = rsw.protocol("mine", ["exact_match"], task="change_qa")
    rsw.evaluate(mine, SAMPLES, policy="constant", out=tmp_path)
    (tmp_path / "config.yaml").unlink()  # as a kill before the first score leaves it
    (tmp_path / "scores.parquet").unlink()
    rsw.evaluate(mine, SAMPLES, policy="constant", out=tmp_path, resume=True)
    file = tmp_path / "outputs" / "predictions.jsonl"
    file.write_text(file.read_text().replace('"text": "', '"text": "x', 1))
    with pytest.raises(RswError, match=r"predictions\.jsonl is damaged or was changed by hand"):
        rsw.evaluate(mine, SAMPLES, policy="constant", out=tmp_path, resume=True)


def test_lines_of_a_log_tell_damage_and_other_runs(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text("{}")
    log = tmp_path / "log.jsonl"
    for step in (1, 2):
        append_row(log, {"step": step, "reward": 0.1 * step, "none": None})
    whole = log.read_text()
    assert read_log(log) == [{"step": step, "reward": 0.1 * step, "none": None} for step in (1, 2)]
    log.write_text(whole + '{"step": 3, "rew')  # as a kill leaves it
    assert len(read_log(log)) == 2
    for damaged in (whole.replace("0.1,", "0.3,"), whole.replace('"step"', '"stop"', 1), whole[2:]):
        log.write_text(damaged)
        with pytest.raises(RswError, match=r"log\.jsonl:1: the line is damaged"):
            read_log(log)
    log.write_text(whole)
    (tmp_path / "inputs.json").write_text('{"seed": "2"}')
    with pytest.raises(RswError, match="of another run"):
        read_log(log)
    log.write_text('{"step": 1}\n')  # by an earlier version
    assert read_log(log) == [{"step": 1}]
