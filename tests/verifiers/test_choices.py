"""multiple_choice: letters and options' texts are read strictly; hedging scores nothing."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.choices import MultipleChoice, make_choices, read_choice

OPTIONS = ["A. farmland", "(B) water", "forest", "a town"]


def question(*answers: str, choices: object = OPTIONS) -> Sample:
    reference = {"answers": list(answers), **({"choices": choices} if choices is not None else {})}
    return Sample("q", Task.CHANGE_QA, (), reference=reference)


def score(text: str, sample: Sample) -> Score:
    return MultipleChoice().score(Batch.of([sample], [Output(sample.id, text=text)]))[0]


@pytest.mark.parametrize(
    "text",
    [
        "B", "b", "(B)", "B.", "B)", "(b).", " B \n", "Answer: B", "The answer is B.", "the correct answer is (B)", "option b",
        "<answer>B</answer>", "It rained.\n<answer>(B) water</answer>", "B) water", "(B) Water.", "B: water", "water", "Answer: water",
    ],
)  # fmt: skip
def test_right_choices(text: str) -> None:
    for truth in ("B", "water", "(B) water"):
        assert score(text, question(truth)) == Score(1.0, raw={"correct": 1.0})


@pytest.mark.parametrize(
    "text",
    [
        "", "A, B", "A B", "A and B", "AB", "A or B", "B or C", "B?", "BB", "B B", "E", "B) forest", "B) water or forest",
        "B) water C) forest", "water, forest", "I think B", "It is water", "A) farmland B) water C) forest D) a town",
        "<answer>A</answer><answer>B</answer>", "<answer>B", "answerB", "A. B. C. D.",
    ],
)  # fmt: skip
def test_hedges_and_sentences_are_invalid(text: str) -> None:
    found = score(text, question("B"))
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
    assert found.reason


@pytest.mark.parametrize(
    "rest", ["water is wrong", "water isn't right", "water or not", "water, maybe", "water? no", "w\u0430ter", "water is wr\u043eng", "water, just kidding"]
)  # fmt: skip
def test_words_behind_a_letter_that_take_it_back_are_invalid(rest: str) -> None:
    found = score(f"B) {rest}", question("B", choices=None))
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT) and found.reason
    for honest in ("water", "no change", "none of the others", "the pond is not there any more", "maybe a road"):
        assert score(f"B) {honest}", question("B", choices=None)).value == 1.0


def test_a_wrong_letter_is_a_score_with_its_reason() -> None:
    found = score("C", question("B"))
    assert (found.value, found.status, found.reason) == (0.0, Status.OK, "chose C, not B")


@pytest.mark.parametrize("text", ["A, C", "C A", "A,C", "(A) (C)", "A and C", "A, and C", "CA", "Answers: A C"])
@pytest.mark.parametrize("truth", ["A C", "A,C", "AC", "(C), (A)"])
def test_a_set_of_letters_must_be_met_exactly(text: str, truth: str) -> None:
    sample = question(truth)
    assert score(text, sample).value == 1.0
    for wrong in ("A", "C", "A B C", "A B", "ABCD"):
        assert (score(wrong, sample).value, score(wrong, sample).status) == (0.0, Status.OK)


def test_several_accepted_answers() -> None:
    assert [score(text, question("A", "C")).value for text in ("A", "C", "B", "A C")] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Z", "Z"), ("B) a house by the road", "B"), ("B. 12 buildings", "B"), ("(A) a lake", "A"), ("A) B) C)", "ABC"), ("B) lake, C) sea", ""),
        ("B) lake or C", ""), ("a house", ""), ("B) one thing, or a", ""), ("B) one thing (a)", ""),
    ],
)  # fmt: skip
def test_letters_alone_where_options_are_not_known(text: str, letters: str) -> None:
    assert read_choice(text).letters == set(letters)


def test_options_that_read_the_same_can_only_be_chosen_by_letter() -> None:
    choices = make_choices(("one", "two", "One."))
    assert read_choice("one", choices).reason == "several choices read the same"
    assert read_choice("C", choices).letters == {"C"}
    assert read_choice("C) one", choices).letters == {"C"}


@pytest.mark.parametrize(
    "sample",
    [
        question(), question(""), question("E"), question("meadow"), question("water", choices=None), question("B", choices="AB"),
        question("B", choices=["a", 3]), question("B", choices=["x", " "]), question("B", choices=[str(n) for n in range(27)]),
    ],
)  # fmt: skip
def test_a_broken_truth_is_our_error(sample: Sample) -> None:
    assert (score("B", sample).value, score("B", sample).status) == (None, Status.ERROR)
    assert MultipleChoice().invalid(sample, "missing").status is Status.ERROR


def test_an_invalid_output_is_counted_as_wrong() -> None:
    found = MultipleChoice().invalid(question("B"), "missing")
    assert (found.status, found.reason, found.stats["correct"]) == (Status.INVALID_OUTPUT, "missing", 0.0)


@given(st.text(alphabet="ABab ().,:orandwt\n", max_size=30))
def test_what_is_read_is_a_set_of_the_options_letters(text: str) -> None:
    found = read_choice(text, make_choices(tuple(OPTIONS)))
    assert found.letters <= set("ABCD")
    assert bool(found.letters) != bool(found.reason)


def test_long_and_hostile_texts_cost_little() -> None:
    start = time.process_time()
    for text in ("a " * 900 + "!", "answer is " * 180, "(" * 1999, "a, and " * 280, "a" * 10**6):
        read_choice(text)
    assert time.process_time() - start < 0.5


def test_pickles() -> None:
    assert (
        pickle.loads(pickle.dumps(MultipleChoice())).score(Batch.of([question("B")], [Output("q", text="b")]))[0].value
        == 1.0
    )
