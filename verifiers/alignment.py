"""What the verifiers of text-image alignment share: how texts are worded, images and texts encoded, cut texts reported."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import MeanValue
from rsw_rewards.core.per_sample import PerSample, Unscored
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.encoders import SCENE_CLIP, encoder_label
from rsw_rewards.verifiers.encoded import Encoded
from rsw_rewards.verifiers.forecast_case import ForecastCase, in_bands, read_case
from rsw_rewards.verifiers.texts import TextConfig, answer_in, filled

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


def asked_text(sample: Sample) -> str:
    """:func:`forecast_text`. Raises :class:`Unscored` for a sample without one."""
    if not (text := forecast_text(sample)):
        raise Unscored(Score.not_applicable("the sample has no text to be true to (reference.text or prompt)"))
    return text


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


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is encoded to judge an output: what the sample gives, and once there is an output, what that gives."""

    texts: tuple[str, ...]
    """The first is the one judged: whether it was cut is reported. That of a caption is the output's, and is put before these."""
    templates: tuple[str, ...]
    case: ForecastCase | None
    """How a forecast is shown; None where the output is a caption."""
    given: ImageRef | None = None
    """An image of the sample's, as the encoder sees it."""
    drawn: ImageRef | None = None
    """The output's image, likewise."""


class AlignmentVerifier(Encoded, PerSample[Query]):
    """Base of the verifiers that hold texts against images: says once how outputs are encoded, and what went wrong in it."""

    reads_texts = True
    Config: ClassVar[type[AlignmentConfig]] = AlignmentConfig

    @abstractmethod
    def score_query(self, query: Query, images: Sequence[np.ndarray], texts: np.ndarray) -> Score:
        """The score from (d,) features, not normalised, of the query's ``drawn`` and ``given`` image, those there are, and (len(query.texts), d)
        text features."""

    def key(self, stem: str, published: bool = False) -> str:
        """Key of a metric: ``stem`` alone where the number is ``published`` under that name, else with encoder and wording."""
        templates = self.config.templates
        wording = "" if templates is None else f"_{templates if isinstance(templates, str) else 'templates'}"
        return stem if published and templates is None else f"{stem}_{encoder_label(self.config.encoder)}{wording}"

    def truncated_rate(self, key: str) -> MeanValue:
        """Share of texts cut by the model, of the outputs that were scored."""
        return MeanValue(f"{key}_truncated_rate", "truncated", invalid=math.nan, bounds=(0.0, 1.0))

    def query(self, sample: Sample, texts: Sequence[str] = (), wording: Preset = "plain") -> Query:
        """What a sample gives: a forecast is held against the text that asked for it, a caption against the image after the change.

        Args:
            sample: a forecast to make, or a pair to caption.
            texts: what is encoded beside the text that is judged.
            wording: the templates where none are configured.

        Raises:
            ImageError: an image or a mask of the sample cannot be used.
            Unscored: the sample has no image or no text.
        """
        templates = self.config.templates or wording
        wordings = TEMPLATES[templates] if isinstance(templates, str) else templates
        bank, bands = self.context.bank, self.bands
        if sample.task is Task.CHANGE_CAPTION:
            if not sample.images:
                raise Unscored(Score.not_applicable("the sample has no image after the change"))
            given = in_bands(sample.images[-1], bands)
            bank.hash(given)
            return Query(tuple(texts), wordings, None, given)
        return Query((asked_text(sample), *texts), wordings, read_case(bank, sample, bands))

    def compare(self, truth: Query, output: Output) -> Query:
        """The query with what the output gives."""
        if truth.case is not None:
            return replace(truth, drawn=truth.case.forecast(output))
        return replace(truth, texts=(filled(answer_in(output, self.config.thinking), "caption"), *truth.texts))

    def rate(self, truths: Sequence[Query], compared: Sequence[Query]) -> list[Score]:
        shown = [image for query in compared for image in (query.drawn, query.given) if image is not None]
        images = iter(self.context.bank.image_features(self.config.encoder, shown, as_is=True))
        cut = self.cut(list(dict.fromkeys(text for query in compared for text in _worded(query.texts[0], query))))
        scores = []
        for query, features in zip(compared, self.text_features(compared), strict=True):
            seen = [next(images) for image in (query.drawn, query.given) if image is not None]
            score = self.score_query(query, seen, features)
            if cut is not None:
                first = query.texts[0]
                whole = len(first) <= MOST_CHARACTERS and not any(cut[text] for text in _worded(first, query))
                reason = "" if whole else "the text is longer than the model reads; its end was ignored"
                reasons = "; ".join(part for part in (score.reason, reason) if part)
                score = replace(score, raw={**score.raw, "truncated": float(not whole)}, reason=reasons)
            scores.append(score)
        return scores

    def text_features(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """(len(query.texts), d) float64 of every query: each text's mean over its wordings."""
        worded = dict.fromkeys(text for query in queries for one in query.texts for text in _worded(one, query))
        texts = dict(zip(worded, self.context.bank.text_features(self.config.encoder, list(worded)), strict=True))
        wholes = {
            key: ensemble([texts[text] for text in _worded(key[0], query)])
            for key, query in {(one, query.templates): query for query in queries for one in query.texts}.items()
        }
        return [np.stack([wholes[one, query.templates] for one in query.texts]) for query in queries]


def _worded(text: str, query: Query) -> list[str]:
    # Plain replacement, because a caption may hold braces of its own.
    return [template.replace("{}", text[:MOST_CHARACTERS]) for template in query.templates]
