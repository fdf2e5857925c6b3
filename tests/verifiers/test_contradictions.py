"""An answer tag beside which another answer is stated is invalid; words that state none leave it as it is."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch


def sample(task: Task = Task.CHANGE_QA, **reference: Any) -> Sample:
    return Sample("q", task, (), reference=reference)


CLOSED = sample(answers=["yes"], vocabulary=["yes", "no", "low_vegetation", "trees"])


def score(text: str, asked: Sample = CLOSED, name: str = "exact_match", **config: Any) -> Score:
    return build(name, config).score(Batch.of([asked], [Output("q", text=text)]))[0]


@pytest.mark.parametrize(
    "text",
    ["<think><answer>yes</answer></think>no", "<answer>yes</answer> Actually the answer is no.", "No. <answer>yes</answer>",
     "<answer>yes</answer> no", "<answer>yes</answer>, or no", "<answer>yes</answer>\nIt is low_vegetation!", "<answer>yes</answer> Sorry, it should be: no",
     "<answer>yes</answer> The right answer is trees, not yes.", "The answer is no. <answer>yes</answer>", "<answer>yes</answer> No. <answer>yes</answer>"],
)  # fmt: skip
def test_another_answer_beside_the_tag_counts_as_none(text: str) -> None:
    assert score(text).value == 0.0
    if "think" not in text:
        found = score(text)
        assert found.status is Status.INVALID_OUTPUT and "beside it" in found.reason


@pytest.mark.parametrize(
    "text",
    ["<think>no</think><answer>yes</answer>", "I think so. <answer>yes</answer>", "Any roads? No. Any houses? Two, by the river. <answer>yes</answer>",
     "<answer>yes</answer> There is no doubt.", "<answer>yes</answer> The answer is yes.", "<answer>yes</answer>.", "Yes: <answer>yes</answer>",
     "<answer>yes</answer> The trees grew, and it is not no.", "<answer>yes</answer> I hope this helps, or not!"],
)  # fmt: skip
def test_words_that_state_no_other_answer_leave_it_as_it_is(text: str) -> None:
    assert score(text).value == 1.0


@pytest.mark.parametrize(
    ("name", "asked", "answer", "other", "harmless"),
    [
        ("numeric_match", sample(answers=["7"]), "7", "Actually 8 buildings.", "There are 7 of them."),
        ("numeric_match", sample(answers=["7 m2"]), "7", "It is 12 m2.", "That is 0.0007 ha."),
        ("multiple_choice", sample(answers=["B"], choices=["water", "forest"]), "B", "The answer is (A).", "(B), forest."),
        ("multiple_choice", sample(answers=["A, B"], choices=["water", "forest", "town"]), "A, B", "And C!", "A, B."),
        ("change_counts", sample(answers=["2 new roads and 5 new buildings"]), "2 roads, 5 buildings", "2 roads and 6 buildings", "2 roads!"),
        ("grid_localization", sample(answers=["roads ['top-left'] buildings []"]),
         "roads [top-left] buildings []", "roads [] buildings []", "as said"),
        ("label_set", sample(Task.CLASSIFICATION, labels=["a", "b"], vocabulary=["a", "b", "c"]), "a, b", "Rather c.", "a, b."),
        ("scene_label", sample(Task.CLASSIFICATION, label="a b", vocabulary=["a b", "c"]), "a b", "Rather c.", "An a b."),
        ("difference_list", sample(changes=[{"object": "road", "change": "built"}]), "road | built", "house | built", "That is all."),
        ("exact_match", sample(answers=["by the river"]), "by the river", "The answer is on the hill.", "There are trees on the hill."),
    ],
)  # fmt: skip
def test_each_verifier_reads_the_words_as_it_reads_answers(
    name: str, asked: Sample, answer: str, other: str, harmless: str
) -> None:
    tag = f"<answer>{answer}</answer>"
    assert score(tag, asked, name).value == score(f"{tag} {harmless}", asked, name).value == 1.0
    found = score(f"{tag} {other}", asked, name)
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)


@given(st.text(st.characters(codec="utf-8", exclude_characters="<>")))
def test_what_stands_beside_a_tag_never_makes_a_wrong_answer_right(words: str) -> None:
    assert score(f"<answer>no</answer>{words}").value == 0.0
    assert score(f"{words}<answer>no</answer>").value == 0.0


@pytest.mark.parametrize("piece", ["no ", "is ", ", ", ". ", "the answer ", "answer", "or ", "- ", "maybe no, "])
def test_a_long_text_beside_a_tag_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    score("<answer>yes</answer> " + piece * (200_000 // len(piece)))
    assert time.process_time() - start < 5
