"""The baselines that a training's held-out numbers are shown beside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rsw_rewards as rsw
from rsw_rewards.training.heldout import Heldout, HeldoutConfig, write_baselines


def test_numbers_of_several_components_have_the_names_that_the_held_out_numbers_have(tmp_path: Path) -> None:
    reference = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    samples = [rsw.Sample(f"q{number}", "change_qa", reference=reference) for number in range(4)]
    rubric = rsw.Rubric(
        [
            rsw.Component(use="exact_match", name="whole"),
            rsw.Component(use="exact_match", name="tagged", config={"extract": "tag"}),
        ]
    )
    heldout = Heldout(samples, HeldoutConfig(), rubric, 1.0)
    write_baselines(tmp_path / "baselines.json", heldout)
    heldout.close()
    majority = json.loads((tmp_path / "baselines.json").read_text())["majority"]
    assert majority["accuracy/whole"] == pytest.approx(1.0)
    assert majority["accuracy/tagged"] == pytest.approx(0.0) and "accuracy" not in majority
