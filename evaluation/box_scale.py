"""Whether boxes look as if they were on another scale than the declared one: pixels, thousandths or shares of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ImageError
from rsw_rewards.verifiers.boxes import SCALES, BoxIoU, Scale, agreement, parse_box, scaled, unit_of

LOOKED_AT = 500
"""Outputs with boxes that are looked at, the first ones."""
FEWEST = 5
"""Outputs below which nothing is said."""
_WITHIN: Mapping[Scale, float] = {"thousandths": 1000.0, "shares": 1.0}
"""The largest coordinate of each scale that has one."""


def box_scale(verifiers: Mapping[str, Any]) -> Scale:
    """The scale on which a protocol's verifiers read boxes."""
    scales = [verifier.config.scale for verifier in verifiers.values() if isinstance(verifier, BoxIoU)]
    return scales[0] if scales else "pixels"


def scale_warnings(verifiers: Mapping[str, Any], samples: Sequence[Sample], outputs: Sequence[Output]) -> list[str]:
    """A sentence where the boxes of outputs fit another scale and agree far better with the true ones when read on it.

    That is: all coordinates are within that scale, and the mean IoU is more than twice as high and at least 0.1 higher.
    """
    labels = [label for label, verifier in verifiers.items() if isinstance(verifier, BoxIoU)]
    if not labels:
        return []
    by_id = {sample.id: sample for sample in samples}
    rows = [(by_id[o.sample_id], o.boxes) for o in outputs if o.boxes and by_id[o.sample_id].reference.get("boxes")]
    rows = rows[:LOOKED_AT]
    if len(rows) < FEWEST:
        return []
    declared = box_scale(verifiers)
    largest = max(abs(side) for _, boxes in rows for box in boxes for side in box)
    read = {scale: _mean_iou(rows, scale) for scale in SCALES if largest <= _WITHIN.get(scale, np.inf)}
    own = read.get(declared, 0.0)
    best = max(read, key=lambda scale: read[scale])
    if best == declared or read[best] <= max(2 * own, own + 0.1):
        return []
    return [
        f"the boxes look like {best}, and are read as {declared}: of the first {len(rows):,} outputs the mean IoU is {own:.2f}, and would be"
        f" {read[best]:.2f}; where the model writes {best}, say so by --set {labels[0]}.scale={best}"
    ]


def _mean_iou(rows: Sequence[tuple[Sample, Sequence[Sequence[float]]]], scale: Scale) -> float:
    """Mean IoU of boxes read on a scale; 0 for those that cannot be."""
    found = []
    for sample, boxes in rows:
        try:
            unit = unit_of(sample, scale)
            truth = [parse_box(box) for box in sample.reference["boxes"]]
            found.append(agreement(truth, [parse_box(scaled(box, unit)) for box in boxes])[0])
        except (ValueError, ImageError):
            found.append(0.0)
    return float(np.mean(found))
