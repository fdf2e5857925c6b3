"""How labels are read out of a text, and scene_label: strict classes, accuracy per class and their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Component, Rubric, build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.statistics import estimates
from rsw_rewards.verifiers.labels import MOST_CLASSES, Labels, SceneLabel, answer_body, parse_labels
from tests.scoring import score_in_process

CLASSES = ["Airport", "Bare Land", "Beach"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Water, trees", {"water", "trees"}),
        ("water; trees;", {"water", "trees"}),
        ("- water\n- bare soil.\n* trees", {"water", "bare soil", "trees"}),
        ('["Water", "trees", "water"]', {"water", "trees"}),
        ('```json\n["water"]\n```', {"water"}),
        ("```\nwater\ntrees\n```", {"water", "trees"}),
        ("I see. <answer>water, trees</answer>", {"water", "trees"}),
        ("None.", set()),
        ("[]", set()),
        ('{"water": 0.9, "trees": 0.5, "cars": 0.49}', {"water", "trees"}),
        ("sea, trees", {"water", "trees"}),
    ],
)
def test_sets_of_labels(text: str, named: set[str]) -> None:
    assert parse_labels(text, synonyms={"sea": "water"}).named == named


def test_scores_are_kept() -> None:
    found = parse_labels('{"Sea": 0.2, "water": 1}', synonyms={"sea": "water"}, threshold=0.9)
    assert found == Labels(frozenset({"water"}), {"water": 1.0})
    assert parse_labels("water").scores is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("<answer> </answer>", "empty"),
        ("<answer>water", "no complete <answer>"),
        ("</answer>water<answer>", "no complete <answer>"),
        ("<answer>water</answer> or <answer>town</answer>", "different answers"),
        ('["water"', "cannot be read"),
        ('["water", 3]', "not a text"),
        ('{"water": "high"}', "not a number"),
        ('{"water": true}', "not a number"),
        ('{"water": 1.5}', "not a number"),
        ('{"water": NaN}', "not a number"),
        ('{"water": 1, "water": 0}', "twice"),
        ("[" * 15_000, "cannot be read"),
        ("water, " * 5_000, "characters"),
        (", ".join(f"l{i}" for i in range(501)), "501 labels"),
    ],
)
def test_what_is_no_set_of_labels(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_labels(text)


def test_a_tag_can_be_demanded_or_ignored() -> None:
    with pytest.raises(ValueError, match="no complete <answer>"):
        answer_body("water", "tag")
    assert answer_body("<answer>water</answer>", "whole") == "<answer>water</answer>"


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        found = parse_labels(text)
    except ValueError as error:
        assert str(error)
    else:
        assert all(label and label == label.strip() for label in found.named)


def sample(label: Any, id: str = "s", **reference: Any) -> Sample:
    return Sample(id, Task.CLASSIFICATION, (), reference={"label": label, "vocabulary": CLASSES, **reference})


def score(text: str | None, truth: Sample, **config: Any) -> Score:
    return build("scene_label", config).score(Batch.of([truth], [Output(truth.id, text=text)]))[0]


def test_one_class() -> None:
    assert score("bare land.", sample("Bare Land")).value == 1.0
    wrong = score("beach", sample("Airport"))
    assert (wrong.value, wrong.status, wrong.content["truth"]) == (0.0, Status.OK, "airport")


@pytest.mark.parametrize("text", ["airport, beach, bare land", "an airport", "harbour", "", None])
def test_hedges_and_unknown_classes_are_invalid(text: str | None) -> None:
    found = score(text, sample("Airport"))
    assert (found.value, found.status, found.content["truth"]) == (0.0, Status.INVALID_OUTPUT, "airport")


def test_synonyms_and_the_unpunctuated_reading() -> None:
    assert score("airfield", sample("Airport"), synonyms={"Airfield": "Airport"}).value == 1.0
    assert score("Bare-Land", sample("bareland", vocabulary=["bareland"]), reading="unpunctuated").value == 1.0


def test_the_data_are_ours() -> None:
    assert score("beach", sample(None)).status is Status.ERROR
    with pytest.raises(InputError, match=r"reference\.label"):
        sample(7)
    assert score("beach", sample("Harbour")).status is Status.ERROR
    assert score("beach", sample("Beach", vocabulary=[1, 2])).status is Status.ERROR
    assert score("beach", sample(None, labels=["beach"])).status is Status.NOT_APPLICABLE


def numbers(truths: list[str], answers: list[str | None]) -> dict[str, float | None]:
    samples = [sample(truth, f"s{i}") for i, truth in enumerate(truths)]
    outputs = [
        Output(f"s{i}", text=text, invalid="no prediction" if text is None else None) for i, text in enumerate(answers)
    ]
    table = score_in_process(Rubric(components=(Component(use="scene_label"),)), Batch.of(samples, outputs))
    verifier = SceneLabel()
    verifier.prepare(samples)
    (metric,) = verifier.metrics()
    return {key: estimate.value for key, estimate in estimates(metric, table).items()}


def test_accuracy_per_class_and_a_missing_answer() -> None:
    found = numbers(["Airport", "Airport", "Airport", "Beach"], ["airport", "beach", None, "beach"])
    assert found == pytest.approx({"oa": 0.5, "aa": (1 / 3 + 1) / 2, "oa/airport": 1 / 3, "oa/beach": 1.0})


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=30))
def test_agrees_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    verifier = SceneLabel()
    samples = [sample(truth, f"s{i}") for i, (truth, _) in enumerate(pairs)]
    scores = verifier.score(Batch.of(samples, [Output(f"s{i}", text=text) for i, (_, text) in enumerate(pairs)]))
    rows = pd.DataFrame({"status": [s.status for s in scores], "content": [s.content for s in scores], "kind": None})
    (metric,) = verifier.metrics()
    stats = {"correct": np.array([float(s.stats["correct"]) for s in scores])}
    found = metric.compute(rows, stats, np.ones(len(rows)), None)
    truth, answer = zip(*pairs, strict=True)
    assert found["oa"] == pytest.approx(accuracy_score(truth, answer))
    mean_recall = recall_score(truth, answer, labels=sorted(set(truth)), average="macro", zero_division=0)
    assert found["aa"] == pytest.approx(mean_recall)


def test_too_many_classes_are_not_reported_one_by_one() -> None:
    verifier = SceneLabel()
    samples = [sample(f"c{i}", f"s{i}", vocabulary=[]) for i in range(MOST_CLASSES + 1)]
    verifier.prepare(samples)
    assert verifier.metrics()[0].keys == ("oa", "aa")
    verifier.prepare(samples[:-1])
    assert len(verifier.metrics()[0].keys) == MOST_CLASSES + 2
