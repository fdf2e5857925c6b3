"""Whether a forecast of a disaster damages the right buildings, as a frozen damage network sees it; ``damage_consistency``.

Values of the maps and the score are those of :mod:`rsw_rewards.verifiers.damage`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field, field_validator

from rsw_rewards.core.metric import Metric, SumMetric
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Card, Context, NoConfig, Verifier
from rsw_rewards.detectors import LEVELS, Views, detector_bands, load_damage_detector, predict_pairs
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.confusion import mean_of_defined
from rsw_rewards.verifiers.damage import LOCALIZATION_WEIGHT, damage_counts, damage_metrics, localization_counts
from rsw_rewards.verifiers.detector_consistency import (
    Against,
    Seen,
    bank_of,
    false_alarm_value,
    read_seen,
    read_shown,
    soft_dice,
)
from rsw_rewards.verifiers.maps import read_class_truth

KEYS = tuple(f"xview2_{key}" for key in damage_metrics(np.zeros(3), np.zeros((LEVELS - 1, 3))))
"""``xview2_score``, ``xview2_localization_f1``, ``xview2_damage_f1`` and an F1 for each level."""


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


class DamageConsistencyConfig(NoConfig):
    """Which network, and what its answer is held against."""

    detector: str = Field(
        description="a damage detector: torchscript:file, file.py:object#weights=file, pkg.mod:object"
    )
    against: Against = Field(
        "mask",
        description="mask: the true map of damage; detector: what it sees between input and true future, so that its bias cancels",
    )

    @field_validator("detector")
    @classmethod
    def _readable(cls, name: str) -> str:
        try:
            detector_bands(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name


class DamageConsistency(Verifier):
    """Whether a frozen damage network grades the buildings of a forecast as those of the true future are damaged."""

    name: ClassVar[str] = "damage_consistency"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.FORECAST})
    needs: ClassVar[frozenset[str]] = frozenset({"output.image", "reference.images", "reference.damage", "detector"})
    Config: ClassVar[type[BaseModel]] = DamageConsistencyConfig
    card: ClassVar[Card] = Card(
        summary="A frozen network that grades building damage (0 none, 1 to 4) looks at the input and the forecast; its map is held "
        "against reference.damage, or against its own map of the input and the true future. Pixels outside 'valid', of nodata and "
        "under clouds are left out",
        range="F1 in [0, 1]; the metrics stand under xview2_score, xview2_localization_f1, xview2_damage_f1 and one key a level",
        transform="0.3 soft Dice of buildings + 0.7 mean soft Dice of the levels that the truth has, within its buildings; without "
        "a true building 1 / (1 + 100 * share of pixels called a building)",
        source="0.3 localization F1 + 0.7 harmonic mean of the levels' F1, from summed counts: the score of xView2 "
        "(DIUx-xView/xView2_scoring@xview2_metrics.py), which RSEdit takes for edited images",
        gaming="a network can be fooled by texture; damage outside true buildings costs localization only. A copy of the input "
        "keeps every building undamaged, which is right for most buildings of most disasters: read the levels' F1. An invalid "
        "output is wrong in every pixel",
        cost="one pass of the network per new pair",
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.bands = detector_bands(self.config.detector)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.detector = load_damage_detector(self.config.detector, context.device)

    def score(self, batch: Batch) -> list[Score]:
        known: dict[int, tuple[Seen, np.ndarray] | Score] = {}
        rows: list[tuple[Seen, np.ndarray, Views] | Score] = []
        for sample, output in zip(batch.samples, batch.outputs, strict=True):
            if id(sample) not in known:
                known[id(sample)] = self._read(self.context.bank, sample)
            rows.append(self._shown(known[id(sample)], output))
        pairs = [row[2] for row in rows if not isinstance(row, Score)]
        if self.config.against == "detector":
            pairs += [row[0].true for row in rows if not isinstance(row, Score)]
        said = predict_pairs(
            self.detector.predict_levels, pairs, self.detector.name, self.context.device, levels=LEVELS
        )
        of_forecast, of_truth = iter(said), iter(said[len(pairs) // 2 :])
        scores = []
        for row in rows:
            if isinstance(row, Score):
                scores.append(row)
                continue
            seen, truth, _ = row
            if self.config.against == "detector":
                truth = next(of_truth).argmax(axis=-1).astype(np.uint8)
            scores.append(self._compare(next(of_forecast), truth, seen.counted))
        return scores

    def invalid(self, sample: Sample, reason: str) -> Score:
        known = self._read(bank_of(self), sample)
        return known if isinstance(known, Score) else self._worst(known[1], known[0].counted, reason)

    def _read(self, bank: FeatureBank, sample: Sample) -> tuple[Seen, np.ndarray] | Score:
        """The sample as the network is shown it and its (H, W) true levels; pixels where the map has no data do not count."""
        if sample.reference.get("damage") is None:
            return Score.not_applicable("the sample has no map of damage (reference.damage)")
        seen = read_seen(bank, sample, self.bands)
        if isinstance(seen, Score):
            return seen
        truth = read_class_truth(sample, ("damage",), LEVELS)
        if isinstance(truth, Score):
            return truth
        levels, counted = truth.maps[0], seen.counted
        if levels.shape != counted.shape:
            return Score.error(f"the map of damage of sample {sample.id!r} has another size than its true future")
        counted = counted if truth.valid is None else counted & truth.valid
        if not counted.any():
            return Score.not_applicable("no pixel counts")
        return seen._replace(counted=counted), np.where(counted, levels, 0)

    def _shown(self, known: tuple[Seen, np.ndarray] | Score, output: Output) -> tuple[Seen, np.ndarray, Views] | Score:
        if isinstance(known, Score):
            return known
        seen, truth = known
        try:
            return seen, truth, read_shown(self.context.bank, seen, output, self.bands)
        except ImageError as error:
            return self._worst(truth, seen.counted, str(error))

    def _compare(self, probability: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> Score:
        found = probability.argmax(axis=-1).astype(np.uint8)
        stats = {
            "localization": localization_counts(truth > 0, found > 0, valid),
            "damage": damage_counts(truth, found, valid),
        }
        raw = {key: value for key, value in damage_metrics(**stats).items() if value is not None}
        return Score(soft_damage_value(probability[valid], truth[valid]), raw=raw, stats=stats)

    def _worst(self, truth: np.ndarray, valid: np.ndarray, reason: str) -> Score:
        """Every pixel is a miss or a false alarm of the buildings and of each level, whatever the network would see."""
        n, pixels = int(valid.sum()), np.bincount(truth[valid], minlength=LEVELS)[1:].astype(np.float64)
        stats = {
            "localization": localization_counts(truth > 0, truth == 0, valid),
            "damage": np.stack([np.zeros(LEVELS - 1), n - pixels, pixels], axis=1),
        }
        return Score.invalid(reason, raw={"localization_f1": 0.0}, stats=stats)

    def metrics(self) -> Sequence[Metric]:
        def numbers(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
            found = damage_metrics(sums.get("localization", np.zeros(3)), sums.get("damage", np.zeros((LEVELS - 1, 3))))
            return {f"xview2_{key}": value for key, value in found.items()}

        return (SumMetric(KEYS, numbers, bounds=(0.0, 1.0)),)
