"""change_counts: ChangeChat's sentences are read, anything else is invalid, and errors are kept per class."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.counts import ChangeCounts, read_counts


def question(*answers: str) -> Sample:
    return Sample("q", Task.CHANGE_QA, (), reference={"answers": list(answers)})


def score(text: str, *truth: str) -> Score:
    sample = question(*truth)
    return ChangeCounts().score(Batch.of([sample], [Output("q", text=text)]))[0]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("there are 2 new roads and 15 new buildings", (2, 15)),
        ("no new roads and 3 new buildings have been built", (0, 3)),
        ("1 new road and no new buildings", (1, 0)),
        ("there are no changes in roads or buildings", (0, 0)),
        ("no new roads or buildings", (0, 0)),
        ("no new buildings or roads are seen", (0, 0)),
        ("twelve new buildings and one new road", (1, 12)),
        ("4 buildings, 0 roads", (0, 4)),
    ],
)
def test_sentences(text: str, counts: tuple[int, int]) -> None:
    assert read_counts(text) == ({"roads": counts[0], "buildings": counts[1]}, "")


TRUTH = "There are 2 new roads and 5 new buildings."


@pytest.mark.parametrize(
    "text",
    [
        "", "2", "2 and 5", "2 new roads", "there are 3 new buildings", "2 new roads and 4 or 5 new buildings", "-2 new roads and 5 new buildings",
        "2 new roads and 3-5 new buildings", "2.5 new roads and 5 new buildings", "2 new roads, 3 new roads and 5 new buildings",
        "at least 2 new roads and 5 new buildings", "there are not 2 new roads and 5 new buildings", "2 new roads and fewer than 5 new buildings",
        "2 dozen new roads and 5 new buildings", "no 2 new roads and 5 new buildings", "2 new roads and 5 new buildings or more",
        "2 new roads and 5 new buildings? no.", "up to 2 new roads and 5 new buildings", "2 new roads and 5 new buildings were never built",
        "no new roads or buildings, 5 new buildings", "some new roads and many new buildings", "n\u043et 2 new roads and 5 new buildings", "maybe 2 new roads and 5 new buildings", "no new roads or buildings, no, 2 of them",
        "<answer>2 new roads and 5 new buildings</answer><answer>no new roads or buildings</answer>",
    ],
)  # fmt: skip
def test_anything_else_is_invalid(text: str) -> None:
    found = score(text, TRUTH)
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
    assert found.reason
    assert not found.stats["errors"].any()


def metrics(scores: list[Score]) -> dict[str, float | None]:
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in scores[0].stats}
    rows, ones = pd.DataFrame({"status": [str(found.status) for found in scores]}), np.ones(len(scores))
    return {k: v for metric in ChangeCounts().metrics() for k, v in metric.compute(rows, stats, ones, None).items()}


PAIRS = st.tuples(st.integers(0, 200), st.integers(0, 200))


@given(st.lists(st.tuples(PAIRS, PAIRS), min_size=1, max_size=10))
def test_errors_per_class_and_together(pairs: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    said = "{} new roads and {} new buildings".format
    found = metrics([score(said(*answer), said(*truth)) for truth, answer in pairs] + [score("many", TRUTH)])
    difference = np.array([np.subtract(answer, truth) for truth, answer in pairs], dtype=float)
    for suffix, part in (("", difference), ("/roads", difference[:, 0]), ("/buildings", difference[:, 1])):
        assert found[f"mae{suffix}"] == pytest.approx(np.abs(part).mean())
        assert found[f"rmse{suffix}"] == pytest.approx(math.sqrt((part**2).mean()))
    assert found["accuracy"] == pytest.approx((difference == 0).all(1).sum() / (len(pairs) + 1))
    assert found["valid_rate"] == pytest.approx(len(pairs) / (len(pairs) + 1))


def test_the_value_falls_with_the_error() -> None:
    values = [score(f"{2 + off} new roads and 5 new buildings", TRUTH).value for off in range(4)]
    assert values == [1.0, 0.75, pytest.approx(2 / 3), 0.625]
    assert (
        score("3 new roads and 5 new buildings", TRUTH).reason
        == "counted 3 roads and 5 buildings, not 2 roads and 5 buildings"
    )


def test_a_truth_without_a_class_is_one_number() -> None:
    found = score("about 7 of them", "4")
    assert (found.value, found.raw) == (0.25, {"correct": 0.0, "abs_error": 3.0})
    numbers = metrics([found])
    assert (numbers["mae"], numbers["mae/roads"]) == (3.0, None)


@pytest.mark.parametrize("truth", [(), ("",), ("many",), ("2 new roads",), ("1", "2")])
def test_a_broken_truth_is_our_error(truth: tuple[str, ...]) -> None:
    assert score("2 new roads and 5 new buildings", *truth).status is Status.ERROR
    assert ChangeCounts().invalid(question(*truth), "missing").status is Status.ERROR


def test_pickles() -> None:
    copy = pickle.loads(pickle.dumps(ChangeCounts()))
    assert copy.score(Batch.of([question(TRUTH)], [Output("q", text=TRUTH)]))[0].value == 1.0
