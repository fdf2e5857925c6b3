"""Sets of labels: F1 over labels and over classes, mean average precision, and the ``label_set`` verifier."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import (
    AdditiveMetric,
    FeatureLookup,
    Frame,
    Metric,
    Numbers,
    SumMetric,
    Sums,
    Terms,
)
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answers import AnswerConfig, normalise, plain_truths, texts_of
from rsw_rewards.verifiers.denials import denial, taken_back
from rsw_rewards.verifiers.labels import Labels, normalised, parse_labels, scalars, set_f1
from rsw_rewards.verifiers.texts import PerText


def average_precision(truth: np.ndarray, scores: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Area under the precision-recall steps: sum over thresholds of (gain in recall) x precision; equal scores are one threshold.

    Args:
        truth: (N,) bool.
        scores: (N,) float64, higher is surer; infinite ones are allowed.
        weight: (N,) float64 multiplicities; ones by default.

    Returns:
        A number in [0, 1]; None without a true entry. As ``sklearn.metrics.average_precision_score`` defines it.
    """
    weight = np.ones(len(truth)) if weight is None else weight
    order = np.argsort(-scores, kind="stable")
    hits, seen = np.cumsum((weight * truth)[order]), np.cumsum(weight[order])
    if not len(order) or not hits[-1]:
        return None
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True) & (seen > 0)
    hits, seen = hits[last], seen[last]
    return float(np.sum(np.diff(hits, prepend=0.0) * hits / seen) / hits[-1])


def _contents(rows: Frame) -> list[dict[str, Any]]:
    """What ``label_set`` stored beside each row; an empty one where a row has failed."""
    return [json.loads(content["labels"]) if content and "labels" in content else {} for content in rows["content"]]


@dataclass(frozen=True)
class MacroF1(AdditiveMetric):
    """Mean over classes of the F1 over rows, for the classes that the rows' truths have."""

    keys: tuple[str, ...] = ("macro_f1",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        contents = _contents(rows)
        names = sorted({label for content in contents for label in content.get("true", ())})
        place = {name: column for column, name in enumerate(names)}
        true, named = np.zeros((2, len(contents), len(names)))
        for row, content in enumerate(contents):
            true[row, [place[label] for label in content.get("true", ())]] = 1
            named[row, [place[label] for label in content.get("named", ()) if label in place]] = 1
        return {"hits": true * named, "wrong": (1 - true) * named, "missed": true * (1 - named)}

    def from_sums(self, sums: Sums) -> Numbers:
        hits, wrong, missed = sums["hits"], sums["wrong"], sums["missed"]
        there = hits + missed > 0
        f1 = 2 * hits[there] / (2 * hits + wrong + missed)[there]
        return {"macro_f1": float(f1.mean()) if len(f1) else None}


@dataclass(frozen=True)
class MeanAveragePrecision(Metric):
    """Mean over classes of the average precision of the rows ranked by their score for the class; classes as in MacroF1.

    A label that an answer does not score has score 0. An invalid row is ranked where it does most harm. None as soon as one
    answer gives labels without scores: a set ranks nothing.
    """

    keys: tuple[str, ...] = ("map",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def notes(self, rows: Frame) -> dict[str, str]:
        """Why there is no number, in words."""
        lacking = sum("named" in content and "scores" not in content for content in _contents(rows))
        why = f"{lacking} of {len(rows)} answers give labels without scores; map needs JSON objects of label to score"
        return {"map": why} if lacking else {}

    def compute(self, rows: Frame, stats: Terms, weight: np.ndarray, features: FeatureLookup | None = None) -> Numbers:
        kept = [(content, times) for content, times in zip(_contents(rows), weight, strict=True) if content]
        if any("scores" not in content for content, _ in kept):
            return {"map": None}
        weights = np.array([times for _, times in kept], dtype=np.float64)
        found: list[float] = []
        for name in sorted({label for content, _ in kept for label in content["true"]}):
            truth = np.array([name in content["true"] for content, _ in kept])
            scores = np.array(
                [
                    content["scores"].get(name, 0.0) if content["scores"] is not None else (-np.inf if true else np.inf)
                    for (content, _), true in zip(kept, truth, strict=True)
                ]
            )
            if (precision := average_precision(truth, scores, weights)) is not None:
                found.append(precision)
        return {"map": float(np.mean(found)) if found else None}


def _micro(sums: Sums) -> Numbers:
    hits, wrong, missed = (float(sums.get(name, np.zeros(()))) for name in ("hits", "wrong", "missed"))
    return {"micro_f1": set_f1(hits, wrong, missed) if sums["n"] else None}


class LabelTruth(NamedTuple):
    """The normalised labels of a sample."""

    labels: frozenset[str]
    vocabulary: frozenset[str]
    """All labels there are; empty where that is not known."""


class LabelSet(PerText[LabelTruth]):
    """F1 between the labels named and the true ones."""

    name = "label_set"
    tasks = frozenset({Task.CLASSIFICATION})
    card = Card(
        summary=("Compares a set of labels with reference.labels."),
        range="f1 of the two sets: [0, 1]; 1 if both are empty. unknown: the number of labels outside the vocabulary",
        transform="none",
        source=("micro_f1, macro_f1 and map as scikit-learn defines them, over the classes that the truths have."),
        gaming=(
            "All K labels at once get 2t / (t + K) for t true ones: under 0.4 for UCM's 17 classes, more if samples "
            "have many labels. Compare with the baseline all_labels."
        ),
    )

    class Config(AnswerConfig):
        """Configuration of ``label_set``."""

        vocabulary: tuple[str, ...] | None = Field(None, description="all labels there are; default: the sample's own")
        synonyms: dict[str, str] = Field(default_factory=dict, description="variant -> the label that it stands for")
        threshold: float = Field(0.5, gt=0, le=1, description="score from which a label counts as named")

    reported = (SumMetric(("micro_f1",), _micro, bounds=(0.0, 1.0)), MacroF1(), MeanAveragePrecision())

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._synonyms = {normalise(word): normalise(to) for word, to in self.config.synonyms.items()}

    def truth(self, sample: Sample) -> LabelTruth | Score:
        reference, fixed = sample.reference, self.config.vocabulary
        if reference.get("labels") is None:
            if reference.get("label") is not None:
                return Score.not_applicable("the sample has one label; scene_label reads it")
            raise ValueError("there is no list of true labels")
        true = normalised(plain_truths(texts_of(reference, "labels")), self._synonyms)
        vocabulary = normalised(texts_of(reference, "vocabulary") if fixed is None else fixed, self._synonyms)
        if vocabulary and not true <= vocabulary:
            raise ValueError(f"the label {min(true - vocabulary)!r} is not in the vocabulary")
        return LabelTruth(true, vocabulary)

    def compare_text(self, truth: LabelTruth, text: str) -> Score:
        def stated(words: str) -> frozenset[str] | None:
            try:
                named = parse_labels(words, "whole", self._synonyms, self.config.threshold).named
            except Unreadable:
                return None
            return named if named <= truth.vocabulary else None

        answer = parse_labels(text, self.config.extract, self._synonyms, self.config.threshold, stated)
        known = truth.vocabulary | truth.labels
        for part in sorted(answer.named - known):
            if said := _taken_back(part, known):
                raise Unreadable(
                    f"{said!r} in {part[:40]!r} takes back or hedges the labels beside it; list those that are there alone"
                )
        return _judged(answer, truth)

    def worst(self, truth: LabelTruth, reason: str) -> Score:
        # The complement of the truth, or leaving hard samples out would raise the summed numbers.
        named = truth.vocabulary - truth.labels
        return Score.invalid(
            reason,
            raw={"f1": 0.0},
            stats=scalars(hits=0, wrong=max(len(named), 1), missed=len(truth.labels)),
            content=_content(truth.labels, named, {"scores": None}),
        )


def _taken_back(part: str, known: frozenset[str]) -> str:
    """The words of a part of a list that speak of the other labels and deny or hedge them; empty for a label, also one that is hedged."""
    labels = any(re.search(rf"\b{re.escape(label)}\b", part) for label in known)
    return taken_back(part) or ("" if labels else denial(part))


def _content(true: frozenset[str], named: frozenset[str], scores: Mapping[str, Any]) -> dict[str, str]:
    return {"labels": json.dumps({"true": sorted(true), "named": sorted(named), **scores})}


def _judged(answer: Labels, truth: LabelTruth) -> Score:
    named, (true, vocabulary) = answer.named, truth
    hits, wrong, missed = len(named & true), len(named - true), len(true - named)
    unknown = sorted((named | frozenset(answer.scores or ())) - vocabulary) if vocabulary else []
    f1 = set_f1(hits, wrong, missed)
    reasons = []
    if unknown:
        shown = ", ".join(label[:40] for label in unknown[:4])
        reasons.append(f"{len(unknown)} labels outside the vocabulary ({shown})")
    if wrong or missed:
        reasons.append(f"{wrong} labels wrong, {missed} missed")
    return Score(
        f1,
        raw={"f1": f1, "unknown": float(len(unknown))},
        stats=scalars(hits=hits, wrong=wrong, missed=missed),
        reason="; ".join(reasons),
        content=_content(true, named, {} if answer.scores is None else {"scores": answer.scores}),
    )
