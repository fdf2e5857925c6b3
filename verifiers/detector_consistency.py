"""Whether a frozen change detector sees the right change between input and forecast; the ``detector_consistency`` verifier.

Two empty masks agree: the sample's F1 and IoU are 1. The corpus numbers come from summed counts, to which such a sample adds
nothing; it counts in ``no_change_accuracy`` instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, field_validator

from rsw_rewards.core.metric import Metric, SumMetric
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Card, Context, NoConfig, Verifier
from rsw_rewards.detectors import SCENE_DETECTOR, Views, detector_bands, load_detector, predict_pairs
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.bands import read_band_forecast, read_band_truth
from rsw_rewards.verifiers.confusion import binary_change_metrics, confusion_matrix, ratio
from rsw_rewards.verifiers.regions import dilate, read_forecast, read_future

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


class Seen(NamedTuple):
    """A sample as a detector is shown it."""

    true: Views
    """Input and true future, with the pixels that the detector sees."""
    counted: np.ndarray
    """(H, W) bool, those of them that the score is taken over; at least one is True."""
    mask: np.ndarray | None
    """(H, W) bool, the reference change mask, if there is one."""
    source: Any
    """What the forecast is read against."""


class DetectorConfig(NoConfig):
    """Which detector, and what its answer is held against."""

    detector: str = Field(
        SCENE_DETECTOR,
        description="a change detector by name, folder, torchscript:file, pkg.mod:object or file.py:object, or cva",
    )
    against: Against = Field(
        "mask",
        description="mask: the true mask; detector: what it sees between input and true future, so that its bias cancels",
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

    @field_validator("detector")
    @classmethod
    def _readable(cls, name: str) -> str:
        try:
            detector_bands(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name


def read_seen(
    bank: FeatureBank, sample: Sample, bands: tuple[int, ...] | None, outside_valid: str = "hidden"
) -> Seen | Score:
    """A sample as a detector that reads ``bands`` (None: the pictures in RGB) is shown it, or the score of one that has none."""
    labelled = sample.reference.get("valid") if outside_valid == "shown" else None
    if labelled is not None:
        sample = replace(sample, reference={key: item for key, item in sample.reference.items() if key != "valid"})
    seen = _read_pictures(bank, sample) if bands is None else _read_bands(bank, sample, bands)
    if isinstance(seen, Score):
        return seen
    if labelled is not None:
        try:
            counts = bank.mask(labelled)
        except ImageError as error:
            return Score.error(str(error))
        if counts.shape != seen.counted.shape:
            return Score.error(f"reference.valid of sample {sample.id!r} has another size than its true future")
        seen = seen._replace(counted=seen.counted & counts)
    return seen if seen.counted.any() else Score.not_applicable("no pixel counts")


def _read_pictures(bank: FeatureBank, sample: Sample) -> Seen | Score:
    truth = read_future(bank, sample, before=True)
    if isinstance(truth, Score):
        return truth
    assert truth.before is not None
    return Seen(Views(truth.before, truth.future, truth.valid), truth.valid, truth.mask, truth)


def _read_bands(bank: FeatureBank, sample: Sample, bands: tuple[int, ...]) -> Seen | Score:
    truth = read_band_truth(bank, sample)
    if isinstance(truth, Score):
        return truth
    if max(bands) >= truth.future.shape[-1]:
        return Score.not_applicable(
            f"the sample has {truth.future.shape[-1]} bands, the detector reads band {max(bands)} (counted from 0)"
        )
    pair = Views(truth.before[..., list(bands)], truth.future[..., list(bands)], truth.valid)
    return Seen(pair, truth.valid, truth.mask, truth)


def read_shown(bank: FeatureBank, seen: Seen, output: Output, bands: tuple[int, ...] | None) -> Views:
    """Input and forecast as a detector is shown them. Raises :class:`ImageError` for a forecast that cannot be used."""
    before, future, valid = seen.true
    if bands is None:
        return Views(before, read_forecast(bank, output, seen.source), valid)
    forecast = read_band_forecast(output, seen.source)[..., list(bands)]
    if forecast.dtype != future.dtype:
        if "f" not in forecast.dtype.kind + future.dtype.kind or np.uint8 in (forecast.dtype, future.dtype):
            raise ImageError(f"the forecast holds {forecast.dtype} values, the true future {future.dtype}")
        forecast, before = forecast.astype(np.float32), before.astype(np.float32)
    if not np.isfinite(forecast[valid]).all():
        raise ImageError("the forecast holds values that are not finite")
    return Views(before, forecast, valid)


def bank_of(verifier: Verifier) -> FeatureBank:
    """What decodes for a verifier; one of its own where it was not set up, as when an output is known to be invalid."""
    return verifier.context.bank if hasattr(verifier, "context") else FeatureBank()


class DetectorConsistency(Verifier):
    """Whether a frozen change detector sees the right change between the input and the forecast."""

    name: ClassVar[str] = "detector_consistency"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.FORECAST})
    needs: ClassVar[frozenset[str]] = frozenset({"output.image", "reference.images", "detector"})
    Config: ClassVar[type[BaseModel]] = DetectorConfig
    card: ClassVar[Card] = Card(
        summary="What a frozen change detector sees between the input and the forecast, held against the true change mask, or "
        "against what it sees between the input and the true future. Pixels outside 'valid', of nodata and under clouds are left "
        "out, and shown to it in one colour on both dates; it sees a raster as its record shows it (bands, stretch), or the stored bands "
        "that its name maps (#bands=3,4,5)",
        range="raw.f1 and raw.iou in [0, 1]; both masks empty 1, one of them empty 0. The metrics change_f1 and change_iou come "
        "from one confusion matrix over all pixels (another detector than the shipped one stands after a slash), "
        "no_change_accuracy is the share of unchanged samples in which nothing is detected. An invalid output is wrong everywhere",
        transform="soft Dice of the probabilities with the true mask, or with the probabilities of the true pair (soft: false: "
        "F1); in a sample without change 1 / (1 + 100 * share of pixels detected, beyond those of the true pair with against: "
        "detector)",
        source="literature on remote-sensing image editing scores edits by a detector in the same way (RSEdit); F1 = 2 tp / "
        "(2 tp + fp + fn); soft Dice of arXiv 1606.04797",
        gaming="a detector can be fooled by texture that no one would call a building: keep it as a held-out measure, or beside "
        "gain_over_copy. A copy scores 0 where something changes; a picture that is changed everywhere scores the Dice of a full "
        "mask. It is blind to what the change is, only where. On the scene world's changed scenes the tokenizer's ceiling earns more than "
        "a copy, a blurred copy, the mean picture, noise and another sample's future in about all, the shipped world model's forecast in "
        "about nine of ten: one that puts the change in the wrong place earns as little as noise. "
        "On imagery that the shipped detector was not trained on (LEVIR-CD tiles) noise earns more than a nearly true picture in 60 %. "
        "outside_valid: shown lets what is painted outside the labels move the answer inside",
        cost="one pass of the detector per new pair",
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.bands = detector_bands(self.config.detector)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.detector = load_detector(self.config.detector, context.device)

    def score(self, batch: Batch) -> list[Score]:
        seen: dict[int, Seen | Score] = {}
        rows: list[tuple[Seen, Views] | Score] = []
        for sample, output in zip(batch.samples, batch.outputs, strict=True):
            if id(sample) not in seen:
                seen[id(sample)] = self._read(self.context.bank, sample)
            rows.append(self._shown(seen[id(sample)], output))
        pairs = [row[1] for row in rows if not isinstance(row, Score)]
        if self.config.against == "detector":
            pairs += [row[0].true for row in rows if not isinstance(row, Score)]
        said = predict_pairs(self.detector.predict, pairs, self.detector.name, self.context.device)
        of_forecast, of_truth = iter(said), iter(said[len(pairs) // 2 :])
        scores = []
        for row in rows:
            if isinstance(row, Score):
                scores.append(row)
            elif self.config.against == "mask":
                scores.append(self._against_mask(next(of_forecast), row[0]))
            else:
                scores.append(self._against_detector(next(of_forecast), next(of_truth), row[0]))
        return scores

    def invalid(self, sample: Sample, reason: str) -> Score:
        seen = self._read(bank_of(self), sample)
        return seen if isinstance(seen, Score) else self._worst(seen, reason)

    def _read(self, bank: FeatureBank, sample: Sample) -> Seen | Score:
        if self.config.against == "mask" and sample.reference.get("mask") is None:
            return Score.not_applicable("the sample has no change mask (reference.mask)")
        seen = read_seen(bank, sample, self.bands, self.config.outside_valid)
        if isinstance(seen, Score) or not self.config.band or seen.mask is None:
            return seen
        counted = seen.counted & (seen.mask | ~dilate(seen.mask, self.config.band))
        return seen._replace(counted=counted) if counted.any() else Score.not_applicable("no pixel counts")

    def _shown(self, seen: Seen | Score, output: Output) -> tuple[Seen, Views] | Score:
        if isinstance(seen, Score):
            return seen
        try:
            return seen, read_shown(self.context.bank, seen, output, self.bands)
        except ImageError as error:
            return self._worst(seen, str(error))

    def _against_mask(self, probability: np.ndarray, seen: Seen) -> Score:
        assert seen.mask is not None
        found, truth = probability[seen.counted], seen.mask[seen.counted]
        if truth.any():
            return self._compared(found, truth, soft_dice(found, truth))
        return self._compared(found, truth, false_alarm_value(self._share(found)))

    def _against_detector(self, probability: np.ndarray, true: np.ndarray, seen: Seen) -> Score:
        found, expected = probability[seen.counted], true[seen.counted]
        truth = expected >= self.config.threshold
        changed = truth.any() if seen.mask is None else seen.mask[seen.counted].any()
        if changed and not truth.any():
            return Score.not_applicable(f"the detector {self.detector.name!r} sees no change in the true pair")
        if changed:
            return self._compared(found, truth, soft_dice(found, expected))
        # What the detector sees in a pair without change is its own error, which no forecast is to repeat.
        excess = max(0.0, self._share(found) - self._share(expected))
        return self._compared(found, truth, false_alarm_value(excess))

    def _share(self, probability: np.ndarray) -> float:
        return float((probability >= self.config.threshold).mean())

    def _compared(self, probability: np.ndarray, truth: np.ndarray, value: float) -> Score:
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

    def _worst(self, seen: Seen, reason: str) -> Score:
        """Wrong in every pixel. F1 and IoU depend on the number of wrong pixels alone, so no true mask is needed for it."""
        truth = np.zeros(int(seen.counted.sum()), bool) if seen.mask is None else seen.mask[seen.counted]
        # What the detector would see in the true pair is not known here: then it also counts as one left unchanged in vain.
        unchanged = self.config.against == "detector" or not truth.any()
        return Score.invalid(
            reason, raw={"f1": 0.0, "iou": 0.0}, stats=self._stats(confusion_matrix(truth, ~truth), unchanged)
        )

    def metrics(self) -> Sequence[Metric]:
        label = "" if self.config.detector == SCENE_DETECTOR else detector_label(self.config.detector)
        tail = "/" + "-".join(part for part in (label, "vs-detector" * (self.config.against == "detector")) if part)
        f1, iou, accuracy = (
            f"{key}{tail if tail != '/' else ''}" for key in ("change_f1", "change_iou", "no_change_accuracy")
        )

        def numbers(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
            found = binary_change_metrics(sums.get("confusion", np.zeros((2, 2))))
            unchanged, kept = sums.get("unchanged", np.zeros(2))
            return {f1: found["f1"], iou: found["iou"], accuracy: ratio(float(kept), float(unchanged))}

        return (SumMetric((f1, iou, accuracy), numbers, bounds=(0.0, 1.0)),)
