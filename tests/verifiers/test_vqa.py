"""vqa_accuracy: the official normaliser with its oddities, and accuracy over ten annotators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.vqa import VqaAccuracy, normalise_vqa, vqa_accuracy

GOLDEN = Path(__file__).parents[1] / "golden" / "vqa_normaliser"


def question(*answers: str) -> Sample:
    return Sample("q", Task.CHANGE_QA, (), reference={"answers": list(answers)})


def score(text: str, *answers: str) -> Score:
    sample = question(*answers)
    return VqaAccuracy().score(Batch.of([sample], [Output("q", text=text)]))[0]


def test_golden_normaliser() -> None:
    rows = json.loads((GOLDEN / "normaliser.json").read_text())
    assert [(row["raw"], normalise_vqa(row["raw"])) for row in rows] == [(r["raw"], r["normalised"]) for r in rows]


def test_golden_accuracy() -> None:
    for case in json.loads((GOLDEN / "vqa_accuracy.json").read_text())["questions"].values():
        found = score(case["prediction"], *case["answers"])
        assert 100 * found.stats["vqa_accuracy"] == pytest.approx(case["expected"], rel=1e-9)
        assert found.value == found.raw["vqa_accuracy"]


def test_oddities_of_the_original() -> None:
    assert normalise_vqa("1.") == "1"  # the look-behind that should have kept it is misspelt
    assert normalise_vqa("." * 40 + "x") == "." * 8 + "x"  # at most 32 stops go
    assert normalise_vqa("yes/no, 1,2") == "yesno 12"  # a comma between digits changes what all signs become
    assert normalise_vqa("couldntve I dont somebody'd") == "couldntve i don't somebodyd"
    assert normalise_vqa("couldnt've") == normalise_vqa("couldn'tve") == "couldn't've"


def test_nothing_is_normalised_where_annotators_agree() -> None:
    assert score("Yes!", *["yes"] * 10).value == 0.0
    assert score(" yes\n", *["yes"] * 10).value == 1.0
    assert score("Yes!", *["yes"] * 9, "no").value == 1.0


def test_a_single_annotator_has_no_others() -> None:
    assert vqa_accuracy("yes", ["yes"]) == 0.0


@pytest.mark.parametrize("answers", [[], ["yes"], ["yes"] * 9, ["yes"] * 11])
def test_other_than_ten_annotators_is_our_error(answers: list[str]) -> None:
    found = score("yes", *answers)
    assert (found.value, found.status) == (None, Status.ERROR)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_invalid(text: str) -> None:
    found = score(text, *["a"] * 5, *["the"] * 5)  # both normalise to nothing
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)


def test_an_invalid_output_enters_the_mean() -> None:
    assert VqaAccuracy().invalid(question(*["yes"] * 10), "missing").stats["vqa_accuracy"] == 0.0
    assert VqaAccuracy().invalid(question("yes"), "missing").status is Status.ERROR


WORDS = st.sampled_from(["yes", "no", "two", "2", "the barn", "barn", "0_to_10", "don't", "dont"])


@given(st.lists(WORDS, min_size=10, max_size=10), WORDS, st.randoms(use_true_random=False))
def test_the_order_of_annotators_has_no_say_and_the_truth_table_holds(answers: list[str], text: str, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(answers)
    random.shuffle(shuffled)
    accuracy = vqa_accuracy(text, answers)
    assert accuracy == pytest.approx(vqa_accuracy(text, shuffled))
    one = len(set(answers)) == 1
    equal = sum(other == text if one else normalise_vqa(other) == normalise_vqa(text) for other in answers)
    assert accuracy == pytest.approx({0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9}.get(equal, 1.0))


@given(st.text(max_size=60))
def test_any_text_gets_a_score(text: str) -> None:
    assert 0.0 <= (score(text, *["yes"] * 9, "no").value or 0.0) <= 1.0
