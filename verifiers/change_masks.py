"""Binary change masks: the ``change_mask`` verifier, which counts right and wrong pixels.

A mask with ``classes`` in its reference is a map of indices (see :mod:`rsw_rewards.verifiers.class_maps`), of which every index
but 0 is changed; predictions hold these indices, or 0 and 255. A mask without them is read by :func:`read_marked`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Metric, Numbers, SumMetric, Sums
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import is_binary, read_index, read_marked
from rsw_rewards.verifiers.class_maps import classes_problem
from rsw_rewards.verifiers.confusion import METRIC_KEYS, binary_change_metrics, confusion_matrix, f1_score, mask_iou
from rsw_rewards.verifiers.maps import (
    MapTruth,
    MapVerifier,
    as_classes,
    fitted,
    in_levels,
    predicted_mask,
    read_class_truth,
    read_truth,
)

FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
"""What the tool behind the published LEVIR-CD tables adds to the denominator of F1. It takes 6e-8 off F1."""


@dataclass(frozen=True, slots=True)
class MaskTruth(MapTruth):
    """A true change mask."""

    classes: int = 0
    """How many classes predictions may hold indices of; 0 where they are masks."""


class ChangeMask(MapVerifier):
    """Agreement of a predicted change mask with the true one, over the pixels that count."""

    name = "change_mask"
    tasks = frozenset({Task.CHANGE_MASK})
    needs = frozenset({"output.mask", "reference.mask"})
    card = Card(
        summary=(
            "Counts pixels of a change mask (255 is changed; with 'classes', every index but 0) against the true mask,"
            " ignoring pixels outside 'valid'."
        ),
        range="iou of the changed class: [0, 1]; 1 if neither mask has change, 0 if only the prediction has",
        transform="none",
        source=(
            "summed 2 x 2 counts, as usual for LEVIR-CD (doi 10.3390/rs12101662); checked against wgcban/ChangeFormer."
        ),
        gaming=(
            "An empty mask gets 1 on unchanged samples and 0 on all others. Include changed samples, and read f1, "
            "which ignores true negatives, rather than oa."
        ),
        cost="under a millisecond per megapixel, plus decoding",
    )

    class Config(NoConfig):
        """Configuration of ``change_mask``."""

        epsilon: float = Field(
            FLOAT32_EPSILON,
            ge=0,
            le=1e-3,
            description="added to precision + recall in F1, as published tables have it; 0: exact F1",
        )

    def truth(self, sample: Sample) -> MaskTruth | Score:
        classes, levels = sample.reference.get("classes"), sample.reference.get("levels")
        if classes is None:
            truth = read_truth(sample, ("mask",), lambda image: read_marked(in_levels(image, levels)))
            return MaskTruth(truth.maps, truth.valid)
        if problem := classes_problem(sample.reference, len(classes)):
            return Score.error(f"sample {sample.id!r} {problem}")
        truth = read_class_truth(sample, ("mask",), len(classes), levels)
        return MaskTruth((truth.maps[0] != 0,), truth.valid, len(classes))

    def compare(self, truth: MapTruth, output: Output) -> Score:
        assert isinstance(truth, MaskTruth)
        changed = self._changed(truth, output.mask) if truth.classes else predicted_mask(output.mask, truth, "mask")
        confusion = confusion_matrix(truth.maps[0], changed, truth.valid)
        iou = mask_iou(confusion)
        raw = {"iou": iou}
        (_, wrong), (missed, hits) = confusion
        if (f1 := f1_score(hits, wrong, missed, self.config.epsilon)) is not None:
            raw["f1"] = f1
        return Score(iou, raw=raw, stats={"confusion": confusion.astype(np.float64)})

    def _changed(self, truth: MaskTruth, image: ImageRef | None) -> np.ndarray:
        """(H, W) bool of a prediction beside a map of classes: their indices, or a mask of 0 and 255."""
        if image is None:
            raise ImageError("no mask in the output")
        pixels = fitted(read_index(image), truth, "mask")
        return pixels != 0 if is_binary(pixels) else as_classes(pixels, truth, truth.classes, "mask") != 0

    def worst(self, truth: MapTruth, reason: str) -> Score:
        changed = truth.maps[0]
        counts = confusion_matrix(changed, ~changed, truth.valid).astype(np.float64)
        return Score.invalid(reason, raw={"iou": 0.0}, stats={"confusion": counts})

    def metrics(self) -> Sequence[Metric]:
        epsilon = self.config.epsilon

        def from_sums(sums: Sums) -> Numbers:
            return binary_change_metrics(sums.get("confusion", np.zeros((2, 2))), epsilon)

        shares = tuple(key for key in METRIC_KEYS if key != "kappa")
        return SumMetric(shares, from_sums, bounds=(0.0, 1.0)), SumMetric(("kappa",), from_sums, bounds=(-1.0, 1.0))
