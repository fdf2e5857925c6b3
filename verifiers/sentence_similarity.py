"""Whether a caption or a free answer means what the references say, by a sentence encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Metric
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.encoders import encoder_label
from rsw_rewards.encoders.sentences import MINILM
from rsw_rewards.verifiers.alignment import cosines
from rsw_rewards.verifiers.answers import Extract, extract_answer, true_answers
from rsw_rewards.verifiers.caption_base import true_captions
from rsw_rewards.verifiers.encoded import Encoded
from rsw_rewards.verifiers.texts import PerText, TextConfig, known

_DENIALS = re.compile(
    r"\b(?:no|not|none|nothing|nobody|never|neither|nor|without|cannot|unchanged|unaltered|same|identical)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
DENIAL_FACTOR = 0.5
"""What is left of the value of a text that denies where no reference does, or the other way round."""


def denies(text: str) -> bool:
    """Whether a text holds a word by which English captions deny a change: no, not, unchanged, same, identical and the like."""
    return _DENIALS.search(text) is not None


def sentence_similarity(cosines: Sequence[float], references: Literal["max", "mean"]) -> float:
    """Best or mean of the cosines with the references, at least 0; in [0, 1]."""
    return max(max(cosines) if references == "max" else float(np.mean(cosines)), 0.0)


class SentenceSimilarity(Encoded, PerText[tuple[str, ...]]):
    """Cosine of sentence embeddings of a text and its references."""

    name = "sentence_similarity"
    reads_texts = True
    at_once = 4096  # texts are small, and those of one length share a pass of the encoder
    tasks = frozenset({Task.CHANGE_CAPTION, Task.CHANGE_QA})
    needs = frozenset({"output.text", "encoder"})

    class Config(TextConfig):
        """Which encoder reads the texts, and how several references are taken."""

        encoder: str = Field(MINILM, description="sentence:minilm, sentence:<folder> or sentence:<hub name>")
        references: Literal["max", "mean"] = Field("max", description="best reference, or the mean of all")
        extract: Extract = Field("auto", description="where the text stands: auto, tag or whole")

    card = Card(
        summary=(
            "Cosine between the sentence embeddings of a caption or a free answer and of its references; the "
            "best of them, or the mean."
        ),
        range="raw.similarity in [0, 1]: the cosine, at least 0 (raw.cos: as it is); an invalid output counts as 0",
        transform=(
            "the similarity; half of it if the text denies a change and no reference does, or the other way round."
        ),
        source="Reimers and Gurevych 2019 (arXiv 1908.10084); the default encoder is all-MiniLM-L6-v2, 256 tokens. Bili-Sakura/RSCC"
        " reports the same of ST5 as its similarity",
        gaming=(
            "Embeddings hardly notice a negation: all-MiniLM-L6-v2 gives 'no road has been built' a similarity of 0.82 "
            "to 'a road has been built'."
        ),
        cost="one pass of the encoder per new text: 40 to 50 new captions/s on one thread of a busy CPU, over 500/s where they are known",
    )

    def truth(self, sample: Sample) -> tuple[str, ...] | Score:
        if sample.task is Task.CHANGE_CAPTION:
            references = true_captions(sample)
        else:
            if sample.reference.get("vocabulary") is not None:
                return Score.not_applicable("the question has a vocabulary; exact_match reads it")
            references = true_answers(sample)
            if sample.reference.get("unit") is not None or any(map(_is_number, references)):
                return Score.not_applicable("the answer is a number; numeric_match reads it")
        return tuple(plain for text in references if (plain := _plain(text)))

    def compare_text(self, truth: tuple[str, ...], text: str) -> str:
        return known(*extract_answer(text, self.config.extract, _plain))

    def rate(self, truths: Sequence[tuple[str, ...]], compared: Sequence[str]) -> list[Score]:
        # Texts of one length share a pass; see SentenceEncoder.
        every = sorted({*compared, *chain(*truths)}, key=lambda text: (len(text), text))
        features = dict(zip(every, self.context.bank.text_features(self.config.encoder, every), strict=True))
        cut = self.cut(list(dict.fromkeys(compared))) or {}
        return [self._judged(said, truth, features, cut) for said, truth in zip(compared, truths, strict=True)]

    def _judged(
        self, said: str, references: tuple[str, ...], features: Mapping[str, np.ndarray], cut: Mapping[str, bool]
    ) -> Score:
        found = cosines(features[said], np.stack([features[text] for text in references]))
        similarity = sentence_similarity(found, self.config.references)
        cos = max(found) if self.config.references == "max" else float(np.mean(found))
        differs = all(denies(said) != denies(text) for text in references)
        raw = {"similarity": similarity, "cos": cos, "denial_differs": float(differs)}
        reasons = (
            ["it denies what no reference denies" if denies(said) else "every reference denies what it says"]
            if differs
            else []
        )
        if said in cut:
            raw["truncated"] = float(cut[said])
            reasons += ["the text is longer than the model reads; its end was ignored"] if cut[said] else []
        return Score(similarity * (DENIAL_FACTOR if differs else 1.0), raw=raw, reason="; ".join(reasons))

    def metrics(self) -> Sequence[Metric]:
        key = f"{self.name}_{encoder_label(self.config.encoder)}"
        return (
            MeanValue(key, "similarity", bounds=(0.0, 1.0)),
            MeanValue(f"{key}_denial_differs", "denial_differs", invalid=np.nan, bounds=(0.0, 1.0)),
            MeanValue(f"{key}_truncated_rate", "truncated", invalid=np.nan, bounds=(0.0, 1.0)),
        )


def _plain(text: str) -> str:
    return " ".join(text.split())


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?[0-9][0-9.,]*\s*%?\s*", text) is not None
