"""Answers of a model that gets stuck or makes things up: invalid, at once, and never left out of the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards import Batch, Component, Output, Rubric, Sample
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.box_texts import BoxText, read_boxes
from tests.scoring import score_in_process

BOXES = {"boxes": [[1, 1, 5, 5]]}


def status(use: str, config: dict[str, Any], text: str, task: str, reference: dict[str, Any]) -> tuple[str, str]:
    """Status and reason of one output."""
    before = rsw.image(np.zeros((8, 8, 3), np.uint8))
    sample = Sample("s", task, images=(before,), reference=reference)
    rubric = Rubric(components=(Component(use=use, config=config, weight=0.0),))
    (row,) = score_in_process(rubric, Batch.of([sample], [Output("s", text=text)])).frame.to_dict("records")
    return str(row["status"]), str(row["reason"])


@pytest.mark.parametrize("form", ["earthdial", "teochat", "qwen2.5-vl", "geochat", "qwen2-vl"])
@pytest.mark.parametrize("text", ["[" + "100, " * 3000 + "x", "(1,2),(" * 2000, "{" * 5000])
def test_boxes_are_looked_for_without_trying_every_way(form: BoxText, text: str) -> None:
    with pytest.raises(Unreadable):  # within seconds, and not within years
        read_boxes(text, form, (1.0, 1.0))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '[{"bbox_2d": [0, 0, 1, ' + "9" * 400 + '], "label": "a"}]',
        '[{"bbox_2d": [0, 0, 1, 1], "label": "a", "score": ' + "9" * 400 + "}]",
    ],
)
def test_detections_that_are_none_are_invalid(text: str) -> None:
    pytest.importorskip("pycocotools", reason="needs pycocotools, which is not installed")
    found, _ = status("detection_ap", {}, text, "grounding", {**BOXES, "labels": ["a"]})
    assert found == "invalid_output"


def test_a_number_without_end_is_no_box() -> None:
    found, reason = status("published_box", {"reading": "vrsbench"}, "1" * 5000 + " 2 3 4", "grounding", BOXES)
    assert found == "invalid_output" and "more than 100 digits" in reason


def test_words_of_a_truth_that_are_no_box_leave_its_boxes_in_place() -> None:
    config, text = {"reading": "vrsbench"}, "12 12 62 62"
    for told in ({}, {"text": "the 2 left ships"}):
        assert status("published_box", config, text, "grounding", {**BOXES, **told})[0] == "ok"


def test_a_reading_that_knows_one_letter_refuses_a_truth_of_two() -> None:
    truth = {"answers": ["A, C"], "choices": ["a road", "a pond", "a lake"]}
    found, reason = status("published_answer", {"reading": "choice"}, "A", "change_qa", truth)
    assert found == "error" and "knows one right letter, and the truth is 'AC'" in reason
    assert status("published_answer", {"reading": "xlrs"}, "AC", "change_qa", truth)[0] == "ok"


def test_an_empty_answer_is_not_the_answer_that_nothing_is_there() -> None:
    with pytest.raises(Unreadable):
        read_boxes("", "qwen2.5-vl", (1.0, 1.0))
    assert read_boxes("[]", "qwen2.5-vl", (1.0, 1.0)) == []


def test_scores_of_what_is_only_measured_stand_on_their_cards() -> None:
    samples = [{"id": "q", "task": "change_qa", "reference": {"answers": ["A"], "choices": ["a road", "a pond"]}}]
    found = rsw.evaluate("mme-realworld", samples, ["B"])
    from rsw_rewards.evaluation.pages import cards_of

    (card,) = cards_of(found.table.frame, found.samples, found.outputs)
    (shown,) = card.content["scores"]
    assert shown["raw"] == {"correct": 0.0}


def test_mcnemar_counts_the_answers_that_the_accuracy_counts() -> None:
    kinds = ["presence", "comp", "rural_urban", "count", "count", "count"]
    samples = [
        {"id": f"q{number}", "task": "change_qa", "kind": kind, "reference": {"answers": ["yes"]}}
        for number, kind in enumerate(kinds)
    ]
    runs = [rsw.evaluate("rsvqa-three-types", samples, ["yes"] * 3 + [answer] * 3) for answer in ("yes", "no")]
    rows = rsw.compare(*runs, names=["one", "other"]).differences()
    (oa,) = [row for row in rows if row["metric"] == "oa"]
    assert oa["difference"] == 0.0 and oa["p_mcnemar"] == 1.0


def test_a_report_of_another_name_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    samples = [{"id": "q", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}]
    with pytest.raises(rsw.InputError, match=r"must end in \.html"):
        rsw.evaluate("exact-qa", samples, ["yes"]).report(tmp_path / "page")
    assert not list(tmp_path.iterdir())
