"""Small made pairs of pictures, and how a paired verifier is asked about them."""

from __future__ import annotations

import io

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, ScoreTable
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.features.bank import FeatureBank


def image(seed: int, size: int = 32) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def near(base: np.ndarray, seed: int, noise: float) -> np.ndarray:
    """The picture with normal noise of that many grey levels."""
    shifted = base + np.random.default_rng(seed).normal(0.0, noise, base.shape)
    return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


def blurred(base: np.ndarray, sigma: float) -> np.ndarray:
    """The picture under a Gaussian window."""
    from scipy.ndimage import gaussian_filter

    return np.clip(np.rint(gaussian_filter(base.astype(float), (sigma, sigma, 0))), 0, 255).astype(np.uint8)


def ground(seed: int, size: int = 64) -> np.ndarray:
    """A smooth picture with coarse and fine structure in every band, as ground has it."""
    fields = [blurred(image(seed + part, size), sigma).astype(float) for part, sigma in ((0, 5.0), (50, 1.2))]
    return np.clip(120 + 4.0 * (fields[0] - 127) + 1.5 * (fields[1] - 127), 0, 255).astype(np.uint8)


def jpeg(base: np.ndarray, quality: int) -> np.ndarray:
    """The picture after JPEG."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(base).save(file, "JPEG", quality=quality)
        return np.array(Image.open(file))


def built(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Before, after and the (H, W) bool mask of a place where a bright block with a dark roof edge is built."""
    before = ground(seed, size)
    mask = np.zeros((size, size), bool)
    mask[size // 4 : size // 2, size // 3 : 2 * size // 3] = True
    after = before.copy()
    after[mask] = (225, 215, 190)
    after[size // 4, size // 3 : 2 * size // 3] = (60, 30, 20)
    return near(before, seed + 1, 2.0), near(after, seed + 2, 2.0), mask


def ref(pixels: np.ndarray, **kwargs: object) -> ImageRef:
    """A reference to pixels; a bool mask becomes 0 and 255."""
    pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    return ImageRef(array=pixels, **kwargs)  # type: ignore[arg-type]


def sample(before: np.ndarray, future: np.ndarray, name: str = "s", **reference: object) -> Sample:
    """A forecast to make."""
    return Sample(name, Task.FORECAST, (ref(before),), reference={"images": [ref(future)], **reference})


def forecast(pixels: np.ndarray, name: str = "s") -> Output:
    """A forecast that was made."""
    return Output(name, image=ref(pixels))


def ready(name: str, /, **config: object) -> Verifier:
    """A verifier that is set up."""
    made = build(name, config)
    made.setup(Context(FeatureBank()))
    return made


def score_one(verifier: Verifier, one: Sample, output: Output) -> Score:
    """The score of one output."""
    return verifier.score(Batch([one], [output], [one.id]))[0]


def metric(verifier: Verifier, scores: list[Score], weight: np.ndarray | None = None) -> dict[str, float | None]:
    """The verifier's numbers over scores."""
    fields = ("status", "raw", "stats", "content")
    table = ScoreTable.from_columns({field: [getattr(score, field) for score in scores] for field in fields})
    weight = np.ones(len(scores)) if weight is None else weight
    numbers: dict[str, float | None] = {}
    for one in verifier.metrics():
        numbers |= one.compute(table.frame, table.stats(), weight, verifier.context.bank)
    return numbers
