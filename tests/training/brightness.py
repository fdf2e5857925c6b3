"""Made forecasts that a tiny network learns in a minute: a text says whether a picture gets brighter or darker, and it does."""

from __future__ import annotations

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task

TEXTS = ("the picture gets brighter", "the picture gets darker")


def brightness(count: int = 64, seed: int = 0, side: int = 16, blind: bool = False) -> list[Sample]:
    """Forecasts of smooth pictures that get 50 grey levels brighter or darker.

    Args:
        count: how many.
        seed: other seeds give other scenes.
        side: of the pictures, in pixels.
        blind: the true future is the input: what a policy learns that never heard of texts.
    """
    samples = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        across = np.linspace(0, np.pi * rng.uniform(0.5, 2.0), side)
        wave = np.sin(across + rng.uniform(0, 6))[:, None] + np.cos(across + rng.uniform(0, 6))[None, :]
        before = 127 + 25 * wave[..., None] * rng.uniform(0.4, 1.0, 3) / 2 + rng.uniform(-10, 10, 3)
        brighter = bool(rng.integers(2))
        after = before if blind else before + (50 if brighter else -50)
        first, second = (np.rint(np.clip(image, 0, 255)).astype(np.uint8) for image in (before, after))
        samples.append(
            Sample(
                f"brightness-{seed}-{number}",
                Task.FORECAST,
                (ImageRef(array=first),),
                "draw the next picture",
                {"images": [ImageRef(array=second)], "text": TEXTS[not brighter]},
                scene=f"brightness-{seed}-{number}",
            )
        )
    return samples
