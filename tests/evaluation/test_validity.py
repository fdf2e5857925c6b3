"""A run in which nothing valid was scored: it says so with the most common reasons, gives no interval and exits 1."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards import cli
from rsw_rewards.core.metric import SumMetric
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.evaluation.inputs import Inputs
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.run import run_protocol
from rsw_rewards.evaluation.statistics import estimates, paired_difference
from rsw_rewards.evaluation.summary import LONGEST_REASON, kind_of, nothing_valid
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import write_jsonl

Row = tuple[str, str, str, str]
"""Sample, component, status, reason."""

SHARE = SumMetric(("share",), lambda sums: {"share": float(sums["right"] / sums["n"])}, (0.0, 1.0))


def table(rows: Sequence[Row], task: str = "change_qa") -> ScoreTable:
    sample, verifier, status, reason = (list(column) for column in zip(*rows, strict=True))
    columns: dict[str, Any] = {"sample": sample, "scene": sample, "group": sample, "verifier": verifier}
    value = [1.0 if name == "ok" else 0.0 if name == "invalid_output" else None for name in status]
    stats = [{"right": np.array(float(name == "ok"))} for name in status]
    return ScoreTable.from_columns(
        {**columns, "status": status, "reason": reason, "task": task, "candidate": 0, "value": value, "stats": stats}
    )


def questions(folder: Path, texts: Sequence[str | None], name: str = "s.jsonl") -> Path:
    records = [
        {"id": f"q{i}", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
        for i in range(len(texts))
    ]
    write_jsonl(folder / name, records)
    write_jsonl(folder / "p.jsonl", [{"id": f"q{i}", "text": text} for i, text in enumerate(texts) if text is not None])
    return folder


def masks(folder: Path) -> Path:
    """Six masks of 16 x 16 pixels; four predictions have 8 x 8, one 4 x 4, one is none."""
    for side in (4, 8, 16):
        write_png(folder / f"{side}.png", np.pad(np.full((2, 2), 255, np.uint8), ((0, side - 2), (0, side - 2))))
    write_jsonl(
        folder / "s.jsonl",
        [{"id": f"m{i}", "task": "change_mask", "reference": {"mask": "16.png"}} for i in range(6)],
    )
    files = ["8.png", "8.png", "8.png", "8.png", "absent.png", "4.png"]
    write_jsonl(folder / "p.jsonl", [{"id": f"m{i}", "mask": file} for i, file in enumerate(files)])
    return folder


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["rsw", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def command(folder: Path, verb: str, what: object, out: str = "out") -> list[object]:
    files = ["--samples", folder / "s.jsonl", "--predictions", folder / "p.jsonl", "--out", folder / out]
    return [verb, what, *files]


def intervals(summary: Any) -> list[Any]:
    """All intervals of a run, at whatever depth; its baselines have none."""
    if isinstance(summary, list):
        return [found for item in summary for found in intervals(item)]
    if not isinstance(summary, dict):
        return []
    own = [value for key, value in summary.items() if key.endswith("ci95") and value is not None]
    return own + [found for value in summary.values() for found in intervals(value)]


def test_masks_of_a_wrong_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command(masks(tmp_path), "evaluate", "change-mask"), monkeypatch=monkeypatch) == 1
    said = capsys.readouterr().err
    assert "nothing valid: none of the 6 outputs of the task change_mask is valid" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (found,) = summary["nothing_valid"]
    counts = [(reason["outputs"], reason["status"], reason["sample"]) for reason in found["reasons"]]
    assert (found["task"], found["outputs"]) == ("change_mask", 6)
    assert counts == [(5, "invalid_output", "m0"), (1, "invalid_output", "m4")]
    assert "8 x 8" in found["reasons"][0]["reason"] and "absent.png does not exist" in found["reasons"][1]["reason"]
    for reason in found["reasons"]:
        assert reason["reason"] in said and reason["reason"] in (tmp_path / "out" / "report.html").read_text()
    assert summary["metrics"]["f1"]["value"] == 0.0
    assert "no output was valid" in summary["metrics"]["f1"]["reason"]
    assert not intervals(summary)


def test_answers_that_cannot_be_read_in_a_terminal_without_colours(tmp_path: Path) -> None:
    questions(tmp_path, [f"the {i} images [/b] show it" for i in range(8)])
    arguments = map(str, command(tmp_path, "evaluate", "exact-qa"))
    ended = subprocess.run(
        [sys.executable, "-c", "from rsw_rewards.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "\x1b" not in ended.stderr + ended.stdout
    lines = ended.stderr.splitlines()
    assert lines[-2] == "nothing valid: none of the 8 outputs of the task change_qa is valid; the most common reasons:"
    assert lines[-1].startswith("8 invalid_output, the first q0: 'the 0 images [/b] show it' is not one of the 2")
    assert " .. " not in ended.stdout  # no interval in the table


def test_json_carries_the_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(questions(tmp_path, ["maybe", "dunno"]), "evaluate", "exact-qa")
    assert run(*arguments, "--json", monkeypatch=monkeypatch) == 1
    assert json.loads(capsys.readouterr().out)["exact-qa"]["nothing_valid"][0]["reasons"][0]["outputs"] == 2


def test_captions_without_a_word_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RSW_WORD_MAP", raising=False)
    texts = ["a road", "a house", "no change"]
    records = [
        {"id": f"c{i}", "task": "change_caption", "reference": {"captions": [text], "changed": i < 2}}
        for i, text in enumerate(texts)
    ]
    write_jsonl(tmp_path / "s.jsonl", records)
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"c{i}", "text": text} for i, text in enumerate(texts)])
    arguments = command(tmp_path, "evaluate", "levir-cc-ids,levir-cc-words")
    assert run(*arguments, "--set", "captions.meteor=false", monkeypatch=monkeypatch) == 1  # one of two has nothing
    said = capsys.readouterr().err
    assert said.count("nothing valid") == 1 and "3 error, the first c0" in said and "RSW_WORD_MAP" in said
    ids, words = (
        json.loads((tmp_path / "out" / f"levir-cc-{tokens}" / "summary.json").read_text())
        for tokens in ("ids", "words")
    )
    assert not intervals(ids) and intervals(words)
    assert ids["metrics"]["bleu4"]["value"] is None and words["nothing_valid"] == []


def test_no_sample_that_is_asked_has_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(questions(tmp_path, [None] * 4 + ["yes"]), "evaluate", "exact-qa")
    assert run(*arguments, "--limit", 4, monkeypatch=monkeypatch) == 1
    assert "4 invalid_output, the first q0: no prediction for this sample" in capsys.readouterr().err
    arguments[-1] = tmp_path / "dropped"
    assert run(*arguments, "--limit", 4, "--on-missing", "drop", monkeypatch=monkeypatch) == 1
    assert "there is no output to score" in capsys.readouterr().err
    assert (
        run(*command(tmp_path, "evaluate", "exact-qa", "all"), monkeypatch=monkeypatch) == 0
    )  # one valid output of five


def test_several_candidates_of_which_none_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions(tmp_path, ["maybe"] * 4)
    write_jsonl(
        tmp_path / "p.jsonl", [{"id": f"q{i}", "candidate": c, "text": "?"} for i in range(4) for c in range(2)]
    )
    assert run(*command(tmp_path, "evaluate", "exact-qa"), monkeypatch=monkeypatch) == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["nothing_valid"][0]["outputs"] == 8
    assert "no output was valid" in summary["candidates"]["best@2"]["reason"] and not intervals(summary)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_rewards_of_outputs_of_which_none_is_valid(
    tmp_path: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    components = [{"use": "exact_match", "weight": 0.9}, {"use": "answer_format", "weight": 0.1}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"components": components}))
    arguments = command(questions(tmp_path, ["maybe"] * 3), "score", tmp_path / "r.yaml")
    assert run(*arguments, *more, monkeypatch=monkeypatch) == 1  # well-formed, but no answer
    said = capsys.readouterr()
    if more:
        assert json.loads(said.out)["nothing_valid"][0]["reasons"][0]["outputs"] == 3
    else:
        assert (
            "nothing valid: none of the 3 outputs" in said.err and "3 invalid_output, the first q0: 'maybe'" in said.err
        )
    components[0]["weight"] = 0.0  # only measured: the rewards rest on the other
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"components": components}))
    assert run(*arguments, *more, monkeypatch=monkeypatch) == 0


def test_an_evaluation_without_outputs(tmp_path: Path) -> None:
    sample = Sample("a", Task.CHANGE_QA, (), reference={"answers": ["yes"]})
    summary = run_protocol(PROTOCOLS.find("exact-qa"), Inputs([sample], [])).summary
    assert summary["nothing_valid"] == [{"task": "", "outputs": 0, "reasons": []}]


def test_an_output_is_valid_if_it_is_scored_and_no_component_calls_it_invalid() -> None:
    scored, refused = ("a", "one", "ok", ""), ("a", "two", "invalid_output", "no box")
    failed, apart = ("a", "two", "error", "the server is away"), ("a", "two", "not_applicable", "no question of boxes")
    assert nothing_valid(table([scored, refused]))
    assert not nothing_valid(table([scored, failed]))
    assert not nothing_valid(table([scored, apart]))
    assert not nothing_valid(table([scored, refused]), ["one"])
    (found,) = nothing_valid(table([("a", "one", "not_applicable", "of no use"), failed]))
    assert [reason["reason"] for reason in found["reasons"]] == ["the server is away"]


def test_a_reason_that_several_components_give_counts_once_an_output() -> None:
    rows = [(f"s{i}", name, "error", f"lost: {i}") for i in range(4) for name in ("one", "two")]
    (found,) = nothing_valid(table(rows))
    assert found["outputs"] == 4
    assert found["reasons"] == [{"outputs": 4, "status": "error", "sample": "s0", "reason": "lost: 0"}]


def test_the_three_commonest_reasons_and_each_task_for_itself() -> None:
    words = ["rare"] + ["two"] * 2 + ["three"] * 3 + ["four"] * 4
    bad = table([(str(i), "one", "invalid_output", word) for i, word in enumerate(words)])
    good = table([("x", "one", "ok", "")], task="forecast")
    (found,) = nothing_valid(ScoreTable.concat([good, bad]))
    assert found["task"] == "change_qa"
    assert [(reason["outputs"], reason["reason"]) for reason in found["reasons"]] == [
        (4, "four"),
        (3, "three"),
        (2, "two"),
    ]


@pytest.mark.parametrize(
    "pair",
    [
        ("the image masks/a.png does not exist", "the image /data/of mine/b7.tif does not exist"),
        ("a.png cannot be read as an image", "west.png cannot be read as an image"),
        ("the mask has 32 x 32 pixels, the true one 64 x 64", "the mask has 8 x 8 pixels, the true one 1,024 x 64"),
        ("'it\\'s a \"road\"' is not one of the 2 allowed answers", '"it\'s" is not one of the 19 allowed answers'),
        ("hedged: 'a or b' names 2 answers (a, b)", "hedged: 'b, c, d' names 3 answers (b, c, d)"),
        ("sample 'a' has no true mask", "sample 'of two words' has no true mask"),
        ("it holds the values 0, 1 and 255", "it holds the values 0 and 100"),
    ],
)
def test_reasons_that_differ_in_names_and_numbers_are_of_one_kind(pair: tuple[str, str]) -> None:
    assert kind_of(pair[0]) == kind_of(pair[1])


def test_reasons_that_say_other_things_are_of_different_kinds() -> None:
    reasons = ["no prediction for this sample", "no mask in the output", "the image a.png does not exist"]
    reasons += ["the image a.png cannot be read", "the answer is empty", "the text was cut off at the length limit"]
    assert len({kind_of(reason) for reason in reasons}) == len(reasons)


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_quoted_never_tells_kinds_apart(one: str, other: str) -> None:
    assert kind_of(f"{one!r} is no answer") == kind_of(f"{other!r} is no answer")


def test_a_long_reason_is_cut_to_one_line() -> None:
    (found,) = nothing_valid(table([("a", "one", "error", "so\n" * 200)]))
    shown = found["reasons"][0]["reason"]
    assert "\n" not in shown and len(shown) == LONGEST_REASON


def test_no_interval_over_no_valid_output_but_over_a_collapse() -> None:
    good, bad = (table([(f"s{i}", "one", status, "") for i in range(30)]) for status in ("ok", "invalid_output"))
    mixed = ScoreTable(pd.concat([good.frame[:15], bad.frame[15:]], ignore_index=True))
    none = estimates(SHARE, bad)["share"]
    assert (none.value, none.ci95) == (0.0, None) and "no output was valid" in none.reason
    assert estimates(SHARE, mixed)["share"].ci95 is not None
    fallen = paired_difference(SHARE, mixed, bad)["share"]
    assert fallen.ci95 is not None and fallen.ci95[1] < 0 and fallen.p_value is not None
    both = paired_difference(SHARE, bad, bad)["share"]
    assert (both.value, both.ci95, both.p_value) == (0.0, None, None) and "no output was valid" in both.reason
