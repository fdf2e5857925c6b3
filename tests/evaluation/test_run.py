"""Evaluations from files and from a policy: killed and resumed, with several candidates, beside their baselines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.fields import MAX_CANDIDATES
from rsw_rewards.core.records import Output, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch
from rsw_rewards.data.scene_world import write_scene_world
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.inputs import level
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.warnings import Evidence, failed_scores
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_outputs, load_samples, write_jsonl
from tests.scoring import score_in_process

FORECASTS = Protocol(
    name="forecasts",
    title="Forecasts by what needs no weights",
    task=Task.FORECAST,
    source="a part of tfsf",
    components=({"use": "gain_over_copy"}, {"use": "ssim"}, {"use": "change_consistency"}),
    headline=("gain_over_copy", "ssim", "fulfilment", "preservation"),
    baselines=("copy_before", "blurred_copy", "oracle"),
)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """40 questions of 20 scenes in ``s.jsonl``, 30 right answers in ``p.jsonl``."""
    records = [
        {
            "id": f"q{i}",
            "task": "change_qa",
            "scene": f"s{i // 2}",
            "reference": {"answers": ["no" if i % 4 else "yes"]},
        }
        for i in range(40)
    ]
    write_jsonl(tmp_path / "s.jsonl", records)
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{i}", "text": "no"} for i in range(40)])
    return tmp_path


def run(folder: Path, out: str = "out", **options: Any) -> Evaluation:
    return rsw.evaluate("exact-qa", folder / "s.jsonl", folder / "p.jsonl", folder / out, **options)


KILLED = """
import os, signal, sys
from pathlib import Path
import rsw_rewards as rsw
from rsw_rewards.evaluation import run

run.CHUNK = 8
folder = Path(sys.argv[1])

def progress(what, done, total):
    if done >= 24:
        os.kill(os.getpid(), signal.SIGKILL)

rsw.evaluate("exact-qa", folder / "s.jsonl", folder / "p.jsonl", folder / "killed", progress=progress)
"""


def test_a_killed_evaluation_is_taken_up_where_it_ended(questions: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(questions)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (questions / "killed" / "summary.json").exists()
    (questions / "killed" / "scores.parts" / ".part-00009.parquet.123").write_bytes(b"half a pa")
    steps: list[int] = []
    resumed = run(questions, "killed", resume=True, progress=lambda what, done, total: steps.append(total))
    assert steps[0] == 40 - 24  # what was on disk is not scored again
    whole = run(questions)
    assert resumed.summary == whole.summary
    rows = [ScoreTable.read(questions / out / "scores.parquet").frame for out in ("out", "killed")]
    first, second = (frame.sort_values("sample")[["sample", "value", "status"]].values.tolist() for frame in rows)
    assert first == second
    assert not (questions / "killed" / "scores.parts").exists()


TERMINATED = """
import os, signal, sys
from rsw_rewards.cli import main
from rsw_rewards.evaluation import run

if sys.argv.pop(1) == "ray":
    import ray
run.CHUNK = 8
append = run.RunDirectory.append

def append_and_be_ended(self, table):
    append(self, table)
    os.kill(os.getpid(), signal.SIGTERM)

run.RunDirectory.append = append_and_be_ended
main()
"""


@pytest.mark.parametrize("also", ["", "ray"])
def test_sigterm_ends_in_a_sentence_and_loses_nothing(questions: Path, also: str) -> None:
    command = ["evaluate", "exact-qa", *("--samples", "s.jsonl", "--predictions", "p.jsonl", "--out", "ended")]
    ended = subprocess.run([sys.executable, "-c", TERMINATED, also, *command], cwd=questions, capture_output=True, text=True, check=False)  # fmt: skip
    assert ended.returncode == 143 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == "rsw: ended by SIGTERM; go on with --resume where a run was cut off"
    steps: list[int] = []
    resumed = run(questions, "ended", resume=True, progress=lambda what, done, total: steps.append(total))
    assert steps[0] == 40 - 8 and resumed.summary["status"]["exact_match"]["ok"] == 40


def test_several_candidates_give_mean_and_best(questions: Path) -> None:
    predictions = [{"id": f"q{i}", "candidate": c, "text": ("no", "yes")[c]} for i in range(40) for c in (0, 1)]
    write_jsonl(questions / "p.jsonl", predictions)
    summary = run(questions).summary
    assert summary["metrics"]["accuracy"]["value"] == 0.5
    best = summary["candidates"].pop("best@2")
    assert summary["candidates"] == {"k": 2, "metrics_are": "mean@2", "value_component": "exact_match"}
    assert best["value"] == 1.0 and best["n"] == 40 and best["n_scenes"] == 20
    assert best["ci95"] == pytest.approx([20 / (20 + 1.959964**2), 1.0])  # none of 20 scenes failed


def test_a_sample_left_out_costs_as_much_as_any_other(questions: Path) -> None:
    right = {i: "no" if i % 4 else "yes" for i in range(40)}
    predictions = [{"id": f"q{i}", "candidate": c, "text": right[i]} for i in range(30) for c in range(4)]
    write_jsonl(questions / "p.jsonl", predictions)
    assert run(questions).summary["metrics"]["accuracy"]["value"] == 0.75
    dropped = run(questions, "dropped", on_missing="drop").summary
    assert dropped["metrics"]["accuracy"]["value"] == 1.0


def test_what_is_dropped_is_left_out_of_the_header_the_baselines_and_the_numbers_alike(questions: Path) -> None:
    write_jsonl(
        questions / "p.jsonl", [{"id": f"q{i}", "text": "no"} for i in range(40) if i % 4]
    )  # all that are right
    found = run(questions, on_missing="drop")
    summary = found.summary
    assert summary["n"] == len(found.samples) == summary["metrics"]["accuracy"]["n"] == 30
    assert summary["n_scenes"] == summary["metrics"]["accuracy"]["n_scenes"]
    assert summary["left_out"]["samples_without_output"] == 10
    assert {row["n"] for row in summary["baselines"].values()} == {30}
    assert summary["baselines"]["majority"]["metrics"]["accuracy"]["value"] == 1.0
    assert any(words.startswith("30 of 40 samples have a prediction; 10 have none") for words in summary["warnings"])
    assert run(questions, "whole").summary["left_out"]["samples_without_output"] == 0


def test_predictions_after_the_limit_are_no_problem(questions: Path) -> None:
    write_jsonl(questions / "p.jsonl", [{"id": f"q{i}", "text": "no"} for i in range(1, 30)])
    result = run(questions, limit=10)
    assert [(problem.kind, problem.where) for problem in result.problems] == [("missing", "q0")]
    assert result.summary["n"] == 10
    assert result.summary["metrics"]["accuracy"]["n"] == 10


def test_levelling_adds_invalid_candidates_with_numbers_of_their_own() -> None:
    outputs = [
        Output("a", 0, text="x"),
        Output("a", 1, text="y"),
        Output("b", 5, text="z"),
        Output("c", invalid="none"),
    ]
    levelled, problems = level(outputs)
    assert [(o.sample_id, o.candidate, o.invalid is None) for o in levelled] == [
        ("a", 0, True), ("a", 1, True), ("b", 5, True), ("b", 6, False), ("c", 0, False), ("c", 1, False),
    ]  # fmt: skip
    assert not problems and level([]) == ([], [])
    last = MAX_CANDIDATES - 1
    outputs = [Output("a", last, text="x"), Output("b", 0, text="x"), Output("b", 1, text="x")]
    assert [(o.sample_id, o.candidate) for o in level(outputs)[0]] == [("a", last), ("a", 0), ("b", 0), ("b", 1)]


def test_candidates_far_beyond_those_of_other_samples_are_left_out_and_named() -> None:
    names = [f"q{n}" for n in range(200)]
    many = [Output("q7", n, text="x") for n in range(1000)]
    outputs = [o for name in names for o in (many if name == "q7" else [Output(name, text="x")])]
    levelled, problems = level(outputs)
    assert [(o.sample_id, o.candidate) for o in levelled] == [(name, 0) for name in names]
    assert [str(problem) for problem in problems] == [
        "q7: 999 of its 1000 candidates are left out, since other samples have 1 or fewer"
    ]
    silent = [Output("q0", n, text="x") for n in range(1000)] + [Output(name, invalid="none") for name in names[1:]]
    assert len(level(silent)[0]) == 200
    half = [Output(name, n, text="x") for name in names for n in range(8 if name < "q5" else 1)]
    assert len(level(half)[0]) == 8 * 200 and not level(half)[1]


def test_samples_of_other_tasks_are_left_out_and_not_called_missing() -> None:
    truth = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    asked = [{"id": f"q{n}", "task": "change_qa", "reference": truth} for n in range(3)]
    others = [{"id": f"c{n}", "task": "change_caption", "reference": {"captions": ["a house"]}} for n in range(4)]
    many = [{"id": "c0", "candidate": n, "text": "a house"} for n in range(3)]
    found = rsw.evaluate(
        "exact-qa", [*asked, *others], [{"id": "q0", "text": "yes"}, {"id": "q1", "text": "yes"}, *many]
    )
    assert [(problem.kind, problem.where) for problem in found.problems] == [("missing", "q2")]
    assert found.summary["left_out"]["samples_of_other_tasks"] == 4
    assert "2 of 3 samples have a prediction; 1 has none: 'q2'" in found.summary["warnings"]
    assert len(found.outputs) == 3  # candidates of another task count for nothing here


def test_images_that_are_not_there_are_said_once(tmp_path: Path) -> None:
    write_png(tmp_path / "here.png", np.zeros((4, 4, 3), np.uint8))
    truth = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    asked = [
        {"id": f"q{n}", "task": "change_qa", "images": [str(tmp_path / name)], "reference": truth}
        for n, name in enumerate(["here.png", "a.png", "b.png", "b.png"])
    ]
    found = rsw.evaluate("exact-qa", asked, ["yes"] * 4)
    (told,) = (warning for warning in found.summary["warnings"] if "--root" in warning)
    assert told.startswith("2 of 3 images of the samples are missing, such as ")


def test_baselines_stand_where_they_must(questions: Path) -> None:
    beside = run(questions).summary["baselines"]
    values = {name: row["metrics"]["accuracy"]["value"] for name, row in beside.items()}
    assert values == {"majority": 0.75, "constant": 0.75, "blind": 0.75, "oracle": 1.0}


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forecasts")
    write_scene_world(folder, 12, 3, tasks=("forecast",))
    return folder


@pytest.fixture(scope="module")
def copied(forecasts: Path) -> Evaluation:
    """A policy that copies its input, run and scored."""
    return rsw.evaluate(FORECASTS, forecasts / "samples.jsonl", policy="copy_before", out=forecasts / "copied")


def test_a_policy_is_run_and_its_outputs_kept(forecasts: Path, copied: Evaluation) -> None:
    values = {key: entry["value"] for key, entry in copied.summary["metrics"].items()}
    assert values["gain_over_copy"] == pytest.approx(0.0, abs=1e-12)
    assert values["preservation"] == 1.0
    beside = copied.summary["baselines"]
    assert beside["copy_before"]["metrics"]["ssim"]["value"] == values["ssim"]  # one code path
    assert beside["blurred_copy"]["metrics"]["gain_over_copy"]["value"] < 0
    assert beside["oracle"]["metrics"]["gain_over_copy"]["value"] == 1.0
    samples = load_samples(forecasts / "samples.jsonl")
    kept, problems = load_outputs(forecasts / "copied" / "outputs" / "predictions.jsonl", samples)
    assert len(kept) == 12 and not problems
    assert all(output.image is not None for output in kept)


def test_outputs_that_are_kept_are_not_made_again(
    forecasts: Path, copied: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsw_rewards.rollouts.baselines import CopyBefore

    made: list[str] = []
    original = CopyBefore.answer
    monkeypatch.setattr(CopyBefore, "answer", lambda self, sample: (made.append(sample.id), original(self, sample))[1])
    asked, out = forecasts / "samples.jsonl", forecasts / "copied"
    again = rsw.evaluate(FORECASTS, asked, policy="copy_before", out=out, resume=True)
    assert len(made) == 12  # by the baseline of that name alone
    # What had to be decoded is another matter than what came out.
    assert {**again.summary, "features": {}} == {**copied.summary, "features": {}}


def test_outputs_that_are_kept_answer_no_other_prompt(forecasts: Path, copied: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(
        forecasts / "copied" / "outputs", tmp_path / "outputs"
    )  # as a kill before the first score leaves it
    samples = [replace(sample, prompt="Another one.") for sample in load_samples(forecasts / "samples.jsonl")]
    with pytest.raises(InputError, match=f"answer other samples: the sample '{samples[0].id}' has another prompt"):
        rsw.evaluate(FORECASTS, samples, policy="copy_before", out=tmp_path, resume=True)


class _Page(HTMLParser):
    """What a page asks for, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.images: list[str] = []

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and data.startswith("{"):
            self.images += json.loads(data).get("images", [])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_holds_its_pictures_and_needs_no_network(forecasts: Path, copied: Evaluation) -> None:
    text = (forecasts / "copied" / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert len(page.images) >= 12 * 2  # input and truth of every sample; a copy is its input
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert all(address.startswith("#") for address in page.addresses)
    for words in ("copy_before", "gain_over_copy", "true future", "forecast"):
        assert words in text


def test_rewards_of_a_file_are_those_of_the_scorer(questions: Path) -> None:
    components = [{"use": "exact_match", "weight": 3.0}, {"use": "answer_format"}]
    rubric = parse_rubric({"components": components}, "rubric")
    samples = load_samples(questions / "s.jsonl")
    predictions = [
        {"id": f"q{i}", "candidate": c, "text": ("no", "<answer>yes</answer>", "no or yes")[(i + c) % 3]}
        for i in range(39)  # the last one is missing
        for c in range(2)
    ]
    write_jsonl(questions / "p.jsonl", predictions)
    found = rsw.rewards(rubric, questions / "s.jsonl", questions / "p.jsonl", questions / "out")
    table, records, problems = found.table, found.records, found.problems
    outputs, _ = load_outputs(questions / "p.jsonl", samples)
    trained = rewards(score_in_process(rubric, Batch.of(samples, outputs)), rubric)
    theirs = {(row["sample"], row["candidate"]): row["reward"] for row in trained.to_dict("records")}
    ours = {(record["id"], record["candidate"]): record["reward"] for record in records}
    assert ours == theirs
    assert ours["q39", 0] == 0.0
    assert [problem.kind for problem in problems] == ["missing"]
    stored = [json.loads(line) for line in (questions / "out" / "rewards.jsonl").read_text().splitlines()]
    assert stored == records
    assert np.isfinite(list(ours.values())).all() and len(set(ours.values())) > 1
    assert len(ScoreTable.read(questions / "out" / "scores.parquet")) == len(table)


def test_scores_that_failed_are_said_beside_the_numbers_they_are_missing_from() -> None:
    status = {"a": {"ok": 8, "invalid_output": 1, "not_applicable": 3, "error": 1, "timeout": 0}}
    (warning,) = failed_scores(Evidence([], summary={"status": status}))
    assert "1 of 10" in warning and "--resume" in warning
    status["a"]["error"] = 0
    assert not list(failed_scores(Evidence([], summary={"status": status})))


@pytest.mark.parametrize("change", ["mask", "scene", "kind", "prompt", "image"])
def test_a_run_is_not_resumed_over_another_truth(tmp_path: Path, change: str) -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[1, :4] = 255
    record = {
        "id": "a", "task": "change_mask", "scene": "s", "kind": "k", "images": ["i.png", "i.png"], "reference": {"mask": "m.png"},
    }  # fmt: skip

    def write(name: str, pixels: np.ndarray, moment: int) -> None:
        Image.fromarray(pixels).save(tmp_path / name, compress_level=0)  # so that all have one size
        os.utime(tmp_path / name, (moment, moment))

    write("m.png", masks[1], 1)
    write("i.png", masks[0], 1)
    write_jsonl(tmp_path / "p.jsonl", [{"id": "a", "mask": "m.png"}])
    write_jsonl(tmp_path / "s.jsonl", [record])
    files = (tmp_path / "s.jsonl", tmp_path / "p.jsonl", tmp_path / "out")
    rsw.evaluate("change-mask", *files)
    write("i.png", masks[0], 2)  # written again, but the same
    rsw.evaluate("change-mask", *files, resume=True)
    if change in ("mask", "image"):
        write({"mask": "m.png", "image": "i.png"}[change], 255 - masks[1], 1)
    else:
        write_jsonl(tmp_path / "s.jsonl", [{**record, change: "another"}])
    words = {"mask": "another truth", "image": "other images"}.get(change, f"another {change}")
    with pytest.raises(InputError, match=f"other samples, truths or outputs .*: the sample 'a' has {words}"):
        rsw.evaluate("change-mask", *files, resume=True)
