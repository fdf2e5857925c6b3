"""Damage seen in forecasts by a frozen network: the challenge's score from summed counts, and its bias cancelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.damage import damage_metrics
from rsw_rewards.verifiers.damage_consistency import KEYS, DamageConsistency, soft_damage_value
from tests.verifiers.made_forecasts import metrics, noisy, plain, ready, score_one, value_of

SIZE = 40
DAMAGE = np.zeros((SIZE, SIZE), np.uint8)
for _level in range(1, 5):
    DAMAGE[4:16, 8 * _level : 8 * _level + 6] = _level
SHADES = np.array([0, 50, 100, 150, 200], np.uint8)


class Shades:
    """Reads the level of damage off the green band of the later picture, and buildings off the blue band of the earlier one."""

    name, weights_sha256, most = "shades", "0", 4

    def predict_levels(self, before: np.ndarray, after: np.ndarray, valid: np.ndarray) -> np.ndarray:
        level = np.where(before[..., 2] > 128, np.clip(np.rint(after[..., 1] / 50.0), 1, self.most), 0).astype(int)
        return np.eye(5, dtype=np.float32)[level] * 0.9 + np.float32(0.02)


class Blunt(Shades):
    """Never sees more than minor damage."""

    most = 2


SHADES_NETWORK, BLUNT = Shades(), Blunt()


def pictures(damage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    before = np.full((SIZE, SIZE, 3), 60, np.uint8)
    before[DAMAGE > 0] = (60, 50, 220)
    after = before.copy()
    after[..., 1] = np.where(damage > 0, SHADES[damage], after[..., 1])
    return before, after


BEFORE, FUTURE = pictures(DAMAGE)


def sample(damage: np.ndarray = DAMAGE, **more: ImageRef) -> Sample:
    reference = {"images": [ImageRef(array=FUTURE)], "damage": ImageRef(array=damage), **more}
    return Sample("s", Task.FORECAST, (ImageRef(array=BEFORE),), reference=reference)


def grading(which: str = "SHADES_NETWORK", **config: object) -> Verifier:
    return ready(DamageConsistency, detector=f"{Path(__file__)}:{which}", **config)


def test_the_truth_scores_one_and_a_copy_finds_undamaged_buildings_alone() -> None:
    verifier = grading()
    truth, copied = score_one(verifier, sample(), FUTURE), score_one(verifier, sample(), BEFORE)
    numbers = metrics(verifier, [truth])
    assert tuple(numbers) == KEYS
    assert all(value == pytest.approx(1.0, abs=1e-5) for value in numbers.values())
    assert truth.value is not None and truth.value > 0.9
    missed = metrics(verifier, [copied])
    assert missed["xview2_localization_f1"] == 1.0 and missed["xview2_f1_destroyed"] == 0.0
    assert missed["xview2_score"] == pytest.approx(0.3, abs=1e-4)
    assert copied.value is not None and copied.value < 0.5
    # One level right of three wrong: a slope that the harmonic mean of the benchmark does not have.
    half = np.where(DAMAGE == 4, 4, np.minimum(DAMAGE, 1)).astype(np.uint8)
    assert copied.value < value_of(verifier, sample(), pictures(half)[1]) < truth.value


def test_counts_add_up_as_the_challenge_adds_them() -> None:
    verifier = grading()
    outputs = [FUTURE, BEFORE, noisy(FUTURE, 0, 30)]
    scores = [score_one(verifier, sample(), picture) for picture in outputs]
    summed = {key: sum(np.asarray(score.stats[key]) for score in scores) for key in ("localization", "damage")}
    expected = damage_metrics(**summed)
    assert metrics(verifier, scores) == {f"xview2_{key}": value for key, value in expected.items()}


def test_against_the_network_its_bias_cancels() -> None:
    biased = score_one(grading("BLUNT"), sample(), FUTURE)
    fair = score_one(grading("BLUNT", against="detector"), sample(), FUTURE)
    assert fair.raw["localization_f1"] == 1.0 and fair.raw["f1_minor"] == 1.0
    assert biased.raw["f1_destroyed"] == 0.0 and "f1_destroyed" not in fair.raw
    assert fair.value is not None and biased.value is not None and fair.value > biased.value


def test_empty_maps() -> None:
    empty = sample(np.zeros_like(DAMAGE))
    none = np.full_like(BEFORE, 60)
    bare = Sample(
        "s", Task.FORECAST, (ImageRef(array=none),), reference={**empty.reference, "images": [ImageRef(array=none)]}
    )
    assert score_one(grading(), bare, none).value == 1.0
    # The network sees buildings in the input that the map does not have: false alarms.
    score = score_one(grading(), empty, FUTURE)
    assert score.value is not None and score.value < 0.1 and score.raw["localization_f1"] == 0.0


@pytest.mark.parametrize("against", ["mask", "detector"])
def test_an_invalid_output_is_worse_than_any_picture(against: str) -> None:
    verifier = grading(against=against)
    base = [score_one(verifier, sample(), FUTURE)] * 2
    lost = verifier.invalid(sample(), "gone")
    assert lost.status is Status.INVALID_OUTPUT and lost.value == 0.0
    worst = metrics(verifier, [*base, lost])
    for picture in (BEFORE, 255 - FUTURE, noisy(FUTURE, 1, 90), np.zeros_like(FUTURE)):
        numbers = metrics(verifier, [*base, score_one(verifier, sample(), picture)])
        assert all((numbers[key] or 0.0) >= (worst[key] or 0.0) for key in KEYS)


@given(arrays(np.uint8, (3, SIZE, SIZE, 3)), arrays(np.bool_, (SIZE, SIZE)))
def test_what_does_not_count_moves_no_bit(garbage: np.ndarray, hidden: np.ndarray) -> None:
    hidden[6, 10] = False
    valid = ImageRef(array=(~hidden).astype(np.uint8) * 255)
    output = noisy(FUTURE, 2, 20)
    parts = zip(garbage, (BEFORE, FUTURE, output), strict=True)
    before, future, other = (np.where(hidden[..., None], mess, part) for mess, part in parts)
    one = sample(valid=valid)
    reference = {
        **one.reference,
        "images": [ImageRef(array=future)],
        "damage": ImageRef(array=np.where(hidden, 3, DAMAGE)),
    }
    spoiled = Sample("s", Task.FORECAST, (ImageRef(array=before),), reference=reference)
    for verifier in (grading(), grading(against="detector")):
        assert plain([score_one(verifier, one, output)]) == plain([score_one(verifier, spoiled, other)])


def test_statuses_and_configuration() -> None:
    verifier = grading()
    bare = Sample("s", Task.FORECAST, (ImageRef(array=BEFORE),), reference={"images": [ImageRef(array=FUTURE)]})
    assert score_one(verifier, bare, FUTURE).status is Status.NOT_APPLICABLE
    assert score_one(verifier, sample(DAMAGE[:8]), FUTURE).status is Status.ERROR
    assert score_one(verifier, sample(np.full_like(DAMAGE, 9)), FUTURE).status is Status.ERROR
    assert score_one(verifier, sample(), FUTURE[:8]).status is Status.INVALID_OUTPUT
    with pytest.raises(ConfigError, match="detector"):
        build("damage_consistency")
    with pytest.raises(ConfigError, match="predict_levels"):
        ready(DamageConsistency, detector="scene-detector")


@given(
    arrays(np.float32, (12, 5), elements={"min_value": 0, "max_value": 1}),
    arrays(np.uint8, 12, elements={"min_value": 0, "max_value": 4}),
)
def test_the_value_is_in_range(probability: np.ndarray, truth: np.ndarray) -> None:
    assert 0.0 <= soft_damage_value(probability, truth) <= 1.0
    assert soft_damage_value(np.eye(5)[truth], truth) == pytest.approx(1.0)
