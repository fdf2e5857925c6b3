"""CLIPScore of forecasts and captions, and RefCLIPScore of captions (Hessel et al. 2021, arXiv 2104.08718)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsw_rewards.core.metric import MeanValue, Metric
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.encoders import is_pretrained_clip
from rsw_rewards.verifiers.alignment import AlignmentVerifier, Query, cosine, cosines
from rsw_rewards.verifiers.caption_base import true_captions

CLIP_SCORE_WEIGHT = 2.5
"""w of CLIPScore, which spreads the usual cosines over [0, 1]."""
HIGHEST_REF_CLIP_SCORE = 2.0 * CLIP_SCORE_WEIGHT / (CLIP_SCORE_WEIGHT + 1.0)
"""RefCLIPScore where both of its cosines are 1."""


def clip_score(cos: float) -> float:
    """CLIPScore of an image and a text from their cosine: ``2.5 max(cos, 0)``, in [0, 2.5]."""
    return CLIP_SCORE_WEIGHT * max(cos, 0.0)


def ref_clip_score(cos: float, references: Sequence[float]) -> float:
    """RefCLIPScore: harmonic mean of CLIPScore and the best cosine with a reference, at least 0; in [0, 10/7].

    jmhessel/clipscore@clipscore.py. 0 where both are 0, which leaves the mean undefined.

    Args:
        cos: cosine of image and caption.
        references: cosines of caption and references, one or more.
    """
    image, text = clip_score(cos), max(*references, 0.0)
    return 2.0 * image * text / (image + text) if image + text > 0.0 else 0.0


class ClipScore(AlignmentVerifier):
    """Similarity of a forecast to the text that asked for it, or of a caption to the image after the change."""

    name = "clip_score"
    tasks = frozenset({Task.FORECAST, Task.CHANGE_CAPTION})
    needs = frozenset({"output.image", "output.text", "encoder"})
    card = Card(
        summary="CLIPScore of a forecast and the text of what should change (reference.text, else the prompt), or of a "
        "caption and the image after the change.",
        range="[0, 2.5], higher fits better; raw.cos in [-1, 1].",
        transform="(cos + 1) / 2",
        source="2.5 max(cos, 0): Hessel et al. 2021.",
        gaming=(
            "Cosines differ little, and an image with the right land cover gets much. Prefer caption_contrast, or give "
            "it less weight than gain_over_copy."
        ),
        cost="one pass of the encoder per new image and text",
    )

    def truth(self, sample: Sample) -> Query:
        return self.query(sample, wording="clipscore" if sample.task is Task.CHANGE_CAPTION else "plain")

    def score_query(self, query: Query, images: Sequence[np.ndarray], texts: np.ndarray) -> Score:
        cos = cosine(images[0], texts[0])
        return Score((cos + 1.0) / 2.0, raw={"clip_score": clip_score(cos), "cos": cos})

    def metrics(self) -> Sequence[Metric]:
        key = self.key("clip_score", is_pretrained_clip(self.config.encoder))
        return MeanValue(key, "clip_score", bounds=(0.0, CLIP_SCORE_WEIGHT)), self.truncated_rate(key)


class RefClipScore(AlignmentVerifier):
    """Similarity of a caption to the image after the change and to the reference captions."""

    name = "ref_clip_score"
    tasks = frozenset({Task.CHANGE_CAPTION})
    needs = frozenset({"output.text", "reference.captions", "encoder"})
    card = Card(
        summary="RefCLIPScore: harmonic mean of a caption's CLIPScore and its best cosine with a reference caption.",
        range="[0, 10/7], higher fits better; raw.clip_score in [0, 2.5], raw.reference in [0, 1].",
        transform="divided by 10/7",
        source="Hessel et al. 2021; jmhessel/clipscore@clipscore.py, captions and references worded 'A photo depicts ..'",
        gaming=(
            "CLIP hardly notices word order and negation: 'a road is built' and 'no road is built' are close. Put it "
            "behind a gate such as caption_gate."
        ),
        cost="one pass of the encoder per new image and text",
    )

    def truth(self, sample: Sample) -> Query | Score:
        captions = [text.strip() for text in true_captions(sample) if text.strip()]
        return self.query(sample, captions, wording="clipscore")

    def score_query(self, query: Query, images: Sequence[np.ndarray], texts: np.ndarray) -> Score:
        cos = cosine(images[0], texts[0])
        references = cosines(texts[0], texts[1:])
        number = ref_clip_score(cos, references)
        raw = {"ref_clip_score": number, "clip_score": clip_score(cos), "reference": max(*references, 0.0)}
        return Score(min(1.0, number / HIGHEST_REF_CLIP_SCORE), raw=raw)

    def metrics(self) -> Sequence[Metric]:
        key = self.key("ref_clip_score", is_pretrained_clip(self.config.encoder))
        bounds = (0.0, HIGHEST_REF_CLIP_SCORE)
        return MeanValue(key, "ref_clip_score", bounds=bounds), self.truncated_rate(key)
