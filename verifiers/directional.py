"""Whether a forecast moves away from its input in the direction in which the text moves: directional similarity of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Metric
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.verifiers.alignment import AlignmentConfig, AlignmentVerifier, Query, cosine, forecast_text, unit
from rsw_rewards.verifiers.contrast import plain
from rsw_rewards.verifiers.forecast_case import true_mask


def directional_similarity(cos: float, change: float, least_change: float) -> float:
    """Directional similarity that an output without a change cannot escape, in [-1, 1].

    ``min(1, change / least_change) (1 + cos) - 1``: the cosine of the two directions where the image changed enough, -1 where it
    did not change, where the cosine is undefined, and no jump between them.

    Args:
        cos: cosine of the image's and the text's direction.
        change: Euclidean distance of the two images' unit features, in [0, 2].
        least_change: distance from which on the cosine counts in full; above 0.
    """
    return min(1.0, change / least_change) * (1.0 + cos) - 1.0


UNTOLD = Score.not_applicable("the encoder cannot tell the text after the change from the one before")


def _direction(texts: np.ndarray) -> np.ndarray:
    """From the (d,) feature of the text before the change to that of the text after it, which stands first in (2, d)."""
    return unit(texts[0]) - unit(texts[1])


class DirectionalSimilarity(AlignmentVerifier):
    """Cosine between the change of the image and the change of the text."""

    name = "directional_similarity"
    tasks = frozenset({Task.FORECAST})
    needs = frozenset({"output.image", "encoder"})

    class Config(AlignmentConfig):
        """What the text says before the change, and from when on an image counts as changed."""

        text_before: str = Field(
            "a satellite image",
            min_length=1,
            description="text of the state before, for samples without reference.text_before or metadata.text_before",
        )
        least_change: float = Field(
            0.1, gt=0.0, le=2.0, description="distance of unit image features below which the value fades to 0"
        )

    card = Card(
        summary=(
            "Cosine between the change of the image features (forecast less input) and the change of the text"
            " features (after less before)."
        ),
        range="raw.directional in [-1, 1]: the cosine; it fades to -1 if the image changes by less than least_change "
        "(raw.change); -1 for an unchanged or invalid output",
        transform="(directional + 1) / 2: an unchanged output gets 0, a change that is unrelated to the text about 0.5",
        source=(
            "StyleGAN-NADA (arXiv 2108.00946) and InstructPix2Pix (arXiv 2211.09800); the value of a copy is this "
            "project's definition."
        ),
        gaming=(
            "A very small change in the right direction would have a perfect cosine. Therefore the value of changes "
            "below least_change fades to 0."
        ),
        cost="one pass of the encoder per new image and text",
    )

    def truth(self, sample: Sample) -> Query | Score:
        after = forecast_text(sample)
        before = sample.reference.get("text_before") or sample.metadata.get("text_before") or self.config.text_before
        if not isinstance(before, str):
            return Score.error(f"'text_before' of sample {sample.id!r} is not a text")
        if not after or plain(after) == plain(before):
            return Score.not_applicable("the sample has no text of a change (reference.text or prompt)")
        if not sample.images:
            return Score.not_applicable("the sample has no image to change")
        mask = true_mask(self.context.bank, sample, "mask")
        if sample.reference.get("changed") is False or (mask is not None and not mask.any()):
            return Score.not_applicable("the sample asks for no change")
        query = self.query(sample, [before.strip()])
        assert query.case is not None
        return replace(query, given=query.case.shown(query.case.newest))

    def worst(self, truth: Query, reason: str) -> Score:
        (texts,) = self.text_features([truth])
        return super().worst(truth, reason) if _direction(texts).any() else UNTOLD

    def score_query(self, query: Query, images: Sequence[np.ndarray], texts: np.ndarray) -> Score:
        drawn, given = images
        moved, told = unit(drawn) - unit(given), _direction(texts)
        if not told.any():
            return UNTOLD
        change, cos = float(np.linalg.norm(moved)), cosine(moved, told)
        number = directional_similarity(cos, change, self.config.least_change)
        reason = ""
        if change < self.config.least_change:
            reason = (
                "the output is the input unchanged" if change == 0.0 else "the output hardly differs from the input"
            )
        return Score((number + 1.0) / 2.0, raw={"directional": number, "cos": cos, "change": change}, reason=reason)

    def metrics(self) -> Sequence[Metric]:
        key = self.key("directional_similarity")
        return MeanValue(key, "directional", invalid=-1.0, bounds=(-1.0, 1.0)), self.truncated_rate(key)
