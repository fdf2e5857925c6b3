"""building_damage: the counting rules of xView2, its harmonic mean, and what unusable maps are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import f1_score

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.damage import LEVELS, BuildingDamage

Maps = tuple[np.ndarray, np.ndarray]
DAMAGE = np.zeros((8, 8), np.uint8)
DAMAGE[0], DAMAGE[1], DAMAGE[2, :4], DAMAGE[3, :2] = 1, 2, 3, 4
BUILDINGS = (DAMAGE > 0).astype(np.uint8)
NOTHING = np.zeros_like(DAMAGE)
MAP = arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 4))
PAIR = st.tuples(MAP, MAP)


def score(predicted: Maps | None, truth: Maps = (BUILDINGS, DAMAGE), **reference: object) -> Score:
    true = {key: ImageRef(array=pixels) for key, pixels in zip(("buildings", "damage"), truth, strict=True)}
    sample = Sample("s", Task.DAMAGE, (), reference={**true, **reference})
    drawn = [None, None] if predicted is None else [ImageRef(array=pixels) for pixels in predicted]
    output = Output("s", buildings=drawn[0], damage=drawn[1])
    return BuildingDamage().score(Batch.of([sample], [output]))[0]


def numbers(scores: Sequence[Score]) -> dict[str, float | None]:
    (metric,) = BuildingDamage().metrics()
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in ("localization", "damage")}
    return metric.compute(pd.DataFrame(index=range(len(scores))), stats, np.ones(len(scores)), None)


def test_perfect_and_worked_numbers() -> None:
    assert numbers([score((BUILDINGS, DAMAGE))]) == pytest.approx(dict.fromkeys(numbers([score(None)]), 1.0), abs=1e-6)
    worse = DAMAGE.copy()
    worse[1, :4] = 3  # half of the minor damage called major
    found = numbers([score((BUILDINGS, worse))])
    minor, major = 2 * 4 / (2 * 4 + 4), 2 * 4 / (2 * 4 + 4)
    assert (found["f1_no_damage"], found["f1_destroyed"], found["localization_f1"]) == (1.0, 1.0, 1.0)
    assert (found["f1_minor"], found["f1_major"]) == (pytest.approx(minor), pytest.approx(major))
    harmonic = 4 / sum(1 / (f1 + 1e-6) for f1 in (1.0, minor, major, 1.0))
    assert found["damage_f1"] == pytest.approx(harmonic, rel=1e-12)
    assert found["score"] == pytest.approx(0.3 + 0.7 * harmonic, rel=1e-12)
    assert score((BUILDINGS, worse)).value == pytest.approx(0.3 + 0.7 * (1 + minor + major + 1) / 4)


def test_numbers_of_the_official_code() -> None:
    """Four made-up scenes and what DIUx-xView/xView2_scoring@ea0793d prints for them; the first has two levels only."""
    rng = np.random.default_rng(0)
    scores = []
    for scene in range(4):
        blocks = rng.integers(0, 5 if scene else 3, (32, 32)) * (rng.random((32, 32)) < 0.5)
        truth = np.kron(blocks, np.ones((32, 32))).astype(np.uint8)
        damage = truth.copy()
        noisy = rng.random(truth.shape) < 0.2
        damage[noisy] = rng.integers(0, 5, noisy.sum())
        buildings = (damage > 0).astype(np.uint8)
        buildings[rng.random(truth.shape) < 0.1] ^= 1
        scores.append(score((buildings, damage), ((truth > 0).astype(np.uint8), truth)))
    assert numbers(scores) == pytest.approx(
        {
            "score": 0.799382963115855,
            "localization_f1": 0.778439544877632,
            "damage_f1": 0.8083587137893792,
            "f1_no_damage": 0.8203666221337935,
            "f1_minor": 0.8231371124110306,
            "f1_major": 0.7911757083102338,
            "f1_destroyed": 0.7996603056018806,
        },
        rel=1e-12,
    )


def test_a_level_that_is_never_found_pulls_the_harmonic_mean_to_nothing() -> None:
    flat = BUILDINGS * np.uint8(1)
    found = numbers([score((BUILDINGS, flat))])
    assert found["damage_f1"] == pytest.approx(4 / (3e6 + 1 / (2 * 8 / (2 * 8 + 14) + 1e-6)), rel=1e-9)
    value = score((BUILDINGS, flat)).value
    assert value is not None and value > 0.3  # but the reward has a slope


@settings(max_examples=60)
@given(st.lists(st.tuples(PAIR, PAIR, arrays.arrays(bool, (4, 5))), min_size=1, max_size=3))
def test_counts_agree_with_scikit_learn(images: list[tuple[Maps, Maps, np.ndarray]]) -> None:
    images = [item for item in images if item[2].any()]
    if not images:
        return
    found = numbers([score(p, t, valid=ImageRef(array=v)) for t, p, v in images])
    built = [(t[0][v] > 0, p[0][v] > 0) for t, p, v in images]
    truth, predicted = (np.concatenate(side) for side in zip(*built, strict=True))
    if (truth | predicted).any():
        assert found["localization_f1"] == pytest.approx(f1_score(truth, predicted, zero_division=0))
    inside = [(t[1][v & (t[1] > 0)], (p[1] * (p[0] > 0))[v & (t[1] > 0)]) for t, p, v in images]
    truth, predicted = (np.concatenate(side) for side in zip(*inside, strict=True))
    for level, name in enumerate(LEVELS, start=1):
        expected = f1_score(truth == level, predicted == level, zero_division=0) if (truth == level).any() else None
        assert found[f"f1_{name}"] == (None if expected is None else pytest.approx(expected)), name


def test_rules_of_the_challenge() -> None:
    everywhere = np.full_like(DAMAGE, 4)
    outside = np.where(DAMAGE > 0, DAMAGE, everywhere).astype(np.uint8)
    found = numbers([score((np.ones_like(BUILDINGS), outside))])
    assert found["damage_f1"] == pytest.approx(1.0, abs=1e-6)  # damage outside true buildings is not looked at
    assert found["localization_f1"] == pytest.approx(2 * 22 / (22 + 64))
    hidden = numbers([score((NOTHING, DAMAGE))])  # nor does it count without a predicted building
    assert (hidden["localization_f1"], hidden["f1_minor"]) == (0.0, 0.0)
    only_minor = np.where(DAMAGE == 2, 2, 0).astype(np.uint8)
    called_destroyed = score((only_minor, np.where(DAMAGE == 2, 4, 0).astype(np.uint8)), (only_minor, only_minor))
    assert called_destroyed.stats["damage"].tolist() == [[0, 0, 0], [0, 0, 8], [0, 0, 0], [0, 8, 0]]
    graded = BUILDINGS * np.uint8(3)  # a map of buildings may hold damage values
    assert score((graded, DAMAGE)).value == score((BUILDINGS, DAMAGE), (graded, DAMAGE)).value == 1.0


def test_samples_without_buildings() -> None:
    assert score((NOTHING, NOTHING), (NOTHING, NOTHING)).value == 1.0
    assert score((BUILDINGS, DAMAGE), (NOTHING, NOTHING)).value == 0.0
    assert score((NOTHING, NOTHING)).value == 0.0
    empty = score((NOTHING, NOTHING), (NOTHING, NOTHING))
    assert numbers([empty]) == dict.fromkeys(numbers([empty]))
    (metric,) = BuildingDamage().metrics()
    notes = metric.notes(pd.DataFrame({"stats": [empty.stats]}))  # type: ignore[attr-defined]
    assert set(notes) == set(metric.keys)
    some = score((BUILDINGS, np.minimum(DAMAGE, 2)), (BUILDINGS, np.minimum(DAMAGE, 2)))
    found = numbers([some])
    assert (found["f1_minor"], found["f1_major"], found["damage_f1"], found["score"]) == (1.0, None, None, None)
    notes = metric.notes(pd.DataFrame({"stats": [some.stats]}))  # type: ignore[attr-defined]
    assert notes["score"] == "the truth has no building of damage major, destroyed"
    assert some.value == 1.0


@settings(max_examples=100)
@given(st.lists(st.tuples(PAIR, PAIR), max_size=2), PAIR, PAIR)
def test_no_wrong_maps_are_worth_less_than_missing_ones(
    others: list[tuple[Maps, Maps]], truth: Maps, predicted: Maps
) -> None:
    rest = [score(p, t) for t, p in others]
    answered, missing = numbers([*rest, score(predicted, truth)]), numbers([*rest, score(None, truth)])
    for key, value in answered.items():
        if value is not None:
            assert missing[key] is not None and missing[key] <= value + 1e-12, key  # type: ignore[operator]


def test_unusable_maps() -> None:
    five = DAMAGE.copy()
    five[7, 7] = 5
    white = BUILDINGS * np.uint8(255)
    for predicted, reason in (
        ((BUILDINGS, five), "the map of damage holds the value 5; classes are 0 .. 4"),
        ((white, DAMAGE), "the map of buildings holds the value 255; classes are 0 .. 4"),
        ((BUILDINGS[:4], DAMAGE), "the map of buildings has 8 x 4 pixels, the true one 8 x 8"),
        (None, "no map of buildings in the output"),
    ):
        found = score(predicted)
        assert (found.status, found.value, found.reason) == (Status.INVALID_OUTPUT, 0.0, reason)
        assert found.stats["localization"].tolist() == [0, 42, 22]
        assert found.stats["damage"].tolist() == [[0, 14, 8], [0, 14, 8], [0, 18, 4], [0, 20, 2]]
    assert score((BUILDINGS, DAMAGE), (BUILDINGS, five)).status is Status.ERROR
    assert score((BUILDINGS, DAMAGE), (BUILDINGS, DAMAGE[:4])).status is Status.ERROR


def test_pixels_without_data_do_not_count() -> None:
    labels = DAMAGE.copy()
    labels[0] = 255
    other = DAMAGE.copy()
    other[0] = 200
    found = score((BUILDINGS, other), damage=ImageRef(array=labels, nodata=255))
    assert (found.value, found.stats["localization"].tolist()) == (1.0, [14, 0, 0])
