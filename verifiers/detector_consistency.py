"""Whether a frozen change detector sees the right change between input and forecast; the ``detector_consistency`` verifier.

Two empty masks agree: the sample's F1 and IoU are 1. The corpus numbers come from summed counts, to which such a sample adds
nothing; it counts in ``no_change_accuracy`` instead.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from rsw_rewards.core.metric import Metric, Numbers, SumMetric, Sums
from rsw_rewards.core.per_sample import Unscored
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context, NoConfig
from rsw_rewards.detectors import SCENE_DETECTOR, Views, detector_bands, load_detector, predict_pairs
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.confusion import binary_change_metrics, confusion_matrix, ratio
from rsw_rewards.verifiers.forecast_case import NOTHING_COUNTS, ForecastCase, PerForecast, fitting, read_case
from rsw_rewards.verifiers.rasters import Rasters, read_rasters
from rsw_rewards.verifiers.regions import dilate, ignore_levels, steadied

Against = Literal["mask", "detector"]


def soft_dice(probability: np.ndarray, truth: np.ndarray) -> float:
    """``2 sum p t / (sum p^2 + sum t^2)``: Dice with a slope where nothing crosses the threshold yet (Milletari et al. 2016).

    (n,) probabilities in [0, 1]; the truth, bool or probabilities, must not be 0 everywhere. 1 if and only if both are equal.
    """
    p, t = probability.astype(np.float64), truth.astype(np.float64)
    return min(1.0, float(2.0 * (p * t).sum() / (np.square(p).sum() + np.square(t).sum())))


def false_alarm_value(share: float) -> float:
    """Value of detecting change over this share of an unchanged scene: ``1 / (1 + 100 share)``, 0.5 for one pixel in a hundred."""
    return 1.0 / (1.0 + 100.0 * share)


def detector_label(name: str) -> str:
    """A short form of a detector's name for metric keys: ``cva:3`` gives ``cva-3``, ``torchscript:/w/net.pt`` ``net``."""
    plain = name.partition("#")[0]
    kind, _, rest = plain.partition(":")
    if kind == "torchscript" or not rest:
        plain = Path(rest or kind).stem
    elif kind != "cva":
        plain = rest
    return re.sub(r"[^\w.-]+", "-", plain).strip("-")


@dataclass(slots=True, eq=False)
class PairTruth:
    """A sample as a detector is shown it."""

    source: ForecastCase | Rasters
    """What forecasts are read against."""
    true: Views
    """Input and true future, with the pixels that the detector sees."""
    counted: np.ndarray
    """(H, W) bool, those of them that the score is taken over; at least one is True."""
    mask: np.ndarray | None
    """(H, W) bool, the reference change mask, if there is one."""
    levels: np.ndarray | None = None
    """(H, W) uint8, the true map of damage, 0 where no pixel counts; None for a detector of change."""
    expected: np.ndarray | None = None
    """What the detector sees in the true pair, once it was asked: (H, W) float32, or (H, W, levels)."""

    def counting(self, counts: np.ndarray | None) -> PairTruth:
        """This sample where ``counts`` is True alone, (H, W) bool; None leaves it as it is. Raises :class:`Unscored` for no pixel."""
        counted = self.counted if counts is None else self.counted & counts
        if not counted.any():
            raise Unscored(NOTHING_COUNTS)
        return replace(self, counted=counted)


class NetworkConfig(NoConfig):
    """Which network looks at a forecast, and what its answer is held against."""

    detector: str
    against: Against = Field(
        "mask",
        description="mask: the true map; detector: what it sees between input and true future, so that its bias cancels",
    )

    @field_validator("detector")
    @classmethod
    def _readable(cls, name: str) -> str:
        try:
            detector_bands(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name


class DetectorConfig(NetworkConfig):
    """Which detector, and what its answer is held against."""

    detector: str = Field(
        SCENE_DETECTOR,
        description="a change detector by name, folder, torchscript:file, pkg.mod:object or file.py:object, or cva",
    )
    threshold: float = Field(0.5, gt=0.0, lt=1.0, description="probability from which a pixel counts as changed")
    soft: bool = Field(
        True, description="value from probabilities (a slope everywhere) rather than from the thresholded mask"
    )
    band: int = Field(
        0, ge=0, description="pixels around the true mask that do not count: tolerance for masks and registration"
    )
    outside_valid: Literal["hidden", "shown"] = Field(
        "hidden",
        description="what the detector sees where reference.valid does not count: one colour, or the pixels, as context; "
        "shown suits labels that cover a part of the scene. Nodata and clouds are always hidden",
    )
    ignore_levels: int = ignore_levels("detector")

    @model_validator(mode="after")
    def _has_grey_levels(self) -> DetectorConfig:
        if self.ignore_levels and detector_bands(self.detector) is not None:
            raise ValueError("ignore_levels counts grey levels of images, and the detector reads bands of rasters")
        return self


def read_pair(
    bank: FeatureBank, sample: Sample, bands: tuple[int, ...] | None, outside_valid: str = "hidden"
) -> PairTruth:
    """A sample as a detector that reads ``bands`` (None: images in RGB) is shown it.

    Raises:
        ImageError: an image or a mask cannot be used.
        Unscored: there is none, or no pixel counts.
    """
    labelled = sample.reference.get("valid") if outside_valid == "shown" else None
    if labelled is not None:
        sample = replace(sample, reference={key: item for key, item in sample.reference.items() if key != "valid"})
    pair = _pair_shown(bank, sample) if bands is None else _pair_in_bands(bank, sample, bands)
    if labelled is None:
        return pair
    return pair.counting(fitting("reference.valid", bank.mask(labelled), pair.counted.shape))


def _pair_shown(bank: FeatureBank, sample: Sample) -> PairTruth:
    case = read_case(bank, sample, future=True, before=True)
    future = case.picture(case.future)
    valid = case.counted(future)
    return PairTruth(case, Views(case.picture(case.newest), future, valid), valid, case.change(future))


def _pair_in_bands(bank: FeatureBank, sample: Sample, bands: tuple[int, ...]) -> PairTruth:
    rasters = read_rasters(bank, sample)
    if max(bands) >= (count := rasters.future.shape[-1]):
        raise Unscored(
            Score.not_applicable(f"the sample has {count} bands, the detector reads band {max(bands)} (counted from 0)")
        )
    before, future = (pixels[..., list(bands)] for pixels in (rasters.before, rasters.future))
    return PairTruth(rasters, Views(before, future, rasters.valid), rasters.valid, rasters.mask)


class NetworkVerifier(PerForecast[PairTruth]):
    """Base of the verifiers that show a forecast to a frozen network beside the input, and hold its answer against a true one."""

    at_once = 32

    @property
    def bands(self) -> tuple[int, ...] | None:
        """The stored bands that the network reads, where it is not shown images in RGB."""
        return detector_bands(self.config.detector)

    @abstractmethod
    def answers(self, pairs: Sequence[Views]) -> list[np.ndarray]:
        """What the network sees in every pair, (H, W, ...) float32."""

    @abstractmethod
    def rated(self, truth: PairTruth, found: np.ndarray) -> Score:
        """The score of what the network sees in a forecast; with ``against: detector``, ``truth.expected`` is known."""

    def compare(self, truth: PairTruth, output: Output) -> Views:
        before, future, valid = truth.true
        if isinstance(truth.source, ForecastCase):
            return Views(before, truth.source.forecast_picture(output), valid)
        assert self.bands is not None
        forecast = truth.source.forecast(output)[..., list(self.bands)]
        if forecast.dtype != future.dtype:
            if "f" not in forecast.dtype.kind + future.dtype.kind or np.uint8 in (forecast.dtype, future.dtype):
                raise ImageError(f"the forecast holds {forecast.dtype} values, the true future {future.dtype}")
            forecast, before = forecast.astype(np.float32), before.astype(np.float32)
        if not np.isfinite(forecast[valid]).all():
            raise ImageError("the forecast holds values that are not finite")
        return Views(before, forecast, valid)

    def rate(self, truths: Sequence[PairTruth], compared: Sequence[Views]) -> list[Score]:
        answers = self.look(compared, truths if self.config.against == "detector" else ())
        return [self.rated(*pair) for pair in zip(truths, answers, strict=True)]

    def look(self, seen: Sequence[Views], truths: Sequence[PairTruth]) -> list[np.ndarray]:
        """The answers to ``seen``; beside them the network is asked what to expect of ``truths``, once each."""
        new = [truth for truth in dict.fromkeys(truths) if truth.expected is None]
        answers = self.answers([*seen, *(truth.true for truth in new)])
        for truth, expected in zip(new, answers[len(seen) :], strict=True):
            truth.expected = expected
        return answers[: len(seen)]


class DetectorConsistency(NetworkVerifier):
    """Whether a frozen change detector sees the right change between the input and the forecast."""

    name = "detector_consistency"
    needs = frozenset({"output.image", "reference.images", "detector"})
    Config = DetectorConfig
    card = Card(
        summary=(
            "The changes that a frozen detector finds between input and forecast, compared with the true change mask "
            "or with those it finds in the true future."
        ),
        range="raw.f1 and raw.iou in [0, 1]; 1 if both masks are empty, 0 if one of them is.",
        transform=(
            "soft Dice of the probabilities with the true mask (soft: false: F1); in a sample without change "
            "1 / (1 + 100 * share detected)."
        ),
        source="literature on remote-sensing image editing scores edits by a detector in the same way (RSEdit); F1 = 2 tp / "
        "(2 tp + fp + fn); soft Dice of arXiv 1606.04797",
        gaming=(
            "Texture that nobody would call a building can deceive the detector. Measure it without rewarding it, or "
            "use it together with gain_over_copy."
        ),
        cost="one pass of the detector per new pair",
    )

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.detector = load_detector(self.config.detector, context.device)

    def compare(self, truth: PairTruth, output: Output) -> Views:
        return self._shown(super().compare(truth, output))

    def _shown(self, pair: Views) -> Views:
        return pair._replace(after=steadied(pair.after, pair.before, self.config.ignore_levels))

    def answers(self, pairs: Sequence[Views]) -> list[np.ndarray]:
        return predict_pairs(self.detector.predict, pairs, self.detector.name, self.context.device)

    def truth(self, sample: Sample) -> PairTruth | Score:
        if self.config.against == "mask" and sample.reference.get("mask") is None:
            return Score.not_applicable("the sample has no change mask (reference.mask)")
        pair = read_pair(self.context.bank, sample, self.bands, self.config.outside_valid)
        pair = replace(pair, true=self._shown(pair.true))
        if not self.config.band or pair.mask is None:
            return pair
        return pair.counting(pair.mask | ~dilate(pair.mask, self.config.band))

    def rated(self, truth: PairTruth, found: np.ndarray) -> Score:
        found = found[truth.counted]
        if self.config.against == "mask":
            assert truth.mask is not None
            expected = true = truth.mask[truth.counted]
            changed, forgiven = bool(true.any()), 0.0
        else:
            if (score := self._unseen(truth)) is not None:
                return score
            assert truth.expected is not None
            expected = truth.expected[truth.counted]
            true = expected >= self.config.threshold
            # What the detector sees in a pair without change is its own error, which no forecast is to repeat.
            changed, forgiven = self._changed(truth), self._share(expected)
        if changed:
            return self._judged(found, true, soft_dice(found, expected))
        return self._judged(found, true, false_alarm_value(max(0.0, self._share(found) - forgiven)))

    def _changed(self, truth: PairTruth) -> bool:
        assert truth.expected is not None
        seen = truth.expected >= self.config.threshold if truth.mask is None else truth.mask
        return bool(seen[truth.counted].any())

    def _unseen(self, truth: PairTruth) -> Score | None:
        """The score of a sample that changes, where the detector is blind to it."""
        assert truth.expected is not None
        if not self._changed(truth) or (truth.expected[truth.counted] >= self.config.threshold).any():
            return None
        return Score.not_applicable(f"the detector {self.detector.name!r} sees no change in the true pair")

    def _share(self, probability: np.ndarray) -> float:
        return float((probability >= self.config.threshold).mean())

    def _judged(self, probability: np.ndarray, truth: np.ndarray, value: float) -> Score:
        """The score of (n,) probabilities against the (n,) bool truth, ``value`` being what they are worth where that is soft."""
        counts = confusion_matrix(truth, probability >= self.config.threshold)
        numbers = binary_change_metrics(counts)
        f1, iou = (1.0 if numbers[key] is None else float(numbers[key] or 0.0) for key in ("f1", "iou"))
        raw = {"f1": f1, "iou": iou, "changed_share": self._share(probability)}
        if truth.any():
            raw["soft_dice"] = value
            value = value if self.config.soft else f1
        return Score(value, raw=raw, stats=self._stats(counts, unchanged=not truth.any()))

    @staticmethod
    def _stats(counts: np.ndarray, unchanged: bool) -> dict[str, np.ndarray]:
        kept = unchanged and not counts[0, 1] and not counts[1, 0]
        return {"confusion": counts.astype(np.float64), "unchanged": np.array([unchanged, kept], dtype=np.float64)}

    def worst(self, truth: PairTruth, reason: str) -> Score:
        """Wrong in every pixel. F1 and IoU depend on the number of wrong pixels alone, so no true mask is needed for it."""
        if self.config.against == "detector":
            self.look((), [truth])
            if (score := self._unseen(truth)) is not None:
                return score
        true = np.zeros(int(truth.counted.sum()), bool) if truth.mask is None else truth.mask[truth.counted]
        # Held against the detector, it also counts as a sample without change in which change was seen in vain.
        unchanged = self.config.against == "detector" or not true.any()
        return Score.invalid(
            reason, raw={"f1": 0.0, "iou": 0.0}, stats=self._stats(confusion_matrix(true, ~true), unchanged)
        )

    def metrics(self) -> Sequence[Metric]:
        label = "" if self.config.detector == SCENE_DETECTOR else detector_label(self.config.detector)
        levels = self.config.ignore_levels
        parts = (label, "vs-detector" * (self.config.against == "detector"), f"over{levels}" * bool(levels))
        tail = "/" + "-".join(part for part in parts if part)
        f1, iou, accuracy = (
            f"{key}{tail if tail != '/' else ''}" for key in ("change_f1", "change_iou", "no_change_accuracy")
        )

        def numbers(sums: Sums) -> Numbers:
            found = binary_change_metrics(sums.get("confusion", np.zeros((2, 2))))
            unchanged, kept = sums.get("unchanged", np.zeros(2))
            return {f1: found["f1"], iou: found["iou"], accuracy: ratio(float(kept), float(unchanged))}

        return (SumMetric((f1, iou, accuracy), numbers, bounds=(0.0, 1.0)),)
