"""Pairs of made images and one question about them: did a bright square appear?"""

from __future__ import annotations

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task


def squares(count: int = 400, seed: int = 0, blind: bool = False, decoys: bool = False) -> list[Sample]:
    """Samples of two images of 56 x 56 pixels, whose answer is yes or no.

    Args:
        count: how many.
        seed: other seeds give other scenes.
        blind: answers yes and no in turn, whatever is seen: they teach the form of an answer and nothing else.
        decoys: half of the pairs without a new square show one in both images, so that neither image alone holds the answer.
    """
    samples = []
    side = 56
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        before = rng.integers(40, 110, (side, side, 3), dtype=np.uint8)
        after = before + rng.integers(0, 9, before.shape, dtype=np.uint8)
        row, column = rng.integers(0, side - 20, 2)
        appeared = bool(rng.integers(2))
        for image in (after,) if appeared else (before, after) if decoys and rng.integers(2) else ():
            image[row : row + 20, column : column + 20] = 230
        answer = ("yes", "no")[number % 2] if blind else ("no", "yes")[appeared]
        samples.append(
            Sample(
                f"{seed}-{number}",
                Task.CHANGE_QA,
                (ImageRef(array=before), ImageRef(array=after)),
                "did a bright square appear?",
                {"answers": [answer], "vocabulary": ["yes", "no"]},
                scene=f"{seed}-{number}",
                kind="square",
            )
        )
    return samples
