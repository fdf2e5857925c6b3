"""Scores and the score table: statuses that cannot be confused with numbers, and files that give back what was written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.errors import InputError

FAILED = (Status.ERROR, Status.TIMEOUT, Status.NOT_APPLICABLE)


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(Status))
def test_a_score_is_in_the_unit_interval_or_refused(value: float, status: Status) -> None:
    legal = status not in FAILED and not math.isnan(value) and 0 <= value <= 1
    if legal:
        assert Score(value, status).value == value
    else:
        with pytest.raises(ValueError, match="score with status"):
            Score(value, status)


def test_a_failure_is_never_a_number() -> None:
    for score in (Score.error("x"), Score.timeout("x"), Score.not_applicable("x")):
        assert score.value is None
    assert Score.invalid("x").value == 0.0


def table() -> ScoreTable:
    confusion = np.array([[3, 1], [0, 2]])
    return ScoreTable.from_columns(
        {
            "sample": ["a", "b"], "scene": ["s", "s"], "task": "change_mask", "kind": [None, "k"], "candidate": [0, 0],
            "group": ["a", "b"], "verifier": "change_mask", "value": [0.5, None], "status": [Status.OK, Status.ERROR],
            "reason": ["", "it broke"], "raw": [{"iou": 0.5}, {}], "stats": [{"confusion": confusion}, {}],
            "content": [{"output": "ff"}, {}], "seconds": [0.1, 0.2], "step": None, "policy_version": [1, None],
            "config_hash": "abc",
        }
    )  # fmt: skip


def test_a_table_survives_a_round_trip(tmp_path: Path) -> None:
    table().write(tmp_path / "scores.parquet")
    back = ScoreTable.read(tmp_path / "scores.parquet")
    assert back.frame["status"].tolist() == [Status.OK, Status.ERROR]
    assert back.frame["value"].isna().tolist() == [False, True]
    assert back.frame["raw"].tolist() == [{"iou": 0.5}, {}]
    assert back.stats()["confusion"].tolist() == [[[3, 1], [0, 2]], [[0, 0], [0, 0]]]
    assert np.isnan(back.raw("iou")).tolist() == [False, True]


def test_merging_shards_is_concatenating_rows(tmp_path: Path) -> None:
    both = ScoreTable.concat([table(), table()])
    assert len(both) == 4
    assert both.stats()["confusion"].sum(0).tolist() == [[6, 2], [0, 4]]


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match="no Parquet file"):
        ScoreTable.read(tmp_path / "x.parquet")


def test_what_is_stored_is_what_was_scored(tmp_path: Path) -> None:
    shared, empty = {"correct": np.ones(()), "cells": np.arange(6.0).reshape(2, 3)}, np.zeros((0, 4))
    frame = pd.concat([table().frame] * 3, ignore_index=True)
    frame["stats"] = [shared, {}, shared, {"cells": empty}, None, {"correct": np.float32(0.5)}]
    frame["raw"] = [{"a": 1, "b": np.float64(2.5)}, {}, {"a": float("nan")}, None, {"c": -1.0}, {}]
    frame["content"] = [{"answer": "é"}, {}, None, {"answer": ""}, {}, {}]
    frame["policy_version"] = pd.Series([2**62 + 1, None, 3, 4, np.nan, 5], dtype=object)
    frame["step"] = [1.0, np.nan, 2.0, 3.0, 4.0, 5.0]
    frame["kind"] = [None, "k", np.nan, "", "7", 8]
    ScoreTable(frame).write(tmp_path / "scores.parquet")
    back = ScoreTable.read(tmp_path / "scores.parquet").frame
    stats = [{key: value.tolist() for key, value in row.items()} for row in back["stats"]]
    full = {"correct": 1.0, "cells": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]}
    assert stats == [full, {}, full, {"cells": []}, {}, {"correct": 0.5}]
    assert back["stats"][3]["cells"].shape == (0, 4)
    assert back["raw"].tolist()[0] == {"a": 1.0, "b": 2.5}
    assert np.isnan(back["raw"][2]["a"])
    assert back["raw"].tolist()[3:] == [{}, {"c": -1.0}, {}]
    assert back["content"].tolist() == [{"answer": "é"}, {}, {}, {"answer": ""}, {}, {}]
    stored = pq.read_table(tmp_path / "scores.parquet")["policy_version"].to_pylist()
    assert stored == [2**62 + 1, None, 3, 4, None, 5]
    assert back["step"].dropna().tolist() == [1, 2, 3, 4, 5]
    assert [None if pd.isna(kind) else kind for kind in back["kind"]] == [None, "k", None, "", "7", "8"]


def test_an_empty_table_is_stored(tmp_path: Path) -> None:
    ScoreTable().write(tmp_path / "scores.parquet")
    assert len(ScoreTable.read(tmp_path / "scores.parquet")) == 0
