"""Class maps of change, such as background, road and building of LEVIR-MCI: the ``class_map`` verifier.

Samples have the task ``change_mask``, and their reference holds

* ``mask``: the true map,
* ``classes``: the names of its K classes, background first,
* ``levels``, only where the file does not hold indices: the K stored values in the order of the classes, such as
  ``[0, 128, 255]`` for the label files of LEVIR-MCI (``__getitem__`` in Chen-Yang-Liu/Change-Agent
  @Multi_change/data/LEVIR_MCI.py),
* ``valid``, or ``nodata`` of the mask, where some pixels have no label.

A prediction always holds indices 0 .. K - 1, whatever the label files hold. One with any other value among the pixels that count
is an invalid output and wrong in every pixel, since nothing says what the rest of it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_values import MAX_CLASSES
from rsw_rewards.core.metric import Metric, Numbers, Sums
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.confusion import (
    ClassCounts,
    class_ious,
    confusion_matrix,
    mean_of_defined,
    segmentation_metrics,
)
from rsw_rewards.verifiers.maps import (
    ExplainedMetric,
    MapTruth,
    MapVerifier,
    read_class_truth,
    read_classes,
)


def classes_problem(reference: Mapping[str, Any], classes: int) -> str | None:
    """What is wrong with ``classes`` and ``levels`` of a reference for a verifier of so many classes, in words."""
    names, levels = reference.get("classes"), reference.get("levels")
    if names is None:
        return "has no 'reference.classes', so its mask holds no classes"
    if len(names) != classes:
        return f"has {len(names)} classes in its reference, and this is a measure of {classes}"
    if isinstance(levels, list) and len(levels) != classes:
        return f"has {len(levels)} 'reference.levels' for {classes} classes"
    return None


class ClassMapConfig(NoConfig):
    """Configuration of ``class_map``."""

    classes: int = Field(3, ge=2, le=MAX_CLASSES, description="number of classes, background included")


class ClassMap(MapVerifier):
    """Agreement of a predicted map of classes with the true one, over the pixels that count."""

    name = "class_map"
    tasks = frozenset({Task.CHANGE_MASK})
    needs = frozenset({"output.mask", "reference.mask", "reference.classes"})
    card = Card(
        summary=(
            "Counts pixels of a map of class indices (0 = background) against the true one. Pixels outside 'valid', and those of"
            " the true map's nodata value, are ignored."
        ),
        range="mean IoU over the classes that occur in reference or prediction: [0, 1]; 1 for an unchanged sample that "
        "is predicted as unchanged",
        transform="none",
        source=(
            "summed counts, as Evaluator of Chen-Yang-Liu/Change-Agent; means leave out classes that do not occur."
        ),
        gaming=(
            "A map with only background gets about half if one class changes, and always a high pixel_accuracy and "
            "fwiou. Read iou_1 and the following classes."
        ),
        cost="about three milliseconds per megapixel, plus decoding",
    )
    Config = ClassMapConfig

    def truth(self, sample: Sample) -> MapTruth | Score:
        if problem := classes_problem(sample.reference, self.config.classes):
            return Score.error(f"sample {sample.id!r} {problem}")
        return read_class_truth(sample, ("mask",), self.config.classes, sample.reference.get("levels"))

    def compare(self, truth: MapTruth, output: Output) -> Score:
        predicted = read_classes(output.mask, truth, self.config.classes, "mask")
        confusion = confusion_matrix(truth.maps[0], predicted, truth.valid, self.config.classes)
        counts = ClassCounts.of(confusion)
        miou = mean_of_defined(class_ious(counts)) or 0.0
        accuracy = float(counts.hits.sum() / counts.truth.sum())
        return Score(miou, raw={"miou": miou, "pixel_accuracy": accuracy}, stats={"counts": np.stack(counts)})

    def worst(self, truth: MapTruth, reason: str) -> Score:
        counts = ClassCounts.all_unusable(truth.maps[0], truth.valid, self.config.classes)
        return Score.invalid(reason, raw={"miou": 0.0, "pixel_accuracy": 0.0}, stats={"counts": np.stack(counts)})

    def metrics(self) -> Sequence[Metric]:
        empty = np.zeros((4, self.config.classes))

        def from_sums(sums: Sums) -> Numbers:
            return segmentation_metrics(ClassCounts(*sums.get("counts", empty)))

        def why(sums: Sums) -> dict[str, str]:
            absent = "the class occurs neither in the truth nor in the predictions"
            return {key: absent for key, value in from_sums(sums).items() if key.startswith("iou_") and value is None}

        return (ExplainedMetric(tuple(from_sums({})), from_sums, (0.0, 1.0), why),)
