"""Indices and class rules against hand-made pixels."""

from __future__ import annotations

import numpy as np
import pytest

from rsw_rewards.data.spectral import (
    INDICES,
    UNDEFINED,
    class_shares,
    classify,
    dark_object,
    index_map,
    make_rules,
    normalized_difference,
)

PIXELS = {
    # water, plants, roof, no light at all
    "green": np.array([[0.10, 0.08, 0.20, 0.0]]),
    "red": np.array([[0.08, 0.05, 0.25, 0.0]]),
    "nir": np.array([[0.03, 0.45, 0.28, 0.0]]),
    "swir1": np.array([[0.01, 0.20, 0.35, 0.0]]),
}


def test_indices_follow_their_formulas() -> None:
    assert index_map("ndvi", PIXELS)[0, 1] == pytest.approx((0.45 - 0.05) / (0.45 + 0.05))
    assert index_map("ndwi", PIXELS)[0, 0] == pytest.approx((0.10 - 0.03) / (0.10 + 0.03))
    assert index_map("mndwi", PIXELS)[0, 0] == pytest.approx((0.10 - 0.01) / (0.10 + 0.01))
    assert index_map("ndbi", PIXELS)[0, 2] == pytest.approx((0.35 - 0.28) / (0.35 + 0.28))
    for name in INDICES:
        values = index_map(name, PIXELS)
        assert values.dtype == np.float64
        assert np.isnan(values[0, 3])
        assert (np.abs(values[0, :3]) <= 1).all()


def test_a_ratio_without_a_positive_sum_is_undefined() -> None:
    values = normalized_difference(np.array([0, -1, np.nan, 255, 3]), np.array([0, 0.5, 1, 255, 1]))
    assert np.isnan(values[:3]).all()
    assert values[3:].tolist() == [0.0, 0.5]


def test_integer_bands_do_not_wrap() -> None:
    first, second = np.array([200], np.uint8), np.array([250], np.uint8)
    assert normalized_difference(first, second)[0] == pytest.approx(-50 / 450)


def test_classes_are_claimed_in_order() -> None:
    rules = make_rules(list(PIXELS), {})
    assert [(rule.name, rule.index) for rule in rules] == [
        ("water", "mndwi"),
        ("vegetation", "ndvi"),
        ("built_up", "ndbi"),
    ]
    assert classify(PIXELS, rules, 0).tolist() == [[1, 2, 3, UNDEFINED]]
    # A dry field is bright in SWIR1, too: vegetation is asked first.
    dry = {"green": np.array([[0.1]]), "red": np.array([[0.1]]), "nir": np.array([[0.3]]), "swir1": np.array([[0.4]])}
    assert classify(dry, rules, 0).tolist() == [[2]]


def test_thresholds_may_differ_between_dates() -> None:
    rules = make_rules(["nir", "red"], {"ndvi": (0.9, 0.1)})
    assert [rule.name for rule in rules] == ["vegetation"]
    assert classify(PIXELS, rules, 0)[0, 1] == 0
    assert classify(PIXELS, rules, 1)[0, 1] == 1


def test_rules_need_their_bands() -> None:
    assert make_rules(["red", "green", "blue"], {}) == ()
    assert [rule.index for rule in make_rules(["red", "green", "blue", "nir"], {})] == ["ndwi", "ndvi"]
    assert make_rules(list(PIXELS), {}, "ndwi")[0].index == "ndwi"


def test_shares_are_counted_over_pixels_defined_at_both_dates() -> None:
    before = np.array([[1, 1, 2, UNDEFINED, 0]], np.uint8)
    after = np.array([[1, 2, 2, 1, UNDEFINED]], np.uint8)
    first, last, n = class_shares(before, after, np.array([[True, True, True, True, True]]), 2)
    assert n == 3
    assert first == pytest.approx((2 / 3, 1 / 3))
    assert last == pytest.approx((1 / 3, 2 / 3))
    empty = class_shares(before, after, np.zeros((1, 5), bool), 2)
    assert empty[2] == 0 and np.isnan(empty[0]).all()


def test_dark_object_is_a_percentile_per_band() -> None:
    values = np.stack([np.arange(1001), np.arange(1001) + 50]).astype(np.uint16)
    assert dark_object(values, 10).tolist() == [100.0, 150.0]
