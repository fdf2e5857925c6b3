"""The page of a training, from a folder alone: what it shows, and that a planted cause of a plateau is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.files import write_json
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.core.verifier import Batch
from rsw_rewards.core.yaml_text import write_run_yaml
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.numbers import span, ticks
from rsw_rewards.evaluation.pages import gathered
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.rollouts.dumps import write_dump, write_outputs
from rsw_rewards.training.generation import commonest_share
from rsw_rewards.training.log_rows import append_row
from rsw_rewards.training.report.curves import Line, drawn, thinned
from rsw_rewards.training.report.findings import counted, findings, of_dump
from rsw_rewards.training.report.page import LivePage, write_report
from rsw_rewards.training.report.rollouts import groups, read_dump
from rsw_rewards.training.report.run_files import RunFiles, read_run

RUBRIC = {"components": [{"use": "exact_match", "weight": 1.0}]}
VOCABULARY = ["yes", "no"]


class Page(HTMLParser):
    """The text of a page, and a check that its elements are closed in order."""

    EMPTY = frozenset({"meta", "img", "input", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.said: list[str] = []
        self.sources: list[str] = []
        self.held: list[dict[str, Any]] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for key, value in attrs if key == "src"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.held += [json.loads(data)] if data.startswith("{") else []
        else:
            self.said.append(data)

    @property
    def images(self) -> list[str]:
        return self.sources + [image for held in self.held for image in held["images"]]

    @property
    def cards(self) -> list[dict[str, Any]]:
        return [card for held in self.held for card in held["cards"]]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def picture(level: int) -> ImageRef:
    return ImageRef(array=np.full((16, 16, 3), level, np.uint8))


def question(name: str, answer: str = "yes") -> Sample:
    return Sample(
        name, Task.CHANGE_QA, images=(picture(10), picture(90)), prompt=f"changed <{name}>?",
        reference={"answers": [answer], "vocabulary": VOCABULARY},
    )  # fmt: skip


def dump(folder: Path, samples: Sequence[Sample], outputs: Sequence[Output], step: int = 0) -> None:
    rubric = parse_rubric(RUBRIC, "test")
    with Scorer(rubric) as scorer:
        table = scorer.score(Batch.of(samples, outputs))
    found = rewards(table, rubric)
    given = dict(zip(zip(found["sample"], found["candidate"], strict=True), found["reward"], strict=True))
    values = [float(given[output.sample_id, output.candidate]) for output in outputs]
    (folder / "dumps").mkdir(parents=True, exist_ok=True)
    write_dump(folder / "dumps" / f"step_{step:06d}", samples, outputs, table, values, RUBRIC)


def run_folder(folder: Path, rows: Sequence[dict[str, Any]] = (), **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"method": "grpo", "seed": 3, "rubric": RUBRIC, "grpo": {"steps": 4, "group": 2, "scale_rewards": "group"}}
    write_run_yaml(folder / "config.yaml", {**plain, **config})
    for step, row in enumerate(rows, start=1):
        append_row(folder / "log.jsonl", {"step": step, **row})
    return folder


def step(reward: float = 0.5, flat: float = 0.0, **more: float) -> dict[str, Any]:
    """A healthy step, with changes."""
    return {
        "loss": 0.1, "reward": reward, "reward_std": 0.2, "reward_mean/change_qa": reward, "groups": 4.0,
        "groups_zero_std": flat, "grad_norm": 1.0, "learning_rate": 1e-5, "entropy": 1.0, "commonest_answer": 0.5,
        "reward/exact_match/mean": reward, "reward/exact_match/std": 0.2, "reward/exact_match/frac_zero_std": flat / 4,
        "reward/exact_match/invalid_rate": 0.0, "reward/exact_match/error_rate": 0.0, "cut_off": 0.0, **more,
    }  # fmt: skip


def said(folder: Path) -> str:
    return Page(write_report(folder)).text


def test_a_healthy_run_has_nothing_to_look_at(tmp_path: Path) -> None:
    text = said(run_folder(tmp_path / "healthy", [step(0.2), step(0.4), step(0.7), step(0.8)]))
    assert "Nothing stands out" in text and "step 4 of 4" in text
    for title in ("reward", "exact_match", "gradient norm", "entropy", "groups without spread", "cut off"):
        assert title in text


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([step(0.0, flat=4.0)] * 3, ["equal in 100% of the groups", "reward is 0 for every rollout", "gives 0 to every"]),
        ([step(0.5, learning_rate=0.0)] * 3, ["learning rate is 0 in every step"]),
        ([step(0.5, learning_rate=1e-15)] * 3, ["learning rate is 1e-15 at most"]),
        ([step(0.5, grad_norm=0.0)] * 3, ["gradient norm is 0 in every step"]),
        ([step(0.5, commonest_answer=0.96)] * 3, ["96% of the answers"]),
        ([step(0.0, **{"reward/exact_match/invalid_rate": 1.0})] * 3, ["100% of the outputs are invalid for 'exact_match'"]),
        ([step(0.5, cut_off=0.95)] * 3, ["95% of the rollouts are cut off"]),
        ([{**step(), "loss": None}] * 2, ["not a finite number in 2 of 2 steps"]),
        ([step(0.4 + 0.01 * (k % 2)) for k in range(20)], ["reward of change_qa does not change significantly"]),
    ],
)  # fmt: skip
def test_a_planted_plateau_is_named_by_the_page(rows: list[dict[str, Any]], words: list[str], tmp_path: Path) -> None:
    text = said(run_folder(tmp_path / "run", rows))
    first = text[text.index("Findings") : text.index("Means over the rollouts")]
    assert all(word in first for word in words), first


def test_the_answer_that_is_always_given_is_named_by_a_dump(tmp_path: Path) -> None:
    run_folder(tmp_path, [step(0.5)])
    samples = [question(f"q{k}", VOCABULARY[k % 2]) for k in range(4)]
    dump(tmp_path, samples, [Output(one.id, k, text="yes") for one in samples for k in range(2)])
    assert "100% of the answers in step 1 are 'yes'" in said(tmp_path)


def test_a_template_that_forbids_the_answer_is_named_by_its_reason(tmp_path: Path) -> None:
    run_folder(tmp_path, [step(0.0, flat=4.0)])
    samples = [question("a"), question("b"), question("c")]
    dump(tmp_path, samples, [Output(one.id, k, text="I cannot say") for one in samples for k in range(2)])
    text = said(tmp_path)
    assert "100% of the outputs in step 1 are invalid, most often:" in text
    assert "I cannot say" in text


def test_rollouts_are_shown_with_images_scores_rewards_and_advantages(tmp_path: Path) -> None:
    run_folder(tmp_path, [step()])
    future = Sample("f", Task.FORECAST, images=(picture(10),), prompt="next", reference={"images": [picture(80)]})
    outputs = [
        Output("a", 0, text="yes"), Output("a", 1, text="no"),
        Output("b", 0, text="yes and then it went", invalid="cut off after 4 tokens", finish_reason="length"),
        Output("b", 1, text="yes"),
    ]  # fmt: skip
    samples = [question("a"), question("b")]
    dump(tmp_path, samples, outputs)
    write_outputs(tmp_path / "heldout" / "outputs_before", [future], [Output("f", image=picture(20))])
    write_outputs(tmp_path / "heldout" / "outputs_after", [future], [Output("f", image=picture(70))])
    page = Page(write_report(tmp_path))
    further = Page(tmp_path / "report" / "step_000000-001.html")
    for one in (page, further):
        first, second = one.cards[:2]
        assert first["prompt"] == "changed <a>?" and [round(side["advantage"], 2) for side in first["sides"]] == [
            0.71,
            -0.71,
        ]
        assert (
            second["sides"][0]["answer"] == "yes and then it went"
            and second["sides"][0]["problem"] == "cut off after 4 tokens"
        )
        assert len(one.images) >= 2 and all(image.startswith("data:image/") for image in one.images)
    labels = [picture["label"] for picture in page.cards[-1]["pictures"]]
    assert "difference, before to after" in labels and "difference, after to truth" in labels
    stored = read_dump(tmp_path / "dumps" / "step_000000", read_run(tmp_path))
    first, second = groups(stored)
    assert (first["numbers"]["reward"], first["numbers"]["spread"], second["numbers"]["reward"]) == (0.5, 1.0, 0.5)
    assert len(gathered([first, second], 10**9)["cards"]) == 2
    written = (tmp_path / "report" / "step_000000-001.html").stat().st_mtime_ns
    write_report(tmp_path)
    assert (tmp_path / "report" / "step_000000-001.html").stat().st_mtime_ns == written


def test_a_dump_whose_input_is_missing_is_shown_without_it(tmp_path: Path) -> None:
    run_folder(tmp_path, [step()])
    broken = Sample(
        "a", Task.CHANGE_QA, images=(ImageRef(path=tmp_path / "nowhere.png"), picture(9)), prompt="changed?",
        reference={"answers": ["yes"], "vocabulary": VOCABULARY},
    )  # fmt: skip
    dump(tmp_path, [broken], [Output("a", k, text="yes") for k in range(2)])
    page = Page(write_report(tmp_path))
    assert page.cards[0]["pictures"][0]["problem"] == "there is no file nowhere.png" and len(page.images) == 1


def test_the_text_of_what_was_cut_off_comes_back_from_a_file_of_ours_alone(tmp_path: Path) -> None:
    write_outputs(tmp_path / "out", [question("a")], [Output("a", text="half a", invalid="cut off")])
    samples = load_samples(tmp_path / "out" / "samples.jsonl")
    (own,), _ = load_outputs(tmp_path / "out" / "predictions.jsonl", samples, own=True)
    (other,), _ = load_outputs(tmp_path / "out" / "predictions.jsonl", samples)
    assert (own.text, own.invalid, other.text, other.invalid) == ("half a", "cut off", None, "cut off")


def test_held_out_numbers_stand_beside_baselines(tmp_path: Path) -> None:
    run_folder(tmp_path, [step()])
    entry = {"value": 0.7, "ci95": [0.6, 0.8], "n_scenes": 9}
    change = {
        "verifier": "exact_match", "rewarded": True, "before": {**entry, "value": 0.667}, "after": entry,
        "difference": {**entry, "value": 0.033, "ci95": [-0.1, 0.1]}, "verdict": "=",
    }  # fmt: skip
    changes = {"greedy": {"accuracy": change}}
    (tmp_path / "heldout").mkdir()
    write_json(tmp_path / "heldout" / "baselines.json", {"majority": {"accuracy": 0.667}})
    write_json(tmp_path / "heldout.json", {"steps": 4, "changes": changes, "alarms": [{"step": 4, "words": "ALARM!"}]})
    text = said(tmp_path)
    assert "majority 0.667" in text and "+0.033 [-0.100, +0.100]" in text
    assert "ALARM!" in text and "No held-out number of greedy outputs changed by more than its 95 % interval" in text


def test_a_supervised_stage_has_a_page(tmp_path: Path) -> None:
    run_folder(tmp_path, method="supervised", steps=10)
    points = [{"step": 5, "loss_per_code": 2.0, "accuracy_greedy": 0.5}, {"step": 10, "loss_per_code": 1.0}]
    (tmp_path / "curve.json").write_text(json.dumps(points))
    text = said(tmp_path)
    assert "step 10 of 10" in text and "loss_per_code 2 → 1" in text


def test_a_folder_without_a_run_is_refused_and_stops_no_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a training run"):
        write_report(tmp_path)
    lines: list[str] = []
    page = LivePage(tmp_path, lines.append)
    page.refresh(now=True)
    page.refresh(now=True)
    assert len(lines) == 1 and "could not be written" in lines[0]


def test_a_live_page_is_not_written_before_it_is_time(tmp_path: Path) -> None:
    page = LivePage(run_folder(tmp_path, [step()]))
    page.refresh()
    assert not (tmp_path / "report.html").exists()
    page.refresh(now=True)
    assert (tmp_path / "report.html").is_file()


def test_curves_keep_their_points_on_the_plot() -> None:
    line = Line("a", [(k, float(k % 7)) for k in range(1, 2001)], [(0.0, 9.0)] * 2000)
    short = thinned(line)
    assert len(short.points) <= 300 and short.band is not None and len(short.band) == len(short.points)
    made = drawn("a", [line], [("near", 3.0), ("far", 1000.0)])
    assert made is not None
    places = [tuple(map(float, pair.split(","))) for pair in str(made.lines[0]["points"]).split()]
    assert all(made.left <= x <= made.right and 8 <= y <= made.height for x, y in places)
    assert made.marks[0]["y"] is not None and made.marks[1]["y"] is None
    small = drawn("a", [Line("a", [(1, 0.0), (2, 3.5e-15)])])
    assert small is not None and small.left > made.left, "long labels have room"
    assert drawn("none", [Line("a", [])]) is None
    assert span([1.0, 1.0]) == (0.5, 1.5) and span([0.0, 1.0])[0] == 0 and ticks(2.0, 2.0) == [2.0]


def test_findings_name_each_thing_once() -> None:
    run = RunFiles(Path("run"), {}, [{"step": k, "grad_norm": 0.0} for k in range(3)])
    assert [found.grade for found in findings(run)] == ["bad"]


def test_the_commonest_answer_is_counted_over_valid_texts() -> None:
    outputs = [Output("a", text=text) for text in ("yes", " yes", "no", "maybe")]
    assert commonest_share([*outputs, Output("a", text="yes", invalid="cut off"), Output("a", image=picture(1))]) == 0.5
    assert commonest_share([Output("a", image=picture(1))]) is None


def test_one_answer_is_remarkable_over_several_prompts_alone() -> None:
    few, more = (
        [Output(f"q{n}", candidate, text="yes") for n in range(count) for candidate in range(8)] for count in (1, 3)
    )
    assert not list(of_dump(counted(0, few, [])))
    assert [found.words for found in of_dump(counted(0, more, []))] == ["100% of the answers in step 1 are 'yes'."]


def test_the_report_of_an_evaluation_is_not_written_over(tmp_path: Path) -> None:
    samples = [Sample("q", Task.CHANGE_QA, (), "?", {"answers": ["yes"], "vocabulary": VOCABULARY})]
    rsw.evaluate("exact-qa", samples, ["yes"], tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    for read in (write_report, rsw.Run):
        with pytest.raises(InputError, match="is the folder of an evaluation"):
            read(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text() == page
