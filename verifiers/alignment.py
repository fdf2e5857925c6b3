"""What the verifiers of text-image alignment share: how texts are worded, images and texts encoded, cut texts reported."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from rsw_rewards.core.metric import MeanValue
from rsw_rewards.core.records import ImageRef, Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.encoders import SCENE_CLIP, bands_of, encoder_label
from rsw_rewards.errors import ImageError
from rsw_rewards.verifiers.shown import in_bands, read_showing
from rsw_rewards.verifiers.texts import TextConfig, Thinking, reply_of

MOST_CHARACTERS = 2048
"""Characters of a text that reach the tokenizer, whose time grows with the square of the longest word."""
Preset = Literal["plain", "clipscore", "remote-sensing"]
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "clipscore": ("A photo depicts {}",),
    "remote-sensing": (
        "{}",
        "a satellite image of {}",
        "an aerial image of {}",
        "a remote sensing image of {}",
        "{}, seen from above",
    ),
}
"""Wordings by name. ``clipscore`` is the prefix of jmhessel/clipscore@clipscore.py; ``remote-sensing`` follows the prompt ensembles
that openai/CLIP@data/prompts.md lists for RESISC45 and EuroSAT."""


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two (d,) vectors in [-1, 1], in float64; 0 where one of them is zero."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    length = math.sqrt(float(first @ first) * float(second @ second))
    return min(1.0, max(-1.0, float(first @ second) / length)) if length > 0.0 else 0.0


def cosines(vector: np.ndarray, others: np.ndarray) -> list[float]:
    """:func:`cosine` of a (d,) vector with each row of (n, d) others."""
    rows = np.stack([unit(vector), *(unit(other) for other in others)])
    return [float(cos) for cos in (rows[1:] * rows[0]).sum(axis=1).clip(-1.0, 1.0)]


def unit(vector: np.ndarray) -> np.ndarray:
    """A (d,) vector scaled to length 1, float64; zero stays zero."""
    vector = vector.astype(np.float64)
    length = math.sqrt(float(vector @ vector))
    return vector / length if length > 0.0 else vector


def ensemble(features: Sequence[np.ndarray]) -> np.ndarray:
    """Feature of a text from those of its wordings: the mean of (d,) unit vectors, (d,) float64, not scaled again (Radford et al. 2021)."""
    return np.mean([unit(feature) for feature in features], axis=0)


def forecast_text(sample: Sample) -> str:
    """What a forecast should show: ``reference.text``, else the prompt; outer blanks off, maybe empty."""
    return str(sample.reference.get("text") or sample.prompt).strip()


class AlignmentConfig(TextConfig):
    """Which model reads images and texts, and how a text is worded for it."""

    encoder: str = Field(SCENE_CLIP, description="an open_clip encoder by name")
    templates: Preset | tuple[str, ...] | None = Field(
        None,
        description="wordings whose unit text features are averaged, '{}' standing for the text, or the name of a list of them: "
        f"{', '.join(TEMPLATES)}",
    )

    @field_validator("templates")
    @classmethod
    def _hold_the_text(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(value, tuple) and (not value or any("{}" not in template for template in value)):
            raise ValueError("give one or more wordings, each with '{}' where the text goes")
        return value


@dataclass(frozen=True, slots=True)
class Query:
    """What must be encoded to judge one output."""

    texts: tuple[str, ...]
    """The first is the one judged: whether it was cut is reported."""
    templates: tuple[str, ...] = TEMPLATES["plain"]
    drawn: ImageRef | None = None
    """An image of the output's: one that cannot be read is the policy's fault."""
    given: ImageRef | None = None
    """An image of the sample's: one that cannot be read is the data's fault."""


class AlignmentVerifier(Verifier):
    """Base of the verifiers that hold texts against images: says once how a batch is encoded, and what went wrong in it."""

    Config: ClassVar[type[AlignmentConfig]] = AlignmentConfig

    @abstractmethod
    def query(self, sample: Sample, output: Output) -> Query | Score:
        """What to encode, or the score of an output that needs no looking at."""

    @abstractmethod
    def judge(self, query: Query, drawn: np.ndarray | None, given: np.ndarray | None, texts: np.ndarray) -> Score:
        """The score from (d,) image features, not normalised, and (len(query.texts), d) text features."""

    def wordings(self, default: Preset = "plain") -> tuple[str, ...]:
        """The configured templates; where none are, those of ``default``."""
        chosen = self.config.templates or default
        return TEMPLATES[chosen] if isinstance(chosen, str) else chosen

    def key(self, stem: str, published: bool = False) -> str:
        """Key of a metric: ``stem`` alone where the number is ``published`` under that name, else with encoder and wording."""
        templates = self.config.templates
        wording = "" if templates is None else f"_{templates if isinstance(templates, str) else 'templates'}"
        return stem if published and templates is None else f"{stem}_{encoder_label(self.config.encoder)}{wording}"

    def truncated_rate(self, key: str) -> MeanValue:
        """Share of texts cut by the model, of the outputs that were scored."""
        return MeanValue(f"{key}_truncated_rate", "truncated", invalid=math.nan, bounds=(0.0, 1.0))

    def setup(self, context: Context) -> None:
        super().setup(context)
        # An encoder without a text tower is a mistake of the configuration and shows here, not in every row.
        context.bank.text_features(self.config.encoder, [""])

    def encoders(self) -> Sequence[str]:
        return (self.config.encoder,)

    def score(self, batch: Batch) -> list[Score]:
        found = [self._shown(pair[0], self.query(*pair)) for pair in zip(batch.samples, batch.outputs, strict=True)]
        queries = [query for query in found if isinstance(query, Query)]
        judged = self._judged(queries) if queries else iter(())
        return [next(judged) if isinstance(query, Query) else query for query in found]

    def _shown(self, sample: Sample, query: Query | Score) -> Query | Score:
        """The query with its images as the encoder sees them, or the score that says which of them cannot be read."""
        if isinstance(query, Score):
            return query
        bank, bands = self.context.bank, bands_of(self.config.encoder)
        drawn, given = query.drawn, query.given
        showing = None if drawn is None else read_showing(bank, sample, bands)
        if isinstance(showing, Score):
            return showing
        try:
            if given is not None:
                given = in_bands(given, bands) if showing is None else showing.given(bank, given)
                bank.hash(given)
        except ImageError as error:
            return Score.error(f"an image of the sample cannot be used: {error}")
        try:
            if drawn is not None and showing is not None:
                drawn = showing.drawn(bank, drawn)
                bank.hash(drawn)
        except ImageError as error:
            return Score.invalid(str(error))
        return replace(query, drawn=drawn, given=given)

    def _judged(self, queries: Sequence[Query]) -> Iterator[Score]:
        bank, name = self.context.bank, self.config.encoder
        shown = [image for query in queries for image in (query.drawn, query.given) if image is not None]
        images = iter(bank.image_features(name, shown, as_is=True)) if shown else iter(())
        worded = dict.fromkeys(text for query in queries for one in query.texts for text in _worded(one, query))
        texts = dict(zip(worded, bank.text_features(name, list(worded)), strict=True))
        cut = self._cut(dict.fromkeys(text for query in queries for text in _worded(query.texts[0], query)))
        wholes = {
            key: ensemble([texts[text] for text in _worded(key[0], query)])
            for key, query in {(one, query.templates): query for query in queries for one in query.texts}.items()
        }
        for query in queries:
            drawn, given = (None if image is None else next(images) for image in (query.drawn, query.given))
            features = np.stack([wholes[one, query.templates] for one in query.texts])
            score = self.judge(query, drawn, given, features)
            if cut is not None:
                first = query.texts[0]
                whole = len(first) <= MOST_CHARACTERS and not any(cut[text] for text in _worded(first, query))
                reason = "" if whole else "the text is longer than the model reads; its end was ignored"
                reasons = "; ".join(part for part in (score.reason, reason) if part)
                score = replace(score, raw={**score.raw, "truncated": float(not whole)}, reason=reasons)
            yield score

    def _cut(self, texts: Mapping[str, None]) -> dict[str, bool] | None:
        """Which texts have more tokens than the encoder reads; None for an encoder that cannot tell."""
        truncates = getattr(self.context.bank.encoder(self.config.encoder), "truncates", None)
        return None if truncates is None else dict(zip(texts, truncates(list(texts)), strict=True))


def _worded(text: str, query: Query) -> list[str]:
    # Plain replacement, because a caption may hold braces of its own.
    return [template.replace("{}", text[:MOST_CHARACTERS]) for template in query.templates]


def drawn_or_after(
    sample: Sample, output: Output, thinking: Thinking
) -> tuple[str, ImageRef | None, ImageRef | None] | Score:
    """The text to judge, the image drawn and the image given, of a forecast or of a caption.

    A forecast is held against the text that asked for it, a caption against the image after the change.
    """
    if sample.task is Task.CHANGE_CAPTION:
        if not sample.images:
            return Score.not_applicable("the sample has no image after the change")
        reply = reply_of(output, thinking)
        caption = reply.answer.strip()
        return (caption, None, sample.images[-1]) if caption else Score.invalid(reply.problem or "the caption is empty")
    text = forecast_text(sample)
    if not text:
        return Score.not_applicable("the sample has no text to be true to (reference.text or prompt)")
    return Score.invalid("the output holds no image") if output.forecast is None else (text, output.forecast, None)
