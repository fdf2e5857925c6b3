"""Closed-vocabulary and exact answers: how an answer is read out of a text, and the strict ``exact_match`` verifier."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from rsw_rewards.contracts import (
    Batch,
    Card,
    FeatureLookup,
    Metric,
    SumMetric,
    Terms,
    Verifier,
    compute_additive,
    register,
)
from rsw_rewards.samples import Sample, Task
from rsw_rewards.scores import Score

Extract = Literal["auto", "tag", "whole"]
"""Where the answer stands: between answer tags, in the whole text, or (auto) in tags if the text has any."""

_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_ANY_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_LONGEST_CACHED = 400  # characters: the caches below must stay small under rambling policies

# Shared by every score that says the same, so that a score costs no arrays of its own. Read-only for that reason.
_ONE = np.ones(())
_ZERO = np.zeros(())
_ONE.setflags(write=False)
_ZERO.setflags(write=False)


class Reading(NamedTuple):
    """An answer read out of a text, or why there is none."""

    answer: str | None
    reason: str = ""


def normalise(text: str) -> str:
    """NFKC, lower case, outer blanks off, inner blanks collapsed to one, one trailing full stop off. Nothing else changes.

    Hyphens, underscores and signs stay: CDVQA's ``0_to_10`` and ``low_vegetation`` are answers.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = " ".join(text.lower().split())
    return text[:-1].rstrip() if text.endswith(".") else text


def extract_answer(text: str, extract: Extract = "auto") -> Reading:
    """The normalised answer that a text gives.

    Args:
        text: what the policy wrote.
        extract: ``"tag"``: ``<answer>..</answer>`` is required; repeated tags must agree, and the last counts. ``"whole"``:
            the text is the answer. ``"auto"``: tag rules as soon as an opening or closing answer tag occurs.

    Returns:
        The answer, or a reason why there is none: no tag, tags that do not pair up, different answers, an empty answer.
    """
    answer: str
    if extract == "whole" or (extract == "auto" and ("<" not in text or not _ANY_TAG.search(text))):
        answer = normalise(text)
    else:
        found = [normalise(answer) for answer in _TAG.findall(text)]
        if not found:
            return Reading(None, "no complete <answer>..</answer> tag")
        if len(_ANY_TAG.findall(text)) != 2 * len(found):
            return Reading(None, "answer tags do not pair up")
        if len(set(found)) > 1:
            return Reading(None, f"{len(found)} answer tags with different answers")
        answer = found[-1]
    return Reading(answer) if answer else Reading(None, "the answer is empty")


def chance_corrected(accuracy: float, chance: float) -> float:
    """``(accuracy - chance) / (1 - chance)``: 0 for guessing, 1 for perfect, negative below chance.

    Args:
        accuracy: share of right answers, in [0, 1].
        chance: what the guessing policy reaches, in [0, 1).

    Raises:
        ValueError: chance is outside [0, 1), where there is nothing left to be better at.
    """
    if not 0.0 <= chance < 1.0:
        raise ValueError(f"the chance level must lie in [0, 1), got {chance!r}")
    return (accuracy - chance) / (1.0 - chance)


def true_answers(sample: Sample) -> tuple[str, ...]:
    """The accepted answers of a sample as texts: ``answers`` of a question, ``label`` or ``labels`` of a classification.

    Raises:
        ValueError: there is none, or one that is neither a text nor a number. That is the data's fault, never the policy's.
    """
    reference = sample.reference
    answers = reference.get("answers")
    if answers is None:
        answers = [reference["label"]] if reference.get("label") is not None else reference.get("labels")
    if not isinstance(answers, (list, tuple)) or not answers:
        raise ValueError(f"sample {sample.id!r} has no true answer")
    for answer in answers:
        if type(answer) is not str:
            if isinstance(answer, bool) or not isinstance(answer, (int, float)):
                raise ValueError(f"sample {sample.id!r} has the true answer {answer!r}, which is not a text")
            return tuple(str(answer) for answer in answers)
    return tuple(answers)


class _Key(NamedTuple):
    """What an answer is held against, normalised once per question rather than once per candidate."""

    wanted: frozenset[str]
    entries: frozenset[str]
    problem: str


@lru_cache(maxsize=4096)
def _key(answers: tuple[str, ...], vocabulary: tuple[str, ...], synonyms: tuple[tuple[str, str], ...]) -> _Key:
    table = dict(synonyms)
    wanted, entries = (
        frozenset(table.get(word, word) for word in map(normalise, words)) for words in (answers, vocabulary)
    )
    problem = ""
    if "" in wanted or not wanted:
        problem = "the true answer is empty"
    elif entries and not wanted <= entries:
        problem = f"the true answer {min(wanted - entries)!r} is not in the vocabulary"
    return _Key(wanted, entries, problem)


_SEPARATORS = str.maketrans(",;/|&", "     ")


def _why_outside(answer: str, entries: frozenset[str]) -> str:
    words = f" {' '.join(answer.translate(_SEPARATORS).split())} "
    named = sorted(entry for entry in entries if entry in words and f" {entry} " in words)
    shown = answer if len(answer) <= 60 else answer[:57] + "..."
    if len(named) > 1:
        return f"hedged: {shown!r} names {len(named)} answers ({', '.join(named[:4])})"
    return f"{shown!r} is not one of the {len(entries)} allowed answers"


def judge(
    text: str,
    answers: tuple[str, ...],
    vocabulary: tuple[str, ...] = (),
    extract: Extract = "auto",
    synonyms: tuple[tuple[str, str], ...] = (),
) -> Score:
    """Score one text against the accepted answers.

    Args:
        text: what the policy wrote.
        answers: accepted true answers; equality with one of them is right.
        vocabulary: closed set of answers; empty for an open question.
        extract: see :func:`extract_answer`.
        synonyms: pairs (normalised variant, normalised answer that it stands for).

    Returns:
        OK with value 1 or 0; INVALID_OUTPUT for no, several, or an answer outside the vocabulary; ERROR for a truth that is
        empty or outside the vocabulary.
    """
    wanted, entries, problem = _key(answers, vocabulary, synonyms)
    if problem:
        return Score.error(problem)
    answer, reason = extract_answer(text, extract)
    if answer is None:
        return Score.invalid(reason, raw={"correct": 0.0}, stats={"correct": _ZERO})
    answer = dict(synonyms).get(answer, answer)
    if entries and answer not in entries:
        return Score.invalid(_why_outside(answer, entries), raw={"correct": 0.0}, stats={"correct": _ZERO})
    if answer in wanted:
        return Score(1.0, raw={"correct": 1.0}, stats={"correct": _ONE})
    reason = f"answered {answer[:60]!r}, not {' or '.join(map(repr, sorted(wanted)))}"
    return Score(0.0, raw={"correct": 0.0}, stats={"correct": _ZERO}, reason=reason)


# Answers repeat: a closed question has few wordings, and a group has many equal candidates.
_judge_cached = lru_cache(maxsize=16384)(judge)


@dataclass(frozen=True)
class KindAccuracy:
    """Overall accuracy (OA) and the unweighted mean of the accuracies per kind of question (AA).

    Reads ``stats["correct"]`` (0/1 per row). Rows that failed (error, timeout) or do not apply are left out; invalid
    outputs count as wrong. Kinds without a row do not enter the mean.
    """

    keys: tuple[str, ...] = ("oa", "aa")
    """What to report: ``oa``, ``aa`` and, for single kinds, ``oa/<kind>``."""
    kinds: tuple[str, ...] | None = None
    """Only rows of these kinds (after merging) count; None for all."""
    merge: Mapping[str, str] = field(default_factory=dict)
    """Kinds that count as another: CDVQA's 7-type variant is ``{"change_ratio_types": "change_ratio"}``."""
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    divisor: int | None = None
    """Divide the sum over kinds by this instead of the number of kinds: VisTA's script divides by 8 whatever was seen."""
    epsilon: float = 0.0
    """Added to the count of each kind before dividing in the mean: VisTA's script has 1e-4."""

    def terms(self, rows: pd.DataFrame, stats: Mapping[str, np.ndarray]) -> Terms:
        counts = rows["status"].isin(("ok", "invalid_output")).to_numpy()
        codes, names = pd.factorize(rows["kind"].replace(dict(self.merge)) if self.merge else rows["kind"])
        if self.kinds is not None:
            counts = counts & np.append(np.isin(names, self.kinds), False)[codes]
        seen = counts.astype(np.float64)
        right = seen * stats.get("correct", np.zeros(len(rows)))
        # Rows without a kind (code -1) enter OA, but are no kind of their own.
        terms = {"seen": seen, "right": right}
        for code, name in enumerate(names):
            here = codes == code
            terms[f"seen/{name}"] = seen * here
            terms[f"right/{name}"] = right * here
        return terms

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, float | None]:
        per_kind = {
            name: (float(sums[f"right/{name}"]), float(sums[f"seen/{name}"]))
            for name in (key.removeprefix("seen/") for key in sums if key.startswith("seen/"))
            if sums[f"seen/{name}"] > 0
        }
        numbers: dict[str, float | None] = {f"oa/{name}": right / seen for name, (right, seen) in per_kind.items()}
        numbers["oa"] = float(sums["right"] / sums["seen"]) if sums["seen"] else None
        total = sum(right / (seen + self.epsilon) for right, seen in per_kind.values())
        numbers["aa"] = total / (self.divisor or len(per_kind)) if per_kind else None
        return {key: numbers.get(key) for key in self.keys}

    def compute(
        self,
        rows: pd.DataFrame,
        stats: Mapping[str, np.ndarray],
        weight: np.ndarray,
        features: FeatureLookup | None = None,
    ) -> dict[str, float | None]:
        return compute_additive(self, rows, stats, weight)


def _accuracy(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    return {"accuracy": float(sums.get("correct", _ZERO) / sums["n"]) if sums["n"] else None}


ACCURACY = SumMetric(("accuracy",), _accuracy, bounds=(0.0, 1.0))
"""Share of right answers among the rows given; an invalid output counts as wrong, so failed rows must be left out first."""


class ExactMatchConfig(BaseModel):
    """Configuration of ``exact_match``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extract: Extract = Field("auto", description="where the answer stands: auto, tag or whole")
    vocabulary: tuple[str, ...] | None = Field(None, description="closed set of answers; default: the sample's own")
    synonyms: dict[str, str] = Field(default_factory=dict, description="variant -> the answer that it stands for")
    merge_kinds: dict[str, str] = Field(default_factory=dict, description="kinds that count as another in oa and aa")
    metric_kinds: tuple[str, ...] = Field((), description="kinds to report as oa/<kind>")


@register
class ExactMatch(Verifier):
    """1 for the right answer and nothing else beside it, otherwise 0."""

    name: ClassVar[str] = "exact_match"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_QA, Task.CLASSIFICATION})
    needs: ClassVar[frozenset[str]] = frozenset({"output.text"})
    card: ClassVar[Card] = Card(
        summary="Strict equality of the normalised answer with a true answer, within a closed vocabulary where there is one.",
        range="correct: 0 or 1",
        transform="none",
        source="accuracy as in RSVQA (arXiv 2003.07333) and CDVQA (arXiv 2112.06343); the reading rules are this project's",
        gaming=(
            "Listing all answers, hedging, an empty text, naming the answer inside a sentence: none scores, because the whole"
            " answer must equal one entry of the vocabulary. Differing answer tags are invalid. A constant answer scores the"
            " share of that answer: read accuracy beside the chance-corrected score and the majority baseline."
        ),
    )
    Config: ClassVar[type[BaseModel]] = ExactMatchConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._synonyms = tuple((normalise(word), normalise(to)) for word, to in sorted(self.config.synonyms.items()))

    def score(self, batch: Batch) -> list[Score]:
        extract, fixed, synonyms = self.config.extract, self.config.vocabulary, self._synonyms
        scores = []
        for sample, output in zip(batch.samples, batch.outputs, strict=True):
            text = output.text or ""
            try:
                answers = true_answers(sample)
                vocabulary = fixed if fixed is not None else tuple(sample.reference.get("vocabulary") or ())
                run = _judge_cached if len(text) <= _LONGEST_CACHED else judge
                if sample.task is Task.CLASSIFICATION and len(answers) > 1:
                    score = Score.not_applicable("the sample has several labels; this verifier reads one")
                else:
                    score = run(text, answers, vocabulary, extract, synonyms)
            except (
                ValueError,
                TypeError,
                AttributeError,
            ) as error:  # the data's fault: a truth or vocabulary of another kind
                score = Score.error(str(error))
            scores.append(score)
        return scores

    def metrics(self) -> Sequence[Metric]:
        keys = ("oa", "aa", *(f"oa/{kind}" for kind in self.config.metric_kinds))
        return (ACCURACY, KindAccuracy(keys, merge=self.config.merge_kinds))
