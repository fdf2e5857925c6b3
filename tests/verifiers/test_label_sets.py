"""label_set: F1 of sets, micro and macro F1 and mean average precision against scikit-learn, and answers that are none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, f1_score

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Component, Rubric, build
from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.evaluation.statistics import estimates
from rsw_rewards.verifiers.label_sets import LabelSet, MeanAveragePrecision, average_precision
from tests.scoring import score_in_process

NAMES = ["water", "trees", "cars", "ship", "dock"]
TRUTHS = arrays.arrays(bool, st.tuples(st.integers(1, 8), st.just(len(NAMES))))


def sample(labels: Any, id: str = "s", **reference: Any) -> Sample:
    return Sample(id, Task.CLASSIFICATION, (), reference={"labels": labels, "vocabulary": NAMES, **reference})


def score(text: str, labels: Any, **reference: Any) -> Score:
    return LabelSet().score(Batch.of([sample(labels, **reference)], [Output("s", text=text)]))[0]


def table(truths: list[list[str]], answers: list[str | None]) -> ScoreTable:
    samples = [sample(labels, f"s{i}") for i, labels in enumerate(truths)]
    outputs = [
        Output(f"s{i}", text=text, invalid="no prediction" if text is None else None) for i, text in enumerate(answers)
    ]
    return score_in_process(Rubric(components=(Component(use="label_set"),)), Batch.of(samples, outputs))


def numbers(truths: list[list[str]], answers: list[str | None]) -> dict[str, float | None]:
    scored = table(truths, answers)
    return {
        key: estimate.value for metric in LabelSet().metrics() for key, estimate in estimates(metric, scored).items()
    }


def named(row: np.ndarray) -> list[str]:
    return [name for name, there in zip(NAMES, row, strict=True) if there]


@pytest.mark.parametrize(
    "text", ["it is not true that, water, trees, cars", "water, trees. That is wrong", "water, trees, or not", "water; trees; maybe", "none of it\nwater\ntrees"]
)  # fmt: skip
def test_labels_that_are_taken_back_as_a_whole_are_no_answer(text: str) -> None:
    found = score(text, ["trees", "water", "cars"])
    assert found.status is Status.INVALID_OUTPUT and "takes back or hedges" in found.reason


def test_one_label_that_is_hedged_or_denied_is_not_named() -> None:
    assert score("water, maybe trees", ["water", "trees"]).value == pytest.approx(0.5)
    assert score("water, no cars", ["water"]).value == pytest.approx(2 / 3)
    assert score("no change", ["no change"], vocabulary=["no change", "water"]).value == 1.0


def test_values() -> None:
    assert score("water, trees", ["trees", "water"]).value == 1.0
    assert score("water", ["trees", "water"]).value == pytest.approx(2 / 3)
    assert score("cars", ["trees", "water"]).value == 0.0
    assert [score("none", []).value, score("water", []).value, score("none", ["water"]).value] == [1.0, 0.0, 0.0]


def test_naming_everything_scores_little() -> None:
    assert score(", ".join(NAMES), ["water"]).value == pytest.approx(1 / 3)


def test_unknown_labels_count_as_wrong_and_are_reported() -> None:
    found = score("water, sky", ["water"])
    assert (found.value, found.raw["unknown"]) == (pytest.approx(2 / 3), 1.0)
    assert found.reason == "1 labels outside the vocabulary (sky); 1 labels wrong, 0 missed"
    assert score("water, sky", ["water"], vocabulary=[]).raw["unknown"] == 0.0


def test_unreadable_answers_count_as_the_complement_of_the_truth() -> None:
    found = score("", ["water"])
    assert (found.value, found.status, found.reason) == (0.0, Status.INVALID_OUTPUT, "the answer is empty")
    assert {name: float(value) for name, value in found.stats.items()} == {"hits": 0, "wrong": 4, "missed": 1}
    assert numbers([["water"], ["trees"]], ["water", None]) == pytest.approx(
        {"micro_f1": 2 / (2 + 4 + 1), "macro_f1": (2 / 3 + 0) / 2, "map": None}
    )


def test_the_data_are_ours() -> None:
    for labels in (None, [3], [""], ["sky"]):
        assert score("water", labels).status is Status.ERROR
    assert score("water", None, label="water").status is Status.NOT_APPLICABLE


@given(TRUTHS, st.randoms(use_true_random=False))
def test_f1_agrees_with_scikit_learn(truth: np.ndarray, chance: Any) -> None:
    answer = np.array([[chance.random() < 0.5 for _ in NAMES] for _ in truth])
    found = numbers([named(row) for row in truth], [json.dumps(named(row)) for row in answer])
    if (truth | answer).any():
        assert found["micro_f1"] == pytest.approx(f1_score(truth, answer, average="micro", zero_division=0))
    there = truth.any(axis=0)
    if there.any():
        expected = f1_score(truth, answer, average=None, zero_division=0)[there].mean()
        assert found["macro_f1"] == pytest.approx(expected)
    else:
        assert found["macro_f1"] is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.2, 0.5, 0.9]), st.integers(0, 3)), min_size=1))
def test_average_precision_agrees_with_scikit_learn(rows: list[tuple[bool, float, int]]) -> None:
    truth, scores, weight = (np.array(column) for column in zip(*rows, strict=True))
    found = average_precision(truth, scores.astype(float), weight.astype(float))
    if not weight[truth].sum():
        assert found is None
    else:
        assert found == pytest.approx(average_precision_score(truth, scores, sample_weight=weight))


def test_map_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((20, len(NAMES))) < 0.4
    scores = np.round(rng.random(truth.shape), 1)
    answers: list[str | None] = [json.dumps(dict(zip(NAMES, row.tolist(), strict=True))) for row in scores]
    truths = [named(row) for row in truth]
    found = numbers(truths, answers)
    assert found["map"] == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert found["micro_f1"] == pytest.approx(f1_score(truth, scores >= 0.5, average="micro"))
    # A missing answer is ranked where it does most harm.
    scores[3] = np.where(truth[3], -1, 2)
    assert numbers(truths, [*answers[:3], None, *answers[4:]])["map"] == pytest.approx(
        average_precision_score(truth, scores, average="macro")
    )


def test_labels_left_unscored_rank_last_and_equal_scores_gain_nothing() -> None:
    truths = [["water"], ["trees"], ["trees"], ["trees"]]
    assert numbers(truths, ['{"water": 0.1}', "{}", "{}", "{}"])["map"] == pytest.approx((1 + 3 / 4) / 2)
    flat = json.dumps(dict.fromkeys(NAMES, 1.0))
    assert numbers(truths, [flat] * 4)["map"] == pytest.approx((1 / 4 + 3 / 4) / 2)


def test_without_scores_map_is_null_and_says_why() -> None:
    scored = table([["water"], ["trees"]], ['{"water": 1}', "trees"])
    (estimate,) = estimates(MeanAveragePrecision(), scored).values()
    assert estimate.value is None
    assert MeanAveragePrecision().notes(scored.frame) == {
        "map": "1 of 2 answers give labels without scores; map needs JSON objects of label to score"
    }


def test_scores_survive_a_file(tmp_path: Any) -> None:
    scored = table([["water"], ["trees"]], ['{"water": 1}', None])
    scored.write(tmp_path / "scores.parquet")
    again = ScoreTable.read(tmp_path / "scores.parquet")
    for metric in LabelSet().metrics():
        assert estimates(metric, again) == estimates(metric, scored)


def test_configured_vocabulary_synonyms_and_threshold() -> None:
    verifier = build("label_set", {"vocabulary": ["sea"], "synonyms": {"Water": "sea"}, "threshold": 0.8})
    batch = Batch.of([sample(["sea"], vocabulary=None)], [Output("s", text='{"water": 0.9, "sea": 0.3}')])
    assert verifier.score(batch)[0].value == 1.0
