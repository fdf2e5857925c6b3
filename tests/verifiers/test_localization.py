"""grid_localization: scikit-learn's multi-label metrics, with its trap named, and strict reading of cells."""

from __future__ import annotations

import pickle
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, jaccard_score, precision_score, recall_score

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.localization import CELLS, CLASSES, GRID_KEYS, GridLocalization, read_cells


def sentence(cells: dict[str, list[str]]) -> str:
    return " ".join(f"{name} {cells.get(name, [])}" for name in CLASSES)


def question(truth: str) -> Sample:
    return Sample("q", Task.CHANGE_QA, (), reference={"answers": [truth]})


def score(text: str, truth: str) -> Score:
    sample = question(truth)
    return GridLocalization().score(Batch.of([sample], [Output("q", text=text)]))[0]


def metrics(scores: list[Score]) -> dict[str, float | None]:
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in scores[0].stats}
    rows, ones = pd.DataFrame({"status": [str(found.status) for found in scores]}), np.ones(len(scores))
    return {k: v for metric in GridLocalization().metrics() for k, v in metric.compute(rows, stats, ones, None).items()}


CELL_LISTS = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from(CELLS), unique=True, max_size=9) for name in CLASSES}
)


@given(st.lists(st.tuples(CELL_LISTS, CELL_LISTS), min_size=1, max_size=8))
def test_numbers_are_those_of_scikit_learn(pairs: list[tuple[dict[str, list[str]], dict[str, list[str]]]]) -> None:
    found = metrics([score(sentence(answer), sentence(truth)) for truth, answer in pairs])
    assert set(found) == {*GRID_KEYS, "valid_rate"}
    for suffix, names in (("", CLASSES), ("/roads", CLASSES[:1]), ("/buildings", CLASSES[1:])):
        true, given_ = (
            np.array([[cell in pair[side][name] for name in names for cell in CELLS] for pair in pairs]).astype(int)
            for side in (0, 1)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is undefined, which it sets to 0
            expected = {
                "micro_precision": precision_score(true, given_, average="micro"),
                "micro_recall": recall_score(true, given_, average="micro"),
                "micro_f1": f1_score(true, given_, average="micro"),
                "jaccard": jaccard_score(true, given_, average="samples"),
                "jaccard_empty1": jaccard_score(true, given_, average="samples", zero_division=1),
                "subset_accuracy": accuracy_score(true, given_),
                "hamming": hamming_loss(true, given_),
            }
        for key, value in expected.items():
            assert found[f"{key}{suffix}"] == pytest.approx(value, abs=1e-12), f"{key}{suffix}"


def test_the_trap_of_the_sample_jaccard() -> None:
    empty = sentence({})
    found = metrics([score(empty, empty)] * 3)
    assert (found["jaccard"], found["jaccard_empty1"], found["subset_accuracy"], found["hamming"]) == (
        0.0,
        1.0,
        1.0,
        0.0,
    )
    assert score(empty, empty).value == 1.0


TRUTH = "roads ['top-left', 'top-center'] buildings ['bottom-right']"


@pytest.mark.parametrize(
    "text",
    [
        TRUTH, TRUTH.upper(), "Roads: [top left, top_center]; buildings: [bottom-right].",
        '{"roads": ["top-center", "top-left"], "buildings": ["bottom-right"]}', f"I see <answer>{TRUTH}</answer>",
        "buildings ['bottom-right'] road ['top-center', 'top-left']",
    ],
)  # fmt: skip
def test_spellings_of_the_right_answer(text: str) -> None:
    found = score(text, TRUTH)
    assert (found.value, found.status, found.reason) == (1.0, Status.OK, "")


@pytest.mark.parametrize(
    "text",
    [
        "", "roads ['top-left']", "roads top-left buildings bottom-right", "roads ['up'] buildings []", "roads ['top-left' buildings []",
        "roads [] buildings [] roads ['top-left']", "roads ['top-left',] buildings []", "crossroads [] buildings []",
        "roads [[]] buildings []", "roads [] buildings [__import__('os')]",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_the_opposite_of_the_truth(text: str) -> None:
    found = score(text, TRUTH)
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
    assert found.reason
    numbers = metrics([found])
    assert [numbers[key] for key in ("micro_f1", "jaccard_empty1", "subset_accuracy", "hamming", "valid_rate")] == [
        0,
        0,
        0,
        1,
        0,
    ]


@given(CELL_LISTS, CELL_LISTS, CELL_LISTS)
def test_leaving_a_sample_out_raises_nothing(
    truth: dict[str, list[str]], answer: dict[str, list[str]], other: dict[str, list[str]]
) -> None:
    kept = score(sentence(other), sentence(other))
    answered = metrics([kept, score(sentence(answer), sentence(truth))])
    missing = metrics([kept, GridLocalization().invalid(question(sentence(truth)), "missing")])
    for key, value in answered.items():
        assert value is not None
        assert missing[key] is not None
        assert missing[key] >= value if key.startswith("hamming") else missing[key] <= value  # type: ignore[operator]


def test_the_difference_is_said() -> None:
    found = score("roads ['top-left'] buildings ['bottom-right', 'top-left']", TRUTH)
    assert found.reason == "roads miss top-center; buildings need no top-left"
    assert found.value == 0.5


@pytest.mark.parametrize("truth", ["", "top-left", "roads []", "roads ['north'] buildings []"])
def test_a_broken_truth_is_our_error(truth: str) -> None:
    assert score(TRUTH, truth).status is Status.ERROR
    assert GridLocalization().invalid(question(truth), "missing").status is Status.ERROR


def test_hostile_texts_cost_little() -> None:
    start = time.process_time()
    for text in (
        "roads [" * 500,
        "roads " * 600 + "[" * 300,
        "[" * 10**6,
        "roads [" + "'top-left'," * 300 + "] buildings []",
    ):
        assert read_cells(text)[0] is None
    assert time.process_time() - start < 0.5


def test_pickles() -> None:
    copy = pickle.loads(pickle.dumps(GridLocalization()))
    assert copy.score(Batch.of([question(TRUTH)], [Output("q", text=TRUTH)]))[0].value == 1.0
