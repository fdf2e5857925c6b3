"""Jackknife intervals, sign flips and Holm's correction against scipy and by hand."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rsw_rewards.evaluation import intervals
from rsw_rewards.evaluation.intervals import (
    deal,
    holm,
    score_interval,
    sign_flip_p,
    spread,
    student_interval,
    unseen_interval,
)


def without_each(values: np.ndarray) -> np.ndarray:
    """The mean without each value."""
    return (values.sum() - values) / (len(values) - 1)


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.linspace(-1, 3, 20)  # light tails, so all degrees of freedom are left
    error, freedom = spread(without_each(values))
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert freedom == 19 and error == pytest.approx(stats.sem(values))
    assert student_interval(values.mean(), error, freedom) == pytest.approx(tuple(expected))


def test_a_scene_that_decides_costs_degrees_of_freedom() -> None:
    even = np.random.default_rng(0).normal(size=100)
    heavy = even.copy()
    heavy[0] = 30.0
    assert spread(without_each(even))[1] > 60
    assert spread(without_each(heavy))[1] == intervals.FEWEST_FREEDOM
    assert spread(without_each(np.array([0.0, 1.0])))[1] == 1  # never more than there are


def test_the_interval_of_an_accuracy_is_close_to_the_bootstraps_where_there_are_many_scenes() -> None:
    values = np.random.default_rng(1).beta(2.7, 0.3, 400)
    ours = score_interval(values.mean(), without_each(values), 400, (0.0, 1.0))
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(2))
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.1 * (ours[1] - ours[0]))


@given(
    value=st.floats(0.001, 0.999),
    error=st.floats(1e-6, 10.0),
    freedom=st.floats(1.0, 1000.0),
    bounds=st.sampled_from([None, (0.0, math.inf), (-math.inf, 1.0)]),
)
def test_an_interval_holds_its_number_and_stays_in_range(
    value: float, error: float, freedom: float, bounds: tuple[float, float] | None
) -> None:
    low, high = student_interval(value, error, freedom, bounds)
    assert low <= value + 1e-12 and high >= value - 1e-12 and low < high
    if bounds is not None:
        assert bounds[0] <= low and high <= bounds[1] and math.isfinite(low) and math.isfinite(high)
    half = float(stats.t.ppf(0.975, freedom)) * error
    if half < 1e-3 * value * (1 - value):  # small errors do not notice the scale
        assert (low, high) == pytest.approx((value - half, value + half), abs=0.01 * half)


@pytest.mark.parametrize("value", [1.0, 1.0 + 1e-9])
def test_the_interval_of_a_value_on_its_bound_is_cut_there(value: float) -> None:
    low, _ = student_interval(value, 0.1, 10)
    assert student_interval(value, 0.1, 10, (-math.inf, 1.0)) == (pytest.approx(low), 1.0)
    assert student_interval(-value, 0.1, 10, (-1.0, math.inf)) == (-1.0, pytest.approx(-low))


def of_counts(n: int) -> np.ndarray:
    """(n + 1, 2): the interval of every count of right answers among n scenes."""
    return np.array(
        [score_interval(k / n, without_each(np.arange(n) < k), n, (0.0, 1.0)) for k in range(n + 1)], dtype=float
    )


@pytest.mark.parametrize("n", [10, 30, 60, 200])
def test_intervals_of_proportions_move_with_every_count_and_cover(n: int) -> None:
    low, high = of_counts(n).T
    assert (np.diff(low) > 0).all() and (np.diff(high) > 0).all()
    assert low[0] == 0.0 and high[-1] == 1.0 and (low >= 0).all() and (high <= 1).all()
    assert high[:-1][::-1] == pytest.approx(1 - low[1:])  # right and wrong are the same question
    exact = [stats.binomtest(k, n).proportion_ci(0.95, method="wilson") for k in range(n + 1)]
    assert low == pytest.approx([one.low for one in exact]) and high == pytest.approx([one.high for one in exact])
    shares = np.linspace(0.01, 0.99, 981)
    odds = stats.binom.pmf(np.arange(n + 1)[:, None], n, shares)
    covered = (odds * ((low[:, None] <= shares) & (shares <= high[:, None]))).sum(axis=0)
    assert 0.945 < covered.mean() < 0.96  # between counts it goes up and down around that, for any method
    assert covered.min() > 0.83 and np.mean((covered > 0.92) & (covered < 0.98)) > (0.65 if n == 10 else 0.9)


def test_a_mistake_taken_away_does_not_widen_an_interval() -> None:
    none, one, three = (of_counts(60)[60 - mistakes] for mistakes in (0, 1, 3))
    assert none == pytest.approx([0.940, 1.0], abs=5e-4)
    assert one == pytest.approx([0.911, 0.997], abs=5e-4)
    assert three == pytest.approx([0.863, 0.983], abs=5e-4)


def test_answers_that_agree_inside_scenes_count_as_scenes_and_independent_ones_as_answers() -> None:
    together = np.repeat([1.0, 0.0], [30, 10])
    low, high = score_interval(0.75, without_each(together), 40, (0.0, 1.0))
    exact = stats.binomtest(30, 40).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((exact.low, exact.high))
    apart = np.random.default_rng(0).binomial(20, 0.75, 40) / 20
    narrow = score_interval(apart.mean(), without_each(apart), 40, (0.0, 1.0))
    of_answers = stats.binomtest(round(800 * apart.mean()), 800).proportion_ci(0.95, method="wilson")
    assert 0.8 < (narrow[1] - narrow[0]) / (of_answers.high - of_answers.low) < 1.4  # 40 scenes tell it no better
    assert narrow[1] - narrow[0] < (high - low) / 3


@given(
    values=st.lists(st.floats(-1, 1), min_size=2, max_size=30),
    bounds=st.sampled_from([(-1.0, 1.0), (-1.0, 3.25), (-10.0, 1.0)]),
)
def test_a_score_interval_holds_its_number_and_stays_in_range(values: list[float], bounds: tuple[float, float]) -> None:
    array = np.array(values)
    low, high = score_interval(array.mean(), without_each(array), len(array), bounds)
    assert bounds[0] <= low <= array.mean() + 1e-9 and array.mean() - 1e-9 <= high <= bounds[1] and low < high


@pytest.mark.parametrize("n", [2, 10, 50])
def test_nothing_seen_leaves_what_clopper_and_pearson_leave(n: int) -> None:
    exact = stats.binomtest(n, n).proportion_ci(0.95, method="exact")
    assert unseen_interval(1.0, n, (0.0, 1.0)) == pytest.approx((exact.low, exact.high))
    assert unseen_interval(0.0, n, (-1.0, 1.0)) == pytest.approx((exact.low - 1, 1 - exact.low))


def mean_difference(first: np.ndarray, second: np.ndarray) -> list[float | None]:
    return [float(second[0] - first[0])]


def test_sign_flips_of_few_scenes_are_exact() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=8), generator.normal(0.7, 1, size=8)
    expected = stats.permutation_test(
        (first, second), lambda a, b, axis: (b - a).sum(axis=axis), permutation_type="samples", vectorized=True
    )
    (p,) = sign_flip_p(first[:, None], second[:, None], mean_difference)
    assert p == pytest.approx(expected.pvalue)
    by_hand = [abs(np.dot(signs, second - first)) for signs in product((1, -1), repeat=8)]
    assert p == pytest.approx(np.mean(np.array(by_hand) >= by_hand[0] - 1e-12))


def test_sign_flips_of_many_scenes_are_close_to_exact_and_repeatable() -> None:
    generator = np.random.default_rng(4)
    gap = generator.normal(0.35, 1, size=60)
    first, second = np.zeros((60, 1)), gap[:, None]
    (p,) = sign_flip_p(first, second, mean_difference)
    assert p == pytest.approx(stats.ttest_1samp(gap, 0.0).pvalue, abs=0.01)
    assert sign_flip_p(first, second, mean_difference) == [p]


def test_five_scenes_show_nothing_at_five_percent() -> None:
    (p,) = sign_flip_p(np.zeros((5, 1)), np.ones((5, 1)), mean_difference)
    assert p == 2 / 2**5


def test_equal_runs_have_the_p_value_one_and_undefined_numbers_none() -> None:
    sums = np.arange(40.0).reshape(20, 2)
    assert sign_flip_p(sums, sums, lambda a, b: [float(b[0] - a[0]), None]) == [1.0, None]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lowers_nothing_keeps_the_order_and_is_at_most_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert corrected is not None and p <= corrected <= min(1.0, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted, dtype=float)[order]) >= 0).all()


def test_scenes_are_dealt_evenly_and_repeatably() -> None:
    assert deal(5, 10).tolist() == [0, 1, 2, 3, 4]
    parts = deal(1003, 100)
    assert set(np.bincount(parts)) == {10, 11} and (parts == deal(1003, 100)).all()
