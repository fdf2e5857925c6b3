"""Whether a forecast shows what the text asks for, by a model that embeds images and texts in one space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from rsw_rewards.contracts import Batch, Card, Context, MeanValue, Metric, NoConfig, Verifier, register
from rsw_rewards.encoders import SCENE_CLIP, encoder_label, is_pretrained_clip
from rsw_rewards.images import ImageError
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scores import Score

CLIP_SCORE_WEIGHT = 2.5
"""w of CLIPScore, which spreads the usual cosines over [0, 1]."""


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two (d,) vectors in [-1, 1], in float64; 0 where one of them is zero."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    length = math.sqrt(float(first @ first) * float(second @ second))
    return min(1.0, max(-1.0, float(first @ second) / length)) if length > 0.0 else 0.0


def clip_score(cos: float) -> float:
    """CLIPScore of an image and a text, ``2.5 max(cos, 0)`` (Hessel et al. 2021)."""
    return CLIP_SCORE_WEIGHT * max(cos, 0.0)


def contrast(cos: float, others: Sequence[float], temperature: float) -> float:
    """How clearly a text fits better than the distractors do, in (0, 1).

    The mean over distractors of ``sigmoid((cos - other) / temperature)``: a smooth count of the distractors that are beaten,
    0.5 where they fit equally well.
    """
    return float(np.mean([0.5 + 0.5 * math.tanh((cos - other) / (2.0 * temperature)) for other in others]))


class AlignmentConfig(NoConfig):
    """Which model reads image and text, and what the text is compared with."""

    encoder: str = Field(SCENE_CLIP, description="an open_clip encoder by name")
    distractors: tuple[str, ...] = Field(
        (), description="texts that should fit worse; one equal to the sample's is skipped"
    )
    temperature: float = Field(
        0.05, gt=0.0, description="difference of cosines over which the contrast with them saturates"
    )


@register
class ClipAlignment(Verifier):
    """Similarity of the forecast to the text that asked for it."""

    name = "clip_alignment"
    tasks = frozenset({Task.FORECAST})
    needs = frozenset({"output.image", "encoder"})
    Config = AlignmentConfig
    card = Card(
        summary="CLIPScore of the forecast and the text that says what should change (reference.text, else the prompt).",
        range="[0, 2.5], higher fits better; raw.cos in [-1, 1]. The key is 'clip_score' for published open_clip weights alone, "
        "clip_score_<encoder> otherwise; an invalid output counts as 0",
        transform="(cos + 1) / 2; with distractors the smooth share of them that fits worse than the text, "
        "mean of sigmoid((cos - cos_distractor) / temperature)",
        source="2.5 max(cos, 0): Hessel et al. 2021",
        gaming="cosines of one model lie in a narrow band, and an input that shows the right land cover already scores well: give "
        "distractors and weigh it below gain_over_copy. Optimising against one model finds its blind spots; watch another encoder. "
        "Texts beyond the model's 77 tokens are cut silently by the model: raw.truncated is 1 for them",
        cost="one pass of the encoder per new image and text",
    )

    def setup(self, context: Context) -> None:
        super().setup(context)
        # An encoder without a text tower is a mistake of the configuration and shows here, not in every row.
        context.bank.text_features(self.config.encoder, [*self.config.distractors, ""])

    def encoders(self) -> Sequence[str]:
        return (self.config.encoder,)

    def score(self, batch: Batch) -> list[Score]:
        return [self._one(sample, output) for sample, output in self._pairs(batch)]

    def _pairs(self, batch: Batch) -> list[tuple[Sample, Output]]:
        """The items of a batch, their images encoded together where they can be read."""
        pairs = list(zip(batch.samples, batch.outputs, strict=True))
        readable = []
        for _, output in pairs:
            if output.forecast is None:
                continue
            try:
                self.context.bank.hash(output.forecast)
            except ImageError:
                continue  # its own row says so below
            readable.append(output.forecast)
        if readable:
            self.context.bank.image_features(self.config.encoder, readable)
        return pairs

    def _one(self, sample: Sample, output: Output) -> Score:
        bank, name = self.context.bank, self.config.encoder
        text = str(sample.reference.get("text") or sample.prompt).strip()
        if not text:
            return Score.not_applicable("the sample has no text to be true to (reference.text or prompt)")
        if output.forecast is None:
            return Score.invalid("the output holds no image")
        try:
            image = bank.image_features(name, [output.forecast])[0]
        except ImageError as error:
            return Score.invalid(str(error))
        others = [other for other in self.config.distractors if other.strip().casefold() != text.casefold()]
        first, *rest = (cosine(image, feature) for feature in bank.text_features(name, [text, *others]))
        raw = {"clip_score": clip_score(first), "cos": first}
        value = (first + 1.0) / 2.0
        if rest:
            value = contrast(first, rest, self.config.temperature)
            raw["beaten"] = float(np.mean([first > other for other in rest]))
        truncates = getattr(bank.encoder(name), "truncates", None)
        if truncates is not None:
            raw["truncated"] = float(truncates([text])[0])
        reason = "the text is longer than the model reads; its end was ignored" if raw.get("truncated") else ""
        return Score(value, raw=raw, reason=reason)

    def metrics(self) -> Sequence[Metric]:
        name = self.config.encoder
        key = "clip_score" if is_pretrained_clip(name) else f"clip_score_{encoder_label(name)}"
        return (MeanValue(key, "clip_score"),)
