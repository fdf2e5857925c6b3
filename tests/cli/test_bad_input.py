"""Files from third parties, as bad as they come, through the command: a sentence and exit code 2, or a row that says why."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards import cli
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import write_jsonl

Rsw = Callable[..., tuple[int, str]]


@pytest.fixture
def rsw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rsw:
    """Run the command in this process: its exit code and what it said on standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["rsw", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        else:
            code = 0
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two questions and two change masks of 8 x 8 pixels, with good predictions for all of them."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:5] = 255
    for name in ("truth0.png", "truth1.png", "mask0.png", "mask1.png"):
        write_png(tmp_path / name, mask)
    write_jsonl(tmp_path / "qa.jsonl", [question("q0"), question("q1")])
    write_jsonl(tmp_path / "qa_p.jsonl", [{"id": "q0", "text": "yes"}, {"id": "q1", "text": "no"}])
    write_jsonl(
        tmp_path / "masks.jsonl",
        [{"id": f"m{i}", "task": "change_mask", "reference": {"mask": f"truth{i}.png"}} for i in (0, 1)],
    )
    write_jsonl(tmp_path / "masks_p.jsonl", [{"id": f"m{i}", "mask": f"mask{i}.png"} for i in (0, 1)])
    return tmp_path


def question(name: str) -> dict[str, Any]:
    return {"id": name, "task": "change_qa", "prompt": "Did it change?", "reference": {"answers": ["yes"]}}


def evaluate_qa(rsw: Rsw, folder: Path) -> tuple[int, str]:
    return rsw(
        "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / "out",
    )  # fmt: skip


def evaluate_masks(rsw: Rsw, folder: Path) -> tuple[int, str]:
    return rsw(
        "evaluate", "change-mask", "--samples", folder / "masks.jsonl", "--predictions", folder / "masks_p.jsonl",
        "--out", folder / "out",
    )  # fmt: skip


def row(folder: Path, sample: str) -> dict[str, Any]:
    frame = ScoreTable.read(folder / "out" / "scores.parquet").frame
    (found,) = frame[frame["sample"] == sample].to_dict("records")
    return {str(key): value for key, value in found.items()}


def problems(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads((folder / "out" / "summary.json").read_text())["problems"]["counts"]
    return counts


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def assert_one_sentence(code: int, said: str, *words: str) -> None:
    assert code == 2, said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1, said
    for word in words:
        assert word in said


def test_good_files_are_fine(rsw: Rsw, folder: Path) -> None:
    assert evaluate_qa(rsw, folder) == (0, "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "q2", "task": "change_qa"', "not valid JSON"),
        ('["q2"]', "must be a JSON object"),
        ('{"task": "change_qa"}', "'id'"),
        ('{"id": "q2", "task": "painting"}', "'task' is 'painting'"),
        ('{"id": "q0", "task": "change_qa"}', "already at "),
        ('{"id": "q2", "task": "change_qa", "reference": {"answers": "yes"}}', "reference.answers"),
        ('{"id": "q2", "task": "change_qa", "images": ["../secret.png"]}', "leaves every root"),
        ('{"id": "q2", "task": "change_qa", "images": ["/etc/secret.png"]}', "absolute"),
        ('{"id": "q2", "task": "change_qa", "images": [{"file": "a.png"}]}', "an image must be"),
    ],
)
def test_a_bad_samples_line_stops_with_its_place(rsw: Rsw, folder: Path, line: str, words: str) -> None:
    append(folder / "qa.jsonl", line)
    assert_one_sentence(*evaluate_qa(rsw, folder), f"{folder / 'qa.jsonl'}:3", words)
    assert not (folder / "out" / "summary.json").exists()


@pytest.mark.parametrize("name", ["qa.jsonl", "qa_p.jsonl"])
def test_files_that_are_missing_or_empty(rsw: Rsw, folder: Path, name: str) -> None:
    (folder / name).write_text("")
    assert_one_sentence(*evaluate_qa(rsw, folder), name)
    (folder / name).write_text("\n\n")
    assert_one_sentence(*evaluate_qa(rsw, folder), name)
    (folder / name).unlink()
    assert_one_sentence(*evaluate_qa(rsw, folder), name, "No such file")
    (folder / name).mkdir()
    assert_one_sentence(*evaluate_qa(rsw, folder), name)


def test_samples_of_which_no_verifier_can_say_anything(rsw: Rsw, folder: Path) -> None:
    code, said = rsw(
        "evaluate", "change-list", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / "out",
    )  # fmt: skip
    assert code == 1 and "nothing valid" in said and "Traceback" not in said
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["status"]["difference_list"]["not_applicable"] == 2


def test_samples_of_another_task(rsw: Rsw, folder: Path) -> None:
    said = rsw(
        "evaluate", "change-mask", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / "out",
    )  # fmt: skip
    assert_one_sentence(*said, "change_mask", "change_qa")


def test_no_usable_prediction_stops(rsw: Rsw, folder: Path) -> None:
    (folder / "qa_p.jsonl").write_text("{\n")
    assert_one_sentence(*evaluate_qa(rsw, folder), "no prediction that can be used", "qa_p.jsonl:1")
    write_jsonl(folder / "qa_p.jsonl", [{"id": "other", "text": "yes"}])
    assert_one_sentence(*evaluate_qa(rsw, folder), "not among the samples")
    (folder / "qa_p.jsonl").rename(folder / "qa_p.csv")
    table = rsw(
        "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.csv",
        "--out", folder / "out",
    )  # fmt: skip
    assert_one_sentence(*table, "is a table; make a predictions file of it with: rsw predictions from csv")


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ('{"id": "q0", "text": "n', "malformed", "not valid JSON"),
        ("7", "malformed", "must be an object"),
        ('{"id": "q0", "candidate": -1, "text": "no"}', "malformed", "whole number"),
        ('{"id": "q9", "text": "yes"}', "unknown_id", "'q9' is not among the samples"),
        ('{"id": "q0", "text": "no"}', "duplicate", "the first is kept"),
    ],
)
def test_a_bad_prediction_costs_no_other(rsw: Rsw, folder: Path, line: str, kind: str, words: str) -> None:
    append(folder / "qa_p.jsonl", line)
    code, said = evaluate_qa(rsw, folder)
    assert code == 0
    assert words in said
    assert f"{folder / 'qa_p.jsonl'}:3" in said
    assert problems(folder) == {kind: 1}
    assert row(folder, "q0")["status"] == "ok"
    assert row(folder, "q0")["value"] == 1.0


def test_a_field_of_the_wrong_kind_is_an_invalid_output(rsw: Rsw, folder: Path) -> None:
    write_jsonl(folder / "qa_p.jsonl", [{"id": "q0", "text": ["yes"]}, {"id": "q1", "text": "yes"}])
    assert evaluate_qa(rsw, folder)[0] == 0
    assert problems(folder) == {"wrong_field": 1}
    bad = row(folder, "q0")
    assert (bad["status"], bad["value"]) == ("invalid_output", 0.0)
    assert "'text' must be a string" in bad["reason"]


def test_a_missing_prediction_counts_as_wrong_or_is_left_out(rsw: Rsw, folder: Path) -> None:
    write_jsonl(folder / "qa_p.jsonl", [{"id": "q0", "text": "yes"}])
    code, said = evaluate_qa(rsw, folder)
    assert code == 0 and "1 of 2 samples have a prediction; 1 has none: 'q1'" in said
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["metrics"]["accuracy"]["value"] == 0.5
    assert "no prediction" in row(folder, "q1")["reason"]
    dropped = rsw(
        "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / "dropped", "--on-missing", "drop",
    )  # fmt: skip
    assert dropped[0] == 0
    summary = json.loads((folder / "dropped" / "summary.json").read_text())
    assert summary["metrics"]["accuracy"]["value"] == 1.0
    assert summary["metrics"]["accuracy"]["n"] == 1


def bomb(path: Path, side: int) -> None:
    """A PNG of a few hundred bytes that says it is ``side`` x ``side`` pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )  # fmt: skip


def _bomb(folder: Path) -> str:
    bomb(folder / "bad.png", 60_000)
    return "bad.png"


def _cut_short(folder: Path) -> str:
    (folder / "bad.png").write_bytes((folder / "truth0.png").read_bytes()[:50])
    return "bad.png"


def _text(folder: Path) -> str:
    (folder / "bad.png").write_text("not an image")
    return "bad.png"


def _empty(folder: Path) -> str:
    (folder / "bad.png").write_bytes(b"")
    return "bad.png"


def _other_size(folder: Path) -> str:
    write_png(folder / "bad.png", np.zeros((4, 6), np.uint8))
    return "bad.png"


def _zero_one(folder: Path) -> str:
    write_png(folder / "bad.png", np.eye(8, dtype=np.uint8))
    return "bad.png"


def _nan(folder: Path) -> str:
    np.save(folder / "bad.npy", np.full((8, 8), np.nan, np.float32))
    return "bad.npy"


def _nan_raster(folder: Path) -> str:
    import rasterio

    with rasterio.open(folder / "bad.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="float32") as raster:
        raster.write(np.full((1, 8, 8), np.nan, np.float32))
    return "bad.tif"


def _pickle(folder: Path) -> str:
    np.save(folder / "bad.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    return "bad.npy"


def _huge_array(folder: Path) -> str:
    with (folder / "bad.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (60_000, 60_000)})
        file.truncate(60_000 * 60_000 + 128)  # sparse: no disk is used
    return "bad.npy"


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_bomb, "declares more than the"),
        (_cut_short, "cannot be read"),
        (_text, "cannot be read"),
        (_empty, "cannot be read"),
        (_other_size, "6 x 4"),
        (_zero_one, "0 and 255"),
        (_nan, "of float32; a mask holds 0 and 255"),
        (_nan_raster, "of float32; a mask holds 0 and 255"),
        (_pickle, "cannot be read"),
        (_huge_array, "60000 x 60000 pixels"),
        (lambda folder: "nowhere.png", "does not exist"),
        (lambda folder: "../truth0.png", "leaves every root"),
        (lambda folder: "/etc/hostname", "absolute"),
        (lambda folder: "a\0b.png", "absolute"),
        (lambda folder: {"file": "mask0.png"}, "an image must be"),
    ],
)  # fmt: skip
def test_a_mask_that_cannot_be_used_is_an_invalid_output(
    rsw: Rsw, folder: Path, make: Callable[[Path], Any], words: str
) -> None:
    write_jsonl(folder / "masks_p.jsonl", [{"id": "m0", "mask": make(folder)}, {"id": "m1", "mask": "mask1.png"}])
    code, said = evaluate_masks(rsw, folder)
    assert code == 0, said
    bad = row(folder, "m0")
    assert (bad["status"], bad["value"]) == ("invalid_output", 0.0)
    assert words in bad["reason"]
    assert row(folder, "m1")["value"] == 1.0
    assert (folder / "out" / "report.html").exists()


def test_a_link_out_of_the_root_is_refused(rsw: Rsw, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "mask.png"
    outside.write_bytes((folder / "mask0.png").read_bytes())
    (folder / "link.png").symlink_to(outside)
    write_jsonl(folder / "masks_p.jsonl", [{"id": "m0", "mask": "link.png"}, {"id": "m1", "mask": "mask1.png"}])
    assert evaluate_masks(rsw, folder)[0] == 0
    assert "leaves every root" in row(folder, "m0")["reason"]


@pytest.mark.parametrize("make", [_bomb, _text, _other_size, lambda folder: "nowhere.png"])
def test_a_broken_truth_is_our_error_and_no_zero(rsw: Rsw, folder: Path, make: Callable[[Path], str]) -> None:
    good = {"id": "m1", "task": "change_mask", "reference": {"mask": "truth1.png"}}
    if make is _other_size:  # against the size of what counts, since the mask itself sets the size
        bad = {"mask": "truth0.png", "valid": make(folder)}
    else:
        bad = {"mask": make(folder)}
    write_jsonl(folder / "masks.jsonl", [{"id": "m0", "task": "change_mask", "reference": bad}, good])
    code, said = evaluate_masks(rsw, folder)
    assert code == 0, said
    failed = row(folder, "m0")
    assert failed["status"] == "error"
    assert failed["value"] is None or np.isnan(failed["value"])
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["metrics"]["f1"]["n"] == 1
    assert summary["metrics"]["f1"]["value"] == pytest.approx(1, abs=1e-6)


def test_what_files_say_is_escaped_in_the_report(rsw: Rsw, folder: Path) -> None:
    attack = "<script>alert(1)</script>"
    write_jsonl(folder / "qa.jsonl", [{**question("q0"), "prompt": attack, "kind": attack}, question("q1")])
    write_jsonl(folder / "qa_p.jsonl", [{"id": "q0", "text": attack}, {"id": "q1", "text": "yes"}])
    assert evaluate_qa(rsw, folder)[0] == 0
    page = (folder / "out" / "report.html").read_text()
    assert attack not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "exact-qq"), "did you mean 'exact-qa'"),
        (("evaluate", "exact-qa,nothing-such"), "'nothing-such'"),
    ],
)
def test_names_that_do_not_exist(rsw: Rsw, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    said = rsw(
        *arguments, "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl", "--out", folder / "out"
    )
    assert_one_sentence(*said, words)


def test_a_rubric_that_cannot_be_used(rsw: Rsw, folder: Path) -> None:
    rubric = folder / "rubric.yaml"

    def score() -> tuple[int, str]:
        return rsw(
            "score", rubric, "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
            "--out", folder / "out",
        )  # fmt: skip

    assert_one_sentence(*score(), "rubric.yaml")
    for content in ("components: [", "7", "components: []", "components: [{use: exact_match, weight: -1}]"):
        rubric.write_text(content)
        assert_one_sentence(*score(), "rubric.yaml")
    rubric.write_text("components: [{use: exact_matsch}]")
    assert_one_sentence(*score(), "exact_matsch")
    rubric.write_text("components: [{use: exact_match, config: {no_such: 1}}]")
    assert_one_sentence(*score(), "no_such")
    rubric.write_text("components: [{use: 'missing.py:reward'}]")
    assert_one_sentence(*score(), "missing.py")


def test_debug_shows_where_an_error_arose(rsw: Rsw, folder: Path) -> None:
    from rsw_rewards.errors import InputError

    (folder / "qa.jsonl").unlink()
    with pytest.raises(InputError):
        rsw("--debug", "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", "x", "--out", "y")


@pytest.mark.parametrize("out", ["qa.jsonl", "qa.jsonl/below"])
def test_an_output_folder_that_cannot_be_made(rsw: Rsw, folder: Path, out: str) -> None:
    said = rsw(
        "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / out,
    )  # fmt: skip
    assert_one_sentence(*said, out, "cannot be made")
    assert_one_sentence(*rsw("data", "make", "scene-world", "--n", 2, "--out", folder / out), out)


@pytest.mark.parametrize(("option", "words"), [(("--root", "nowhere"), "nowhere"), (("--device", "abacus"), "abacus")])
def test_options_that_name_nothing(rsw: Rsw, folder: Path, option: tuple[str, str], words: str) -> None:
    said = rsw(
        "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / "out", *option,
    )  # fmt: skip
    assert_one_sentence(*said, words)


def test_scores_of_other_predictions_are_not_taken_over(rsw: Rsw, folder: Path) -> None:
    write_jsonl(folder / "qa_p.jsonl", [{"id": "q0", "text": "no"}])
    assert evaluate_qa(rsw, folder)[0] == 0
    write_jsonl(folder / "qa_p.jsonl", [{"id": "q0", "text": "yes"}, {"id": "q1", "text": "yes"}])
    said = rsw(
        "evaluate", "exact-qa", "--samples", folder / "qa.jsonl", "--predictions", folder / "qa_p.jsonl",
        "--out", folder / "out", "--resume",
    )  # fmt: skip
    assert_one_sentence(*said, "other samples, truths or outputs")


def test_scores_of_pictures_that_were_drawn_anew_are_not_taken_over(rsw: Rsw, folder: Path) -> None:
    assert evaluate_masks(rsw, folder)[0] == 0
    again = (
        "evaluate", "change-mask", "--samples", folder / "masks.jsonl", "--predictions", folder / "masks_p.jsonl",
        "--out", folder / "out", "--resume",
    )  # fmt: skip
    assert rsw(*again)[0] == 0
    write_png(folder / "mask1.png", np.eye(8, dtype=np.uint8) * 255)
    assert_one_sentence(*rsw(*again), "other samples, truths or outputs")
