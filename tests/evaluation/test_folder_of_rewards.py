"""A folder that ``rsw.rewards`` wrote is no run of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

import rsw_rewards as rsw


def test_an_evaluation_takes_no_scores_from_a_folder_of_rewards(tmp_path: Path) -> None:
    sample = {"id": "s", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
    rsw.rewards({"exact_match": 1.0}, [sample], ["no"], out=tmp_path)
    kept = (tmp_path / "scores.parquet").read_bytes()
    with pytest.raises(rsw.InputError, match="holds scores that no evaluation wrote"):
        rsw.evaluate("exact-qa", [sample], ["yes"], out=tmp_path)
    assert (tmp_path / "scores.parquet").read_bytes() == kept
