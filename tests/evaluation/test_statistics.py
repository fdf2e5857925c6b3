"""Intervals over scenes: they cover what they promise, and cost one pass over the rows."""

from __future__ import annotations

import importlib.util
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rsw_rewards.core.metric import FeatureLookup, MeanValue, Metric, SumMetric
from rsw_rewards.core.rubric import VERIFIERS, Component
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation import statistics
from rsw_rewards.evaluation.statistics import estimates, paired_difference
from rsw_rewards.evaluation.summary import best_of

ACCURACY = SumMetric(("accuracy",), lambda sums: {"accuracy": float(sums["correct"] / sums["n"])}, bounds=(0.0, 1.0))


def table(values: np.ndarray, scenes: np.ndarray) -> ScoreTable:
    """Rows of one verifier with the statistic ``correct``."""
    n = len(values)
    names = [f"s{s}/q{int((scenes[:i] == s).sum())}" for i, s in enumerate(scenes)]
    return ScoreTable.from_columns(
        {
            "sample": names, "scene": [f"s{s}" for s in scenes], "verifier": ["x"] * n,
            "status": [Status.OK] * n, "value": values.astype(float), "candidate": [0] * n, "group": names,
            "raw": [{"value": float(value)} for value in values],
            "stats": [{"correct": np.float64(value)} for value in values],
        }
    )  # fmt: skip


COVERAGE = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.mark.parametrize(
    ("world", "n_scenes"),
    [
        ("accuracy 0.9", 10),
        ("accuracy 0.9", 30),
        ("F1 of summed pixels", 50),
        ("BLEU-4", 30),
        ("difference of accuracies", 30),
        ("Frechet distance, close", 10),
    ],
)
def test_intervals_cover_the_truth(world: str, n_scenes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("coverage_benchmark", COVERAGE)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)  # its dataclasses look themselves up
    spec.loader.exec_module(benchmark)
    for name, value in {"RESAMPLES": 2, "TRUTH_SCENES": 200_000, "TRUTH_SETS": 300}.items():
        monkeypatch.setattr(benchmark, name, value)
    found = benchmark.coverage(benchmark.WORLDS[world], n_scenes, 200, 5)
    assert 90 <= found["ours"]["covered"] <= 99  # 95 % less what 200 draws can tell


def test_an_interval_over_rows_would_be_too_narrow() -> None:
    scenes = np.repeat(np.arange(40), 25)
    values = (scenes % 2).astype(float)  # all samples of a scene agree
    low, high = estimates(ACCURACY, table(values, scenes))["accuracy"].ci95 or (0.0, 0.0)
    assert high - low > 0.25


def test_a_weighted_metric_equals_the_metric_of_the_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    scenes = generator.integers(0, 20, 300)
    values = generator.random(300).round()
    rows = statistics.Rows.of(table(values, scenes))
    weight = generator.integers(0, 3, len(rows.scenes)).astype(float)
    fast = statistics.statistic(ACCURACY, rows)(weight)["accuracy"]
    repeated = np.repeat(values, weight[rows.scene].astype(int))
    assert fast == pytest.approx(repeated.mean(), rel=1e-12)
    mean = statistics.statistic(MeanValue("m"), rows)(weight)["m"]
    assert mean == pytest.approx(repeated.mean(), rel=1e-12)


def test_pairing_finds_a_difference_that_two_intervals_hide() -> None:
    generator = np.random.default_rng(1)
    scenes = np.arange(400)
    before = (generator.random(400) < 0.6).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:16]] = 1  # four points better, and never worse
    first, second = table(before, scenes), table(after, scenes)
    low, high = (estimates(ACCURACY, part)["accuracy"].ci95 for part in (first, second))
    assert low is not None and high is not None and low[1] > high[0]
    difference = paired_difference(ACCURACY, first, second)["accuracy"]
    assert difference.value == pytest.approx(0.04) and difference.ci95 is not None and difference.ci95[0] > 0


def test_runs_are_compared_over_the_scenes_they_share() -> None:
    first = table(np.ones(50), np.arange(50))
    second = table(np.r_[np.ones(40), np.zeros(10)], np.arange(10, 60))
    assert paired_difference(ACCURACY, first, second)["accuracy"].n_scenes == 40
    alien = table(np.ones(5), np.arange(100, 105))
    assert "in common" in paired_difference(ACCURACY, first, alien)["accuracy"].reason


def test_failed_rows_are_no_evidence() -> None:
    scores = table(np.ones(40), np.arange(40))
    scores.frame.loc[:9, "status"] = Status.ERROR
    assert estimates(ACCURACY, scores)["accuracy"].n_scenes == 30
    scores.frame["status"] = Status.TIMEOUT
    assert estimates(ACCURACY, scores)["accuracy"].value is None


class Spread(Metric):
    """A stand-in for a set-level distance: not a sum, and spoilt by rows that stand twice."""

    keys = ("spread",)

    def compute(
        self,
        rows: pd.DataFrame,
        stats: dict[str, np.ndarray],
        weight: np.ndarray,
        features: FeatureLookup | None = None,
    ) -> dict[str, float | None]:
        assert set(np.unique(weight)) <= {0.0, 1.0}
        return {"spread": float(stats["correct"][weight > 0].var(ddof=1))}


def test_a_set_level_number_lies_in_its_own_interval_without_duplicates() -> None:
    values = np.random.default_rng(2).normal(size=300)
    estimate = estimates(Spread(), table(values, np.arange(300)))["spread"]
    assert estimate.ci95 is not None and estimate.value is not None
    assert estimate.ci95[0] < estimate.value < estimate.ci95[1]
    assert estimate.ci95[1] - estimate.ci95[0] == pytest.approx(4 * np.sqrt(2 / 300), rel=0.6)


def summed(values: np.ndarray) -> statistics.Summed:
    """The mean of one row per scene."""
    sums = np.stack([values, np.ones(len(values))], axis=1)
    return statistics.Summed(sums, lambda total: {"mean": float(total[0] / total[1]) if total[1] else None})


@pytest.mark.parametrize("n", [4, 60])
def test_leaving_parts_out_of_the_sums_is_leaving_their_scenes_out(n: int) -> None:
    of = summed(np.random.default_rng(3).normal(size=n))
    part = np.arange(n) % 4
    fast = [numbers["mean"] for numbers in of.left_out(part)]
    assert fast == pytest.approx([of((part != out).astype(float))["mean"] for out in range(4)])


def test_a_number_that_one_scene_defines_has_no_interval_but_a_reason() -> None:
    only = SumMetric(
        ("share",), lambda sums: {"share": float(sums["correct"] / sums["seen"]) if sums["seen"] else None}
    )
    scores = table(np.ones(30), np.arange(30))
    scores.frame["stats"] = [{"correct": np.float64(i == 7), "seen": np.float64(i == 7)} for i in range(30)]
    estimate = estimates(only, scores)["share"]
    assert estimate.value == 1.0 and estimate.ci95 is None and "without one of the scenes" in estimate.reason
    assert "one scene" in estimates(ACCURACY, table(np.ones(9), np.zeros(9)))["accuracy"].reason


def test_all_right_is_not_certain() -> None:
    estimate = estimates(ACCURACY, table(np.ones(60), np.repeat(np.arange(20), 3)))["accuracy"]
    assert estimate.ci95 == pytest.approx((20 / (20 + 1.959964**2), 1.0))
    without = estimates(MeanValue("m"), table(np.ones(20), np.arange(20)))["m"]
    assert without.value == 1.0 and without.ci95 is None and "every scene has the same score" in without.reason
    same = table(np.ones(20), np.arange(20))
    assert paired_difference(ACCURACY, same, same)["accuracy"].ci95 == pytest.approx((-0.168, 0.168), abs=1e-3)


def test_what_few_scenes_hold_is_not_as_certain_as_all_scenes() -> None:
    held = np.arange(40) < 5
    only = SumMetric(
        ("share",), lambda sums: {"share": float(sums["correct"] / sums["seen"]) if sums["seen"] else None}, (0.0, 1.0)
    )
    scores = table(np.ones(40), np.arange(40))
    scores.frame["stats"] = [{"correct": np.float64(here), "seen": np.float64(here)} for here in held]
    assert estimates(only, scores)["share"].ci95 == pytest.approx((5 / (5 + 1.959964**2), 1.0))


def test_p_values_of_paired_differences() -> None:
    generator = np.random.default_rng(5)
    scenes = np.arange(100)
    first = (generator.random(100) < 0.6).astype(float)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:9]] = 1
    found = paired_difference(ACCURACY, table(first, scenes), table(second, scenes))["accuracy"]
    assert found.p_value == pytest.approx(2 / 2**9, abs=0.002)  # nine scenes differ, all in one direction
    spread = paired_difference(Spread(), table(first, scenes), table(2 * second, scenes))["spread"]  # type: ignore[arg-type]
    assert spread.ci95 is not None and spread.p_value is not None
    assert (spread.ci95[0] > 0) == (spread.p_value < 0.05)


def test_a_difference_stays_between_what_differences_can_be() -> None:
    right = (np.arange(12) > 0).astype(float)
    difference = paired_difference(ACCURACY, table(np.zeros(12), np.arange(12)), table(right, np.arange(12)))[
        "accuracy"
    ]
    assert difference.ci95 is not None and difference.ci95[0] > 0.5 and difference.ci95[1] == 1.0


def test_runs_that_count_other_things_are_refused() -> None:
    first, second = table(np.ones(5), np.arange(5)), table(np.ones(5), np.arange(5))
    second.frame["stats"] = [{"correct": np.ones(2)}] * 5
    with pytest.raises(InputError, match="configured differently"):
        paired_difference(ACCURACY, first, second)


def test_the_best_of_k_candidates_is_the_mean_over_all_draws() -> None:
    generator = np.random.default_rng(6)
    values = generator.random((30, 5)).round(1)
    columns: dict[str, list[object]] = {name: [] for name in ("sample", "scene", "candidate", "value")}
    for (sample, candidate), value in np.ndenumerate(values):
        for name, item in zip(columns, (f"q{sample}", f"s{sample // 2}", candidate, value), strict=True):
            columns[name].append(item)
    scores = ScoreTable.from_columns({**columns, "verifier": ["x"] * 150, "status": [Status.OK] * 150})
    found = best_of(scores, "x", 5)
    assert list(found) == ["best@2", "best@4", "best@5"]
    for key, entry in found.items():
        drawn = combinations(range(5), int(key[5:]))
        assert entry["value"] == pytest.approx(np.mean([values[:, list(pick)].max(axis=1) for pick in drawn]))
        assert entry["ci95"][0] < entry["value"] < entry["ci95"][1] and entry["n_scenes"] == 15
    scores.frame.loc[:3, "value"] = None  # one candidate of q0 is left: it is the best of those that there are
    assert best_of(scores, "x", 5)["best@5"]["n"] == 30


def test_every_number_of_a_verifier_has_its_range_unless_it_has_none() -> None:
    without = set()
    for name in VERIFIERS.all():
        if name not in (
            "damage_consistency",
            "win_rate",
            "published_answer",
            "published_box",
        ):  # these have a setting without a default
            for metric in Component(use=name).build().metrics():
                without |= set(metric.keys) - set(statistics.bounds_of(metric))
    credits = {"frechet_credit_mean", "frechet_influence_mean", "mmd_credit_mean"}
    assert without == credits | {"bias", "clip_rsicd", "kid_scene-clip"}  # each may have any sign and size


def test_numbers_of_one_metric_may_have_ranges_of_their_own() -> None:
    both = SumMetric(
        ("share", "odds"),
        lambda sums: {"share": float(sums["correct"] / sums["n"]), "odds": float(9 * sums["correct"] / sums["n"])},
        bounds={"share": (0.0, 1.0), "odds": (0.0, np.inf)},
    )
    values = (np.arange(30) > 0).astype(float)
    found = estimates(both, table(values, np.arange(30)))
    assert found["share"].ci95 is not None and found["share"].ci95[1] < 1.0
    assert found["odds"].ci95 is not None and found["odds"].ci95[1] > 9.0
