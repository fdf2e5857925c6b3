"""difference_list: how lists of changes are read, matched one to one, counted, and what pleases recall alone."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.errors import InputError
from rsw_rewards.verifiers.difference_list import (
    METRIC_KEYS,
    Change,
    DifferenceList,
    agrees,
    match_changes,
    parse_cell,
    parse_changes,
)

CELLS = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")
TRUTH = [
    {"object": "building", "change": "appeared", "where": "top-left", "count": 3},
    {"object": "road", "change": "appeared", "where": "center"},
    {"object": "tree", "change": "disappeared"},
]
RIGHT = "Buildings | built | top left | 3\nroad | appeared | center-center\ntrees | removed"
CHANGES = st.builds(
    Change,
    st.sampled_from(["road", "tree"]),
    st.sampled_from(["appeared", "disappeared"]),
    st.sampled_from([None, "top", "left"]),
    st.sampled_from([None, 1, 2]),
)


def score(text: str | None, changes: Any = TRUTH, task: Task = Task.CHANGE_QA, **config: Any) -> Score:
    sample = Sample("s", task, (), reference={} if changes is None else {"changes": changes})
    return build("difference_list", config).score(Batch.of([sample], [Output("s", text=text)]))[0]


def summed(scores: list[Score]) -> dict[str, float | None]:
    (metric,) = DifferenceList().metrics()
    assert metric.keys == METRIC_KEYS
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in ("matched", "listed", "true")}
    return metric.compute(pd.DataFrame(index=range(len(scores))), stats, np.ones(len(scores)), None)


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        "- " + RIGHT.replace("\n", "\n\n- "),
        f"They differ.\n<answer>\n{RIGHT}\n</answer>",
        json.dumps(TRUTH[::-1]),
        f"```json\n{json.dumps(TRUTH)}\n```",
        RIGHT.replace("trees | removed", "trees | removed | bottom | 7"),  # details that the truth does not state
    ],
)
def test_the_forms_of_a_right_list(text: str) -> None:
    found = score(text)
    assert (found.value, found.status, found.reason) == (1.0, Status.OK, "")


def test_partly_right_lists() -> None:
    found = score("building | appeared | top-left | 3\nwater | appeared")
    assert found.value == pytest.approx(2 * 1 / (2 + 3))
    assert found.reason == "missed: road | appeared | center, tree | disappeared; wrong: water | appeared"


def test_details_count_where_the_truth_states_them() -> None:
    building = TRUTH[:1]
    assert score("building | appeared | top-left | 3", building).value == 1.0
    for wrong in ("top | 3", "top-left | 2", "top-left", "- | 3"):
        assert score(f"building | appeared | {wrong}", building).value == 0.0
    assert score("building | appeared | top", building, details=["where"]).value == 0.0
    assert score("building | appeared | top-left", building, details=["where"]).value == 1.0
    assert score("building | appeared", building, details=[]).value == 1.0
    assert score("road | appeared | - | -", [{"object": "road", "change": "appeared", "count": 1}]).value == 1.0


def test_what_pleases_recall_alone_scores_little() -> None:
    one = [{"object": "road", "change": "appeared", "where": "top"}]
    assert score("\n".join(f"road | appeared | {cell}" for cell in CELLS), one).value == pytest.approx(2 / 10)
    assert score("\n".join(["road | appeared | top"] * 4), one).value == pytest.approx(2 / 5)


def test_nothing_changed() -> None:
    assert [score(text, []).value for text in ("none", "None.", "[]", "<answer>none</answer>")] == [1.0] * 4
    assert score("road | appeared", []).value == 0.0
    assert score("none").value == 0.0


def test_synonyms() -> None:
    config = {"synonyms": {"Houses": "building"}}
    assert score("house | built | top-left | 3", TRUTH[:1], **config).value == 1.0
    assert score("houses | built | top-left | 3", TRUTH[:1], **config).value == 1.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the answer is empty"),
        ("A road was built in the north.", "entry 1: 'A road was built in the north.' has not the form"),
        ("road | appeared\nroad | appeared | north", "entry 2: 'north' is no cell"),
        ("road | appeared | top | three", "entry 1: the 'count' of a change is not a whole number"),
        ("road | appeared | top | 0", "entry 1: the 'count'"),
        ("road | | top", "entry 1: the 'change' of a change is missing"),
        ("a | b | top | 1 | more", "has not the form"),
        ('[{"object": "road"}]', "entry 1: the 'change' of a change is missing"),
        ('[{"object": "road", "change": "appeared", "sure": 1}]', "entry 1: a change has no field 'sure'"),
        ('[{"object": "road", "change": "appeared", "count": true}]', "entry 1: the 'count'"),
        ('[{"object": "road", "change": "appeared", "where": 3}]', "entry 1: the 'where'"),
        ('["road | appeared"]', "entry 1: a change is an object"),
        ('[{"object": "road"', "cannot be read"),
        ('{"object": "road", "change": "appeared"}', "must be a list"),
        ("road | appeared\n" * 101, "101 changes"),
    ],
)
def test_other_texts_are_invalid_in_words(text: str, why: str) -> None:
    found = score(text)
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
    assert why in found.reason


def test_the_nine_cells() -> None:
    assert tuple(map(parse_cell, CELLS)) == CELLS
    spelled = ("Top_Left", "top center", "center-left", "middle-middle", "centre", "bottom-middle")
    assert [parse_cell(cell) for cell in spelled] == ["top-left", "top", "left", "center", "center", "bottom"]
    for cell in ("left-top", "north", "", "top-top"):
        with pytest.raises(ValueError, match="no cell"):
            parse_cell(cell)


@given(st.lists(CHANGES, max_size=8))
def test_a_written_list_is_read_back(changes: list[Change]) -> None:
    assert parse_changes("\n".join(map(str, changes)) or "none") == tuple(changes)


def orders(same: np.ndarray) -> list[tuple[int, ...]]:
    return list(permutations(range(same.shape[1])))


@given(st.lists(CHANGES, max_size=4), st.lists(CHANGES, max_size=4))
def test_the_matching_is_a_largest_one(true: list[Change], listed: list[Change]) -> None:
    pairs = match_changes(true, listed)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(agrees(true[row], listed[column]) for row, column in pairs)
    same = np.array([[agrees(one, other) for other in listed] for one in true]).reshape(len(true), len(listed))
    same = same if len(true) <= len(listed) else same.T
    most = max(sum(same[row, column] for row, column in enumerate(order[: len(same)])) for order in orders(same))
    assert len(pairs) == most


def test_numbers_are_pooled_over_samples() -> None:
    scores = [score(RIGHT), score("none"), score("road | appeared", [])]
    assert summed(scores) == pytest.approx(
        {"difference_f1": 6 / 10, "difference_precision": 3 / 4, "difference_recall": 3 / 6}
    )


def test_undefined_numbers() -> None:
    assert summed([score("none", [])]) == dict.fromkeys(METRIC_KEYS)
    assert summed([score("none")]) == dict.fromkeys(METRIC_KEYS, 0.0)


def test_a_missing_list_is_worse_than_an_empty_one() -> None:
    for changes in (TRUTH, []):
        sample = Sample("s", Task.CHANGE_CAPTION, (), reference={"changes": changes})
        missing = DifferenceList().invalid(sample, "no prediction")
        assert (missing.status, missing.reason) == (Status.INVALID_OUTPUT, "no prediction")
        numbers, empty = summed([score(RIGHT), missing]), summed([score(RIGHT), score("none", changes)])
        for key in ("difference_f1", "difference_precision"):
            low, high = numbers[key], empty[key]
            assert low is not None and high is not None and low < high


def test_the_data_are_ours() -> None:
    assert score("none", None).status is Status.NOT_APPLICABLE
    with pytest.raises(InputError, match=r"reference\.changes"):
        score("none", "none")
    for changes in ([3], [{"object": "road"}], [{"object": "road", "change": "appeared", "where": "north"}]):
        assert score("none", changes).status is Status.ERROR


def test_captions_may_be_lists_too() -> None:
    assert score(RIGHT, task=Task.CHANGE_CAPTION).value == 1.0
