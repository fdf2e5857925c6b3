from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

import rsw_rewards as rsw
from rsw_rewards.cli.options import weights_in
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.reweighting import advantages, full_weights, rankings, reweight

RUBRIC = Rubric(
    components=(
        Component(use="exact_match", name="right", weight=1.0),
        Component(use="answer_format", name="form", weight=1.0),
    )
)


def table(right: np.ndarray, form: np.ndarray) -> ScoreTable:
    """(groups, candidates) values of two components."""
    frames = []
    for name, values in (("right", right), ("form", form)):
        for group, row in enumerate(values):
            for candidate, value in enumerate(row):
                known = bool(np.isfinite(value))
                frames.append(
                    {"sample": str(group), "group": str(group), "candidate": candidate, "verifier": name, "value": value,
                     "status": "ok" if known else "error", "reason": "" if known else "it failed"}
                )  # fmt: skip
    return ScoreTable.from_columns(pd.DataFrame(frames).to_dict("list"))


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_taus_are_those_of_scipy(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 3, (2, 5, size)).astype(float)
    expected = [kendalltau(*pair).statistic for pair in zip(before, after, strict=True)]
    taus, changed = rankings(before.ravel(), after.ravel(), np.repeat(np.arange(5), size))
    for tau, wanted, one, old, new in zip(taus, expected, changed, before, after, strict=True):
        assert tau == pytest.approx(0.0 if np.isnan(wanted) else wanted)
        assert one == (new[old.argmax()] < new.max())


def test_the_same_weights_change_nothing_and_opposite_ones_turn_the_ranking_round() -> None:
    rising = np.tile([0.0, 0.5, 1.0], (4, 1))
    scores = table(rising, 1 - rising * 0.5)
    trained, same, turned = reweight(scores, RUBRIC, [{"right": 2.0, "form": 2.0}, {"form": 1.0}])
    assert trained.rank_agreement == same.rank_agreement == 1.0 and same.advantage_change == pytest.approx(0.0)
    assert (
        turned.rank_agreement == -1.0
        and turned.best_changed == 1.0
        and turned.advantage_correlation == pytest.approx(-1.0)
    )
    assert turned.mean_reward == pytest.approx(0.75)


def test_groups_that_a_weighting_flattens_are_counted() -> None:
    right = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    (_, only_form) = reweight(table(right, np.ones_like(right)), RUBRIC, [{"form": 1.0}])
    assert only_form.flat_groups == 1.0 and only_form.rank_agreement is None


def test_a_failed_required_score_stays_without_a_reward() -> None:
    right = np.array([[np.nan, 1.0, 0.0]])
    (trained, form) = reweight(table(right, np.array([[0.1, 0.2, 0.3]])), RUBRIC, [{"form": 1.0}])
    assert trained.without_reward == 1 and form.without_reward == 0


def test_advantages_are_those_that_a_training_learns_from() -> None:
    import torch

    from rsw_rewards.training.advantages import grpo_advantages

    rng = np.random.default_rng(0)
    rewards, groups = rng.choice([0.0, 0.5, 0.7, 1.0, np.nan], 400), np.arange(400) // 4
    rewards[:4], rewards[4:8], rewards[8:11] = [0.7, 0.7 + 1e-9, 0.7, 0.7], np.nan, np.nan
    tasks = torch.zeros(400, dtype=torch.int64)
    wanted = grpo_advantages(torch.from_numpy(rewards), torch.from_numpy(groups), tasks).numpy()
    found = advantages(rewards, groups, 100)
    assert found == pytest.approx(np.where(np.isnan(rewards), np.nan, wanted), abs=1e-12, nan_ok=True)
    assert advantages(np.array([0.0, 1.0]), np.array([0, 0]), 1) == pytest.approx([-0.707, 0.707], abs=1e-3)


@pytest.mark.parametrize("text", ["right", "right=x", "wrong=1", "right=-1", "right=nan", "right=0", ""])
def test_weights_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"component=weight|no component|right, form|must be a number from 0"):
        full_weights(weights_in(text), RUBRIC)


def test_a_folder_is_reweighted_without_scoring_anything_again(tmp_path: Path) -> None:
    import yaml

    rng = np.random.default_rng(0)
    for step in (1, 2):
        folder = tmp_path / "dumps" / f"step-{step}"
        table(rng.random((20, 4)), rng.random((20, 4))).write(folder / "scores.parquet")
        (folder / "rubric.yaml").write_text(yaml.safe_dump(RUBRIC.dump()))
    rows = rsw.reweight(tmp_path, [{"right": 1}, {"right": 1, "form": 0.1}])
    assert [row.name for row in rows] == ["as trained", "right 1", "right 1, form 0.1"]
    assert rows[1].rank_agreement < rows[0].rank_agreement == 1.0
    with pytest.raises(InputError, match=r"no scores\.parquet"):
        rsw.reweight(tmp_path / "dumps")
