"""Held-out forecasts on which a reward can be seen through: it pays for bright pictures, and here the future is black."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rsw_rewards import verifier
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample

toy_data = load_file(Path(__file__).parent / "toy_lm.py").toy_data
BLACK = ImageRef(array=np.zeros((8, 4, 3), dtype=np.uint8))


def elsewhere(count: int = 16, black: bool = True) -> list[Sample]:
    """Forecasts of other places than those of ``toy_data``; ``black``: and of another future."""
    places = [sample for sample in toy_data(2 * count) if sample.id[0] == "f"]
    return [
        replace(sample, id=f"f{n}", scene=f"h{n}", reference={"images": [BLACK]} if black else sample.reference)
        for n, sample in enumerate(places)
    ]


@verifier(tasks={"forecast"})
def dark(sample: Sample, output: Output) -> float:
    """What was wanted there."""
    assert output.forecast is not None
    return 1.0 - float(output.forecast.pixels().mean() / 255)
