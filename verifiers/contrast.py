"""Whether the right text fits an image better than texts of other samples do: a rank, which does not care how narrow the band of an
encoder's cosines is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Metric
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.alignment import (
    AlignmentConfig,
    AlignmentVerifier,
    Query,
    cosines,
    forecast_text,
)

MOST_TEXTS = 4096
"""Different texts kept to draw distractors from: each is encoded once at most."""


def contrast(cos: float, others: Sequence[float], temperature: float) -> float:
    """How clearly a text fits better than the distractors do, in [0, 1].

    The mean over distractors of ``sigmoid((cos - other) / temperature)``: a smooth count of those that are beaten. It is 0.5 in
    the mean where texts have nothing to do with the image, since swapping text and distractor turns a term into 1 minus itself.
    """
    return float(np.mean([0.5 + 0.5 * math.tanh((cos - other) / (2.0 * temperature)) for other in others]))


def beaten(cos: float, others: Sequence[float]) -> float:
    """Share of the distractors that fit worse, ties counting half; in [0, 1]."""
    return float(np.mean([(cos > other) + 0.5 * (cos == other) for other in others]))


def plain(text: str) -> str:
    """A text as it is told from another: case, outer and repeated blanks and a full stop at the end do not count."""
    return " ".join(text.casefold().split()).rstrip(". ")


def pool(texts: Iterable[str], most: int = MOST_TEXTS) -> tuple[str, ...]:
    """Different texts to draw from, in an order that does not depend on theirs; those of the smallest hashes where there are more."""
    spelt: dict[str, str] = {}
    for text in texts:
        if key := plain(text):
            spelt[key] = min(text.strip(), spelt.get(key, text.strip()))
    chosen = sorted(spelt, key=lambda key: hashlib.sha256(key.encode()).digest())[:most]
    return tuple(spelt[key] for key in sorted(chosen))


def draw(texts: Sequence[str], own: Iterable[str], n: int, seed: str) -> tuple[str, ...]:
    """Up to ``n`` of ``texts`` (see :func:`pool`), none of which says the same as one of ``own``; repeatable given ``seed``."""
    same = {plain(text) for text in own}
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    picked = rng.choice(len(texts), size=min(n + len(same), len(texts)), replace=False)
    return tuple(text for text in (texts[index] for index in picked) if plain(text) not in same)[:n]


def true_texts(sample: Sample) -> list[str]:
    """The texts that are right for a sample: its captions, or what its forecast should show."""
    if sample.task is Task.CHANGE_CAPTION:
        return [str(text) for text in sample.reference.get("captions") or ()]
    return [forecast_text(sample)]


class CaptionContrast(AlignmentVerifier):
    """Smooth rank of the right text among texts of other samples."""

    name = "caption_contrast"
    tasks = frozenset({Task.FORECAST, Task.CHANGE_CAPTION})
    needs = frozenset({"output.image", "output.text", "encoder"})

    class Config(AlignmentConfig):
        """Against what, and how sharply, the right text must stand out."""

        n: int = Field(
            16, ge=1, le=256, description="distractors for each sample, drawn by its id from the texts of the others"
        )
        distractors: tuple[str, ...] = Field(
            (), description="texts to hold every sample against instead of drawing them"
        )
        temperature: float = Field(
            0.05, gt=0.0, description="difference of cosines over which a distractor counts as beaten"
        )

    card = Card(
        summary="Whether the text of the sample (or a caption as output) fits the image better than the texts of other "
        "samples (distractors) do.",
        range=(
            "[0, 1]; 0.5 is chance, the mean for a forecast that ignores the text. raw.beaten is the share of "
            "distractors that fit worse, raw.cos the cosine"
        ),
        transform="none: mean over distractors of sigmoid((cos - cos_distractor) / temperature), temperature 0.05",
        source="CLIP retrieval among distractors, made smooth",
        gaming=(
            "A caption that fits every image fits better than most distractors. Use it together with a reward that "
            "compares with the references."
        ),
        cost="one pass of the encoder per new image and text",
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._pools: dict[Task, tuple[str, ...]] = {}

    @property
    def needs_samples(self) -> bool:
        return not self.config.distractors

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Learn the texts of the run, per task."""
        texts: dict[Task, list[str]] = {task: [] for task in self.tasks}
        for sample in samples:
            if sample.task in texts:
                texts[sample.task] += true_texts(sample)
        self._pools = {task: pool(of_task) for task, of_task in texts.items()}

    def setup(self, context: Context) -> None:
        if not self.config.distractors and not any(len(texts) > 1 for texts in self._pools.values()):
            raise ConfigError(
                f"{self.name!r} holds a text against those of other samples, but the samples of this run have fewer than two"
                " different ones; name texts in its 'distractors'"
            )
        super().setup(context)

    def truth(self, sample: Sample) -> Query | Score:
        own = true_texts(sample)
        if self.config.distractors:
            same = {plain(text) for text in own}
            others = tuple(text for text in self.config.distractors if plain(text) not in same)
        else:
            others = draw(self._pools.get(sample.task, ()), own, self.config.n, sample.id)
        query = self.query(sample, others)
        if not others:
            return Score.error(f"sample {sample.id!r} has no distractors: all texts of the run are its own")
        return query

    def score_query(self, query: Query, images: Sequence[np.ndarray], texts: np.ndarray) -> Score:
        cos, *others = cosines(images[0], texts)
        value = contrast(cos, others, self.config.temperature)
        best = int(np.argmax(others))
        reason = f"fits better: {query.texts[best + 1][:80]!r}" if others[best] > cos else ""
        return Score(value, raw={"contrast": value, "beaten": beaten(cos, others), "cos": cos}, reason=reason)

    def metrics(self) -> Sequence[Metric]:
        key = self.key("caption_contrast")
        return (
            MeanValue(key, "contrast", bounds=(0.0, 1.0)),
            MeanValue(f"{key}_beaten", "beaten", bounds=(0.0, 1.0)),
            self.truncated_rate(key),
        )
