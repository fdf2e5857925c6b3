"""Whether a forecast of a disaster damages the right buildings, as a frozen damage network sees it; ``damage_consistency``.

Values of the maps and the score are those of :mod:`rsw_rewards.verifiers.damage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context
from rsw_rewards.detectors import LEVELS, Views, load_damage_detector, predict_pairs
from rsw_rewards.verifiers.confusion import mean_of_defined
from rsw_rewards.verifiers.damage import LOCALIZATION_WEIGHT, damage_counts, damage_metrics, localization_counts
from rsw_rewards.verifiers.detector_consistency import (
    NetworkConfig,
    NetworkVerifier,
    PairTruth,
    false_alarm_value,
    read_pair,
    soft_dice,
)
from rsw_rewards.verifiers.forecast_case import fitting
from rsw_rewards.verifiers.maps import read_class_truth


def _numbers(sums: Sums) -> Numbers:
    """``xview2_score``, ``xview2_localization_f1``, ``xview2_damage_f1`` and an F1 for each level."""
    found = damage_metrics(sums.get("localization", np.zeros(3)), sums.get("damage", np.zeros((LEVELS - 1, 3))))
    return {f"xview2_{key}": value for key, value in found.items()}


KEYS = tuple(_numbers({}))


def soft_damage_value(probability: np.ndarray, truth: np.ndarray) -> float:
    """Value of (n, 5) probabilities for (n,) uint8 true levels: 0.3 soft Dice of buildings + 0.7 mean soft Dice of true levels.

    Levels are compared within the true buildings, as the challenge does. Without a true building: the value of false alarms.
    """
    built = truth > 0
    if not built.any():
        return false_alarm_value(float((probability.argmax(axis=-1) > 0).mean()))
    located = soft_dice(1.0 - probability[:, 0], built)
    graded = mean_of_defined(
        [
            soft_dice(probability[built, level], truth[built] == level) if (truth == level).any() else None
            for level in range(1, LEVELS)
        ]
    )
    assert graded is not None
    return min(1.0, max(0.0, LOCALIZATION_WEIGHT * located + (1.0 - LOCALIZATION_WEIGHT) * graded))


class DamageConsistency(NetworkVerifier):
    """Whether a frozen damage network grades the buildings of a forecast as those of the true future are damaged."""

    name = "damage_consistency"
    needs = frozenset({"output.image", "reference.images", "reference.damage", "detector"})

    class Config(NetworkConfig):
        """Which network, and what its answer is held against."""

        detector: str = Field(
            description="a damage detector: torchscript:file, file.py:object#weights=file, pkg.mod:object"
        )

    card = Card(
        summary=(
            "A frozen network grades building damage between the input and the forecast; its map is compared "
            "with the true damage, or with its own map of the true future."
        ),
        range="F1 in [0, 1]; the metrics stand under xview2_score, xview2_localization_f1, xview2_damage_f1 and one key a level",
        transform=(
            "0.3 soft Dice of buildings + 0.7 mean soft Dice of the true levels; without a true building 1 / "
            "(1 + 100 * share called a building)."
        ),
        source=(
            "the score of xView2 (DIUx-xView/xView2_scoring), from summed counts; RSEdit uses it for edited images."
        ),
        gaming="Texture can deceive the network. Damage outside of true buildings costs only localization.",
        cost="one pass of the network per new pair",
    )
    reported = (SumMetric(KEYS, _numbers, bounds=(0.0, 1.0)),)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.detector = load_damage_detector(self.config.detector, context.device)

    def answers(self, pairs: Sequence[Views]) -> list[np.ndarray]:
        network = self.detector
        return predict_pairs(network.predict_levels, pairs, network.name, self.context.device, levels=LEVELS)

    def truth(self, sample: Sample) -> PairTruth | Score:
        """With the true levels; pixels where the map has no data do not count."""
        if sample.reference.get("damage") is None:
            return Score.not_applicable("the sample has no map of damage (reference.damage)")
        pair = read_pair(self.context.bank, sample, self.bands)
        damage = read_class_truth(sample, ("damage",), LEVELS)
        levels = fitting("reference.damage", damage.maps[0], pair.counted.shape)
        pair = pair.counting(damage.valid)
        return replace(pair, levels=np.where(pair.counted, levels, 0))

    def rated(self, truth: PairTruth, found: np.ndarray) -> Score:
        levels = truth.levels if truth.expected is None else truth.expected.argmax(axis=-1).astype(np.uint8)
        assert levels is not None
        return self._judged(found, levels, truth.counted)

    def _judged(self, probability: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> Score:
        found = probability.argmax(axis=-1).astype(np.uint8)
        stats = {
            "localization": localization_counts(truth > 0, found > 0, valid),
            "damage": damage_counts(truth > 0, truth, found, valid),
        }
        raw = {key: value for key, value in damage_metrics(**stats).items() if value is not None}
        return Score(soft_damage_value(probability[valid], truth[valid]), raw=raw, stats=stats)

    def worst(self, truth: PairTruth, reason: str) -> Score:
        """Every pixel is a miss or a false alarm of the buildings and of each level, whatever the network would see."""
        levels, valid = truth.levels, truth.counted
        assert levels is not None
        n, pixels = int(valid.sum()), np.bincount(levels[valid], minlength=LEVELS)[1:].astype(np.float64)
        stats = {
            "localization": localization_counts(levels > 0, levels == 0, valid),
            "damage": np.stack([np.zeros(LEVELS - 1), n - pixels, pixels], axis=1),
        }
        return Score.invalid(reason, raw={"localization_f1": 0.0}, stats=stats)
