"""The command as people use it: help at once, one-sentence errors, files in and a run directory out."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml

from rsw_rewards import compare
from rsw_rewards.cli import main
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import write_jsonl


def rsw(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["rsw", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    records = [
        {
            "id": f"q{i}", "task": "change_qa", "scene": f"s{i // 2}", "kind": "a" if i % 3 else "b",
            "reference": {"answers": ["yes" if i % 4 else "no"], "vocabulary": ["yes", "no"]},
        }
        for i in range(120)
    ]  # fmt: skip
    write_jsonl(tmp_path / "s.jsonl", records)
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{i}", "text": "yes"} for i in range(120)])
    return tmp_path


def evaluate(folder: Path, *more: object, monkeypatch: pytest.MonkeyPatch, protocol: str = "exact-qa") -> int:
    files = ("--samples", folder / "s.jsonl", "--predictions", folder / "p.jsonl", "--out", folder / "out")
    return rsw("evaluate", protocol, *files, *more, monkeypatch=monkeypatch)


def test_help_is_light() -> None:
    code = (
        "import sys; sys.argv = ['rsw', '--help']\n"
        "from rsw_rewards.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'ray', 'pydantic') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "evaluate" in shown and shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["train", "evaluate", "score", "compare", "verifiers", "protocols", "data"])
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rsw(command, "--help", monkeypatch=monkeypatch) == 0
    assert "Usage: rsw" in capsys.readouterr().out


def test_a_predictions_file_becomes_a_run_directory(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(questions, monkeypatch=monkeypatch) == 0
    out = questions / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["protocol"] == "exact-qa" and summary["n"] == 120 and summary["n_scenes"] == 60
    accuracy = summary["metrics"]["accuracy"]
    assert accuracy["value"] == 0.75 and accuracy["ci95"][0] < 0.75 < accuracy["ci95"][1]
    assert accuracy["chance_corrected"] == 0.0  # it answered the most common answer to everything
    assert set(summary["slices"]) == {"a", "b"}
    assert summary["status"]["exact_match"]["ok"] == 120
    assert summary["baselines"]["oracle"]["metrics"]["accuracy"]["value"] == 1.0
    assert summary["baselines"]["majority"]["metrics"]["accuracy"]["value"] == 0.75
    assert yaml.safe_load((out / "config.yaml").read_text())["config_hash"] == summary["config_hash"]
    page = (out / "report.html").read_text()
    assert "exact-qa" in page and "http://" not in page and "https://" not in page
    assert not (out / "scores.parts").exists()


def test_json_is_the_summary(
    questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(questions, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["exact-qa"]["metrics"]["accuracy"]["value"] == 0.75


def test_a_run_directory_is_not_overwritten_and_can_be_resumed(
    questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(questions, monkeypatch=monkeypatch) == 0
    assert evaluate(questions, monkeypatch=monkeypatch) == 2
    assert "--resume" in capsys.readouterr().err
    before = (questions / "out" / "summary.json").read_text()
    assert evaluate(questions, "--resume", monkeypatch=monkeypatch) == 0
    assert (questions / "out" / "summary.json").read_text() == before
    assert evaluate(questions, "--resume", monkeypatch=monkeypatch, protocol="cdvqa") == 2
    assert "another configuration" in capsys.readouterr().err


def test_resuming_does_only_what_is_missing_or_failed(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsw_rewards.core.scores import ScoreTable, Status
    from rsw_rewards.engine.scorer import Scorer

    assert evaluate(questions, monkeypatch=monkeypatch) == 0
    path = questions / "out" / "scores.parquet"
    table = ScoreTable.read(path)
    whole = table.frame.copy()
    table.frame.loc[3, ["status", "value", "reason"]] = [Status.ERROR, None, "it broke"]
    ScoreTable(table.frame.drop(index=range(100, 120))).write(path)
    seen: list[int] = []
    original = Scorer.score

    def counting(self: Scorer, batch: object, **more: object) -> ScoreTable:
        seen.append(len(batch))  # type: ignore[arg-type]
        return original(self, batch, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Scorer, "score", counting)
    assert evaluate(questions, "--resume", monkeypatch=monkeypatch) == 0
    assert seen[0] == 21  # the rest are the baselines
    again = ScoreTable.read(path).frame.set_index("sample")["value"]
    assert again.reindex(whole["sample"]).tolist() == whole["value"].tolist()


def test_rewards_of_a_file_by_a_users_own_verifier(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (questions / "mine.py").write_text(
        "from rsw_rewards import verifier\n\n\n"
        "@verifier(tasks={'change_qa'})\n"
        "def brevity(sample, output):\n"
        "    return 1 / (1 + len(output.text))\n"
    )
    rubric = {"components": [{"use": "exact_match", "weight": 3.0}, {"use": f"{questions / 'mine.py'}:brevity"}]}
    (questions / "r.yaml").write_text(yaml.safe_dump(rubric))
    files = ("--samples", questions / "s.jsonl", "--predictions", questions / "p.jsonl", "--out", questions / "out")
    assert rsw("score", questions / "r.yaml", *files, monkeypatch=monkeypatch) == 0
    records = [json.loads(line) for line in (questions / "out" / "rewards.jsonl").read_text().splitlines()]
    assert [record["reward"] for record in records[:2]] == [0.0625, 0.8125]


def test_a_file_without_any_reward_says_why_and_fails(
    questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (questions / "rewards.py").write_text(
        "from rsw_rewards import verifier\n\n@verifier(tasks={'change_qa'})\n"
        "def boom(sample, output):\n    raise RuntimeError('the raster server is away')\n"
    )
    (questions / "r.yaml").write_text(yaml.safe_dump({"components": [{"use": f"{questions / 'rewards.py'}:boom"}]}))
    files = ("--samples", questions / "s.jsonl", "--predictions", questions / "p.jsonl", "--out", questions / "out")
    assert rsw("score", questions / "r.yaml", *files, monkeypatch=monkeypatch) == 1
    said = capsys.readouterr()
    assert "error, first: RuntimeError: the raster server is away" in said.out and "no output has a reward" in said.err


def test_two_runs_are_compared_scene_by_scene(
    questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(questions, monkeypatch=monkeypatch) == 0
    (questions / "out").rename(questions / "first")
    texts = [{"id": f"q{i}", "text": "yes" if i % 4 or i < 60 else "no"} for i in range(120)]
    write_jsonl(questions / "p.jsonl", texts)
    assert evaluate(questions, monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert rsw("compare", questions / "first", questions / "out", "--json", monkeypatch=monkeypatch) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["metric"] == "accuracy" and row["difference"] == pytest.approx(0.125) and row["ci95"][0] > 0


def forecasts(folder: Path, image: str) -> None:
    write_png(folder / "a.png", np.zeros((16, 16, 3), np.uint8))
    write_png(folder / "b.png", np.full((16, 16, 3), 200, np.uint8))
    reference = {"mask": "m.png"}
    write_png(folder / "m.png", np.zeros((16, 16), np.uint8))
    write_jsonl(
        folder / "s.jsonl", [{"id": "m", "task": "change_mask", "images": ["a.png", "b.png"], "reference": reference}]
    )
    write_jsonl(folder / "p.jsonl", [{"id": "m", "mask": image}])


def bomb(path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("absent.png", "does not exist"),
        ("bomb.png", "tile it first"),
        ("../outside.png", "leaves every root"),
        ("/etc/hostname", "absolute"),
        ("link.png", "leaves every root"),
        ("small.png", "8 x 8"),
        ("text.png", "cannot be read as an image"),
    ],
)
def test_a_bad_picture_is_an_invalid_output_with_its_reason(
    tmp_path: Path, image: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    write_png(tmp_path / "outside.png", np.zeros((16, 16), np.uint8))
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    write_png(inside / "small.png", np.zeros((8, 8), np.uint8))
    (inside / "text.png").write_text("no image")
    bomb(inside / "bomb.png")
    forecasts(inside, image)
    assert evaluate(inside, monkeypatch=monkeypatch, protocol="change-mask") == 1
    from rsw_rewards.core.scores import ScoreTable

    row = ScoreTable.read(inside / "out" / "scores.parquet").frame.iloc[0]
    assert row["status"] == "invalid_output" and row["value"] == 0.0
    assert says in row["reason"]


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ("", "holds no samples"),
        ('{"id": "a", "task": "change_qa"}\n{broken', "s.jsonl:2: not valid JSON"),
        ('{"id": "a", "task": "change_qa"}\n{"id": "a", "task": "change_qa"}', "s.jsonl:2"),
        ('{"id": "a", "task": "change_qa", "images": ["../a.png"]}', "leaves every root"),
        ('{"id": "a", "task": "forecast"}', "needs samples of the task change_qa"),
    ],
)
def test_samples_that_cannot_be_used_stop_with_one_sentence(
    questions: Path, samples: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (questions / "s.jsonl").write_text(samples)
    (questions / "p.jsonl").write_text('{"id": "a", "text": "yes"}')
    assert evaluate(questions, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and len(error.strip().splitlines()) == 1


def test_problems_of_predictions_are_counted_in_the_summary(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['{"id": "q1", "text": "yes"}', '{"id": "q1", "text": "no"}', '{"id": "zzz", "text": "no"}', "{broken"]
    (questions / "p.jsonl").write_text("\n".join(lines))
    assert evaluate(questions, monkeypatch=monkeypatch) == 0
    summary = json.loads((questions / "out" / "summary.json").read_text())
    assert summary["problems"]["counts"] == {"duplicate": 1, "unknown_id": 1, "malformed": 1, "missing": 119}
    assert summary["status"]["exact_match"] == {
        "ok": 1, "invalid_output": 119, "not_applicable": 0, "error": 0, "timeout": 0,
    }  # fmt: skip
    assert summary["metrics"]["accuracy"]["value"] == pytest.approx(1 / 120)


def test_leaving_masks_out_cannot_raise_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.zeros((16, 16), np.uint8)
    truth[4:12, 4:12] = 255
    write_png(tmp_path / "m.png", truth)
    write_jsonl(tmp_path / "s.jsonl", [{"id": i, "task": "change_mask", "reference": {"mask": "m.png"}} for i in "ab"])
    write_jsonl(tmp_path / "p.jsonl", [{"id": "a", "mask": "m.png"}])
    assert evaluate(tmp_path, monkeypatch=monkeypatch, protocol="change-mask") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["recall"]["value"] == pytest.approx(0.5) and summary["metrics"]["f1"]["value"] < 0.5


def test_what_a_file_says_cannot_become_markup(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(questions / "p.jsonl", [{"id": "q1", "text": "<script>alert(1)</script>"}])
    assert evaluate(questions, monkeypatch=monkeypatch) == 1
    page = (questions / "out" / "report.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("protocols", "exakt-qa"), "did you mean 'exact-qa'"),
        (("verifiers", "no_such"), "no verifier is named"),
        (("train", "absent.yaml"), "absent.yaml"),
        (("data", "from", "no-such", ".", "--out", "x"), "no adapter is named"),
        (("data", "make", "scene-world", "--out", "x", "--split", "zzz"), "zzz"),
    ],
)
def test_a_wrong_name_is_one_sentence(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rsw(*arguments, monkeypatch=monkeypatch) == 2
    assert says in capsys.readouterr().err


def needing(sample: Sample, output: Output, *, word: str, limit: int = 1) -> float:
    return float(output.text == word)


def test_cards_and_definitions_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert rsw("verifiers", "--json", monkeypatch=monkeypatch) == 0
    names = json.loads(capsys.readouterr().out)
    for name in names:
        assert rsw("verifiers", name, "--json", monkeypatch=monkeypatch) == 0
        card = json.loads(capsys.readouterr().out)[name]
        assert all(card[key] for key in ("summary", "range", "transform", "source", "gaming", "tasks"))
    assert rsw("verifiers", f"{Path(__file__)}:needing", "--json", monkeypatch=monkeypatch) == 0
    settings = json.loads(capsys.readouterr().out)["needing"]["configuration"]
    assert settings == {"word": "(required)", "limit": "(default: 1)"}
    assert rsw("protocols", "tfsf", "--json", monkeypatch=monkeypatch) == 0


def test_the_list_of_adapters_names_every_data_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rsw("data", "adapters", "--json", monkeypatch=monkeypatch) == 0
    lines = json.loads(capsys.readouterr().out)
    for adapter, words in {
        "s2looking": "S2Looking", "whu-cd": "WHU building change", "clcd": "CLCD", "sysu-cd": "SYSU-CD", "dsifn": "DSIFN",
        "rsvqa-lr": "RSVQA's low resolution", "rsvqa-hr": "RSVQA's high resolution",
    }.items():  # fmt: skip
        assert words in lines[adapter] and list(lines.values()).count(lines[adapter]) == 1


def test_a_refusal_is_one_short_line_whatever_a_library_or_a_path_says(
    questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        str(InputError("a.parquet is no table: bad header\n  at byte 3\n\n"))
        == "a.parquet is no table: bad header at byte 3"
    )
    assert evaluate(questions, "--out", questions / ("yes. " * 20_000), monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith("rsw: ") and said.endswith(": File name too long\n") and "…" in said and len(said) < 1300


def test_a_summary_nested_without_end_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("protocol: exact-qa")
    (tmp_path / "summary.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not a finished run directory"):
        compare(tmp_path, tmp_path)


def test_notices_of_libraries_stay_out_of_a_command_and_its_workers() -> None:
    program = (
        "import os, warnings; from rsw_rewards.extras import quiet; quiet(); warnings.warn('old', FutureWarning);"
        "print(os.environ['TRANSFORMERS_VERBOSITY'], os.environ['PYTHONWARNINGS'])"
    )
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY")}
    for wanted, expected in (({}, "error"), ({"TRANSFORMERS_VERBOSITY": "info"}, "info")):
        ended = subprocess.run(
            [sys.executable, "-c", program], env={**plain, **wanted}, capture_output=True, text=True, check=True
        )
        assert ended.stderr == "" and ended.stdout.split()[0] == expected


@pytest.mark.parametrize("command", [["verifiers"], ["protocols"], ["verifiers", "exact_match"], ["protocols", "tfsf"]])
def test_lists_and_cards_show_no_python_values(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rsw", *command])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert not re.search(r"\{'|\['|<\w+\.|frozenset|\bNone\b|\bTrue\b|\bFalse\b", shown)
    if command == ["verifiers"]:
        assert max(map(len, shown.splitlines())) <= 110 and "\nchange_caption\n" in shown and "\n  bleu " in shown
