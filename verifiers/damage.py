"""Building damage after a disaster: where buildings are and how badly each pixel of them is damaged; the ``building_damage`` verifier.

Maps hold 0 = no building, 1 = no damage, 2 = minor damage, 3 = major damage, 4 = destroyed; in the map of buildings any of 1 .. 4
is a building, as in the files of the xView2 challenge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Metric, Numbers, Sums
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.confusion import confusion_matrix, f1_score, mean_of_defined
from rsw_rewards.verifiers.maps import ExplainedMetric, MapTruth, MapVerifier, read_class_truth, read_classes

LEVELS = ("no_damage", "minor", "major", "destroyed")
"""Names of the damage values 1 .. 4."""
VALUES = len(LEVELS) + 1
LOCALIZATION_WEIGHT = 0.3
LEVEL_EPSILON = 1e-7
"""What MambaBDA adds to the denominators of precision, recall and F1 of a level."""
HARMONIC_EPSILON = 1e-6
"""What the challenge adds to each F1 before their harmonic mean, so that a class never found does not divide by zero."""


def localization_counts(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """``[hits, false alarms, misses]`` of building pixels, (3,) float64, from (H, W) bool masks."""
    (_, wrong), (missed, hits) = confusion_matrix(truth, predicted, valid)
    return np.array([hits, wrong, missed], dtype=np.float64)


def damage_counts(built: np.ndarray, truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """``[hits, false alarms, misses]`` of every damage level within the true buildings.

    Args:
        built: (H, W) bool, the true buildings.
        truth: (H, W) uint8 damage, 0 .. 4.
        predicted: (H, W) uint8 damage, 0 where no building is predicted.
        valid: (H, W) bool, the pixels that count.

    Returns:
        (4, 3) float64.
    """
    counts = confusion_matrix(truth, predicted, built if valid is None else built & valid, VALUES).astype(np.float64)
    return _by_level(counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0))


def _by_level(hits: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.stack([hits, predicted - hits, truth - hits], axis=1)[1:]


def unmasked_metrics(localization: np.ndarray, damage: np.ndarray) -> dict[str, float | None]:
    """The same numbers as ChenHongruixuan/MambaCD@96c3240 prints them: 1e-7 in every denominator of a level, and none in the harmonic mean.

    A level that is never found makes damage_f1 0.
    """
    located = f1_score(*localization)
    levels = []
    for hits, wrong, missed in damage.tolist():
        precision, recall = hits / (hits + wrong + LEVEL_EPSILON), hits / (hits + missed + LEVEL_EPSILON)
        levels.append(2 * precision * recall / (precision + recall + LEVEL_EPSILON))
    harmonic = len(levels) / sum(1 / level for level in levels) if all(levels) else 0.0
    return _named(located, harmonic, levels)


def _named(located: float | None, harmonic: float | None, levels: Sequence[float | None]) -> Numbers:
    score = None
    if located is not None and harmonic is not None:
        score = LOCALIZATION_WEIGHT * located + (1.0 - LOCALIZATION_WEIGHT) * harmonic
    return {
        "score": score,
        "localization_f1": located,
        "damage_f1": harmonic,
        **{f"f1_{name}": level for name, level in zip(LEVELS, levels, strict=True)},
    }


def damage_metrics(localization: np.ndarray, damage: np.ndarray) -> dict[str, float | None]:
    """The numbers of the xView2 challenge from summed counts, as ``XviewMetrics`` of DIUx-xView/xView2_scoring has them.

    Args:
        localization: (3,) of :func:`localization_counts`.
        damage: (4, 3) of :func:`damage_counts`.

    Returns:
        ``localization_f1``, ``f1_no_damage``, ``f1_minor``, ``f1_major``, ``f1_destroyed``, ``damage_f1`` (the harmonic mean
        ``4 / sum 1 / (f1 + 1e-6)``) and ``score`` = 0.3 localization_f1 + 0.7 damage_f1. The F1 of a level without a pixel in
        the truth is None, and with it damage_f1 and score, where the challenge's code would give 0 and pull the mean to 4e-6.
    """
    levels = [f1_score(*counts) if counts[0] + counts[2] else None for counts in damage]
    known = [level for level in levels if level is not None]
    harmonic = None if None in levels else len(known) / sum(1.0 / (level + HARMONIC_EPSILON) for level in known)
    return _named(f1_score(*localization), harmonic, levels)


def sample_value(numbers: Mapping[str, float | None]) -> float:
    """Value of one sample in [0, 1]: 0.3 localization F1 + 0.7 mean F1 of the levels that its truth has.

    Without a building in the truth it is localization alone: 1 where none is predicted, else 0.
    """
    located = numbers["localization_f1"]
    located = 1.0 if located is None else located
    graded = mean_of_defined([numbers[f"f1_{name}"] for name in LEVELS])
    if graded is None:
        return located
    return min(1.0, LOCALIZATION_WEIGHT * located + (1.0 - LOCALIZATION_WEIGHT) * graded)


class BuildingDamage(MapVerifier):
    """Agreement of predicted buildings and their damage with the true ones, over the pixels that count."""

    name = "building_damage"
    tasks = frozenset({Task.DAMAGE})
    needs = frozenset({"output.buildings", "output.damage", "reference.buildings", "reference.damage"})
    card = Card(
        summary=(
            "Counts building pixels (0 none, 1 to 4 building) and, within the true buildings, pixels of each "
            "damage level (1 none, 2 minor, 3 major, 4 destroyed)."
        ),
        range="F1 in [0, 1]. For one sample: 1 if neither map has a building, 0 if only the prediction has one",
        transform=(
            "0.3 localization F1 + 0.7 mean F1 of the levels in the sample's reference. The benchmark's mean is "
            "harmonic, which stays 0 until every level is found"
        ),
        source=(
            "xView2 (arXiv 1911.09296), DIUx-xView/xView2_scoring: 0.3 localization_f1 + 0.7 damage_f1, from "
            "counts summed over images."
        ),
        gaming=(
            "Damage outside of true buildings costs nothing, so a map in which everything is a building loses only "
            "localization F1."
        ),
        cost="about five milliseconds per megapixel of a pair, plus decoding",
    )

    class Config(NoConfig):
        """Configuration of ``building_damage``."""

        unmasked: bool = Field(
            False,
            description="damage counts in all true buildings, also where none is predicted, as MambaBDA evaluates xBD",
        )

    def truth(self, sample: Sample) -> MapTruth | Score:
        return read_class_truth(sample, ("buildings", "damage"), VALUES)

    def compare(self, truth: MapTruth, output: Output) -> Score:
        buildings = read_classes(output.buildings, truth, VALUES, "map of buildings") > 0
        damage = read_classes(output.damage, truth, VALUES, "map of damage")
        true_buildings, true_damage = truth.maps
        unmasked = self.config.unmasked
        built = true_buildings > 0 if unmasked else true_damage > 0
        stats = {
            "localization": localization_counts(true_buildings > 0, buildings, truth.valid),
            "damage": damage_counts(built, true_damage, damage if unmasked else damage * buildings, truth.valid),
        }
        numbers = damage_metrics(**stats)  # of one image, in which a level may not occur
        raw = {key: value for key, value in numbers.items() if value is not None}
        return Score(sample_value(numbers), raw=raw, stats=stats)

    def worst(self, truth: MapTruth, reason: str) -> Score:
        true_buildings, true_damage = truth.maps
        pixels = np.bincount(
            (true_damage if truth.valid is None else true_damage[truth.valid]).ravel(), minlength=VALUES
        )
        pixels[0] = 0
        none = np.zeros(VALUES)
        stats = {
            "localization": localization_counts(true_buildings > 0, true_buildings == 0, truth.valid),
            # Every true pixel is a miss of its level and a false alarm of each other one: worse than any map could be.
            "damage": _by_level(none, pixels.astype(np.float64), (pixels.sum() - pixels).astype(np.float64)),
        }
        return Score.invalid(reason, raw={"localization_f1": 0.0}, stats=stats)

    def metrics(self) -> Sequence[Metric]:
        def numbers(sums: Sums) -> Numbers:
            metrics = unmasked_metrics if self.config.unmasked else damage_metrics
            return metrics(sums.get("localization", np.zeros(3)), sums.get("damage", np.zeros((len(LEVELS), 3))))

        def why(sums: Sums) -> dict[str, str]:
            found = numbers(sums)
            absent = [name for name in LEVELS if found[f"f1_{name}"] is None]
            reasons = {f"f1_{name}": "the truth has no building of this damage" for name in absent}
            if absent:
                reasons |= dict.fromkeys(
                    ("damage_f1", "score"), f"the truth has no building of damage {', '.join(absent)}"
                )
            if found["localization_f1"] is None:
                reasons["localization_f1"] = "neither the truth nor the predictions have a building"
            return reasons

        return (ExplainedMetric(tuple(numbers({})), numbers, (0.0, 1.0), why),)
