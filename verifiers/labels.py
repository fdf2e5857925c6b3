"""Labels of scenes: how sets of labels are read out of a text, and the ``scene_label`` verifier for one label of a vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Frame, Metric, Terms
from rsw_rewards.core.per_sample import truths_of
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answer_metrics import KindAccuracy
from rsw_rewards.verifiers.answers import (
    AnswerConfig,
    AnswerVerifier,
    Extract,
    Truth,
    answer_truth,
    extract_answer,
    normalise,
    plain_truths,
    rules_of,
    texts_of,
)
from rsw_rewards.verifiers.contradictions import States
from rsw_rewards.verifiers.texts import filled, known

LONGEST_TEXT = 20_000
"""Characters of an answer that is read; lists that are longer are no answers."""
MOST_LABELS = 500
MOST_CLASSES = 200
"""Number of classes up to which each is reported by itself."""

_BULLET = re.compile(r"[-*\u2022]\s+")


def answer_body(text: str, extract: Extract = "auto", states: States | None = None) -> str:
    """The part of a text that is the answer, its lines kept: inside the answer tag, and without a code fence around it.

    Args:
        text: what the policy wrote.
        extract: where the answer stands.
        states: how words beside the tag are read; see :func:`extract_answer`.

    Raises:
        Unreadable: the text is too long, or :func:`extract_answer` finds no answer in it.
    """
    if len(text) > LONGEST_TEXT:
        raise Unreadable(f"the text has {len(text)} characters, more than the {LONGEST_TEXT} that are read")
    body = known(*extract_answer(text, extract, str.strip, states))
    if len(body) > 5 and body.startswith("```") and body.endswith("```"):
        opening, _, rest = body[3:-3].partition("\n")
        body = rest if opening.strip().isalnum() or not opening.strip() else body[3:-3]
    return filled(body)


def read_json(body: str) -> Any:
    """A JSON value. Raises :class:`Unreadable` for what is not JSON, and for an object that names a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an object names a key twice")
        return found

    try:
        return json.loads(body, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the answer begins like JSON but cannot be read as such: {error}") from None


class Labels(NamedTuple):
    """Labels read out of an answer, normalised."""

    named: frozenset[str]
    scores: Mapping[str, float] | None
    """Score in [0, 1] of each label, where the answer gave them."""


def parse_labels(
    text: str,
    extract: Extract = "auto",
    synonyms: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    states: States | None = None,
) -> Labels:
    """The set of labels that a text gives.

    Forms: labels between commas, semicolons or line breaks; a JSON list of labels; a JSON object of label to score in [0, 1],
    which names those at ``threshold`` or above. ``none``, ``[]`` and ``{}`` are the empty set.

    Raises:
        Unreadable: nothing was answered, the JSON is broken or of another form, or there are over 500 labels.
    """
    body = answer_body(text, extract, states)
    table = synonyms or {}
    scores: dict[str, float] | None = None
    if body[0] in "[{":
        value = read_json(body)
        listed = list(value)
        if not all(isinstance(label, str) for label in listed):
            raise Unreadable("a JSON list of labels holds something that is not a text")
        if isinstance(value, dict):
            if not all(type(score) in (int, float) and 0 <= score <= 1 for score in value.values()):
                raise Unreadable("a JSON object of labels holds a score that is not a number in [0, 1]")
            scores = {}
            for label, score in value.items():
                name = table.get(normalise(label), normalise(label))
                scores[name] = max(float(score), scores.get(name, 0.0))
    else:
        listed = [_BULLET.sub("", part.strip(), count=1) for part in re.split(r"[,;\n]", body)]
        if normalise(body) == "none":
            listed = []
    if len(listed) > MOST_LABELS:
        raise Unreadable(f"{len(listed)} labels are more than the {MOST_LABELS} that are read")
    if scores is not None:
        return Labels(frozenset(name for name, score in scores.items() if score >= threshold), scores)
    return Labels(frozenset(table.get(name, name) for name in map(normalise, listed) if name), None)


def scalars(**numbers: float) -> dict[str, np.ndarray]:
    """Statistics that are one number each."""
    return {name: np.asarray(float(number)) for name, number in numbers.items()}


def set_f1(hits: float, wrong: float, missed: float) -> float:
    """F1 of two sets: 2 hits / (2 hits + wrong + missed), and 1 where both are empty."""
    return 2 * hits / (2 * hits + wrong + missed) if hits or wrong or missed else 1.0


def normalised(labels: Iterable[str], synonyms: Mapping[str, str]) -> frozenset[str]:
    """Labels of the data as they are compared. Raises ``ValueError`` for one that is empty."""
    names = frozenset(synonyms.get(name, name) for name in map(normalise, labels))
    if "" in names:
        raise ValueError("a label is empty")
    return names


@dataclass(frozen=True)
class ClassAccuracy(KindAccuracy):
    """Accuracy over all rows (``oa``), over the rows of each true class (``oa/<class>``), and the mean of those (``aa``)."""

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        truths = np.array([(content or {}).get("truth") for content in rows["content"]], dtype=object)
        return super().terms(rows.assign(kind=truths), stats)


class SceneLabel(AnswerVerifier):
    """1 for the right class of a scene and nothing else beside it, otherwise 0."""

    name = "scene_label"
    tasks = frozenset({Task.CLASSIFICATION})
    card = Card(
        summary="1 if the normalised answer equals reference.label, and is in the vocabulary; for an image or a series.",
        range="correct: 0 or 1",
        transform="none",
        source=("overall accuracy as usual for NWPU-RESISC45 (arXiv 1703.00121) and ERA (arXiv 2001.11394)."),
        gaming=("Several classes, a class outside of the vocabulary, and a class inside a sentence are invalid."),
    )

    class Config(AnswerConfig):
        """Configuration of ``scene_label``."""

        reading: Literal["strict", "unpunctuated"] = Field(
            "strict", description="as in exact_match; unpunctuated: lower case without punctuation, as TEOChat compares"
        )
        vocabulary: tuple[str, ...] | None = Field(None, description="all classes there are; default: the sample's own")
        synonyms: dict[str, str] = Field(default_factory=dict, description="variant -> the class that it stands for")

    _classes: tuple[str, ...] = ()

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._rules = rules_of(self.config, keep=True)

    @property
    def needs_samples(self) -> bool:
        return False  # only the keys of the metrics depend on them

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Learn which classes there are, so that each is reported; past 200 of them none is."""
        truths = truths_of(self, samples)
        classes = sorted({min(truth.wanted) for truth in truths if isinstance(truth, Truth)})
        self._classes = tuple(classes) if len(classes) <= MOST_CLASSES else ()

    def truth(self, sample: Sample) -> Truth | Score:
        label = sample.reference.get("label")
        if label is None and sample.reference.get("labels") is not None:
            return Score.not_applicable("the sample has a set of labels; label_set reads it")
        if not isinstance(label, str):
            raise ValueError("there is no true label")
        fixed = self.config.vocabulary
        return answer_truth(
            plain_truths([label]), texts_of(sample.reference, "vocabulary") if fixed is None else fixed, self._rules
        )

    def metrics(self) -> Sequence[Metric]:
        return (ClassAccuracy(("oa", "aa", *(f"oa/{name}" for name in self._classes))),)
