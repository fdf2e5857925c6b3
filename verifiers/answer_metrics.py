"""Numbers over answers that are right or wrong: accuracy per kind of question, detection of a positive answer, agreement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from rsw_rewards.core.metric import AdditiveMetric, Bounds, Frame, Numbers, SumMetric, Sums, Terms
from rsw_rewards.verifiers.confusion import kappa_of_margins, ratio


@dataclass(frozen=True)
class KindAccuracy(AdditiveMetric):
    """Overall accuracy (OA) and the unweighted mean of the accuracies per kind of question (AA).

    Reads ``stats["correct"]`` (0/1 per row). Rows that failed (error, timeout) or do not apply are left out; invalid
    outputs count as wrong. Kinds without a row do not enter the mean. Where there are ``stats["seen"]``, rows with 0 there are
    left out too.
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

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        counts = rows["status"].isin(("ok", "invalid_output")).to_numpy()
        codes, names = (rows["kind"].replace(dict(self.merge)) if self.merge else rows["kind"]).factorize()
        if self.kinds is not None:
            counts = counts & np.append(np.isin(names, self.kinds), False)[codes]
        seen = counts * stats.get("seen", np.ones(len(rows)))
        right = seen * stats.get("correct", np.zeros(len(rows)))
        # Rows without a kind (code -1) enter OA, but are no kind of their own.
        terms = {"seen": seen, "right": right}
        for code, name in enumerate(names):
            here = codes == code
            terms[f"seen/{name}"] = seen * here
            terms[f"right/{name}"] = right * here
        return terms

    def from_sums(self, sums: Sums) -> Numbers:
        per_kind = [
            (key[5:], float(sums[f"right/{key[5:]}"]), float(seen))
            for key, seen in sums.items()
            if key.startswith("seen/") and seen > 0
        ]
        numbers: dict[str, float | None] = {f"oa/{name}": right / seen for name, right, seen in per_kind}
        numbers["oa"] = float(sums["right"]) / float(sums["seen"]) if sums["seen"] else None
        total = sum(right / (seen + self.epsilon) for _, right, seen in per_kind)
        numbers["aa"] = total / (self.divisor or len(per_kind)) if per_kind else None
        return {key: numbers.get(key) for key in self.keys}


def share(sums: Sums, name: str, over: str = "n") -> float | None:
    """The summed statistic ``name`` over that of ``over``, None where the latter is zero."""
    return ratio(float(sums.get(name, 0.0)), float(sums.get(over, 0.0)))


def quotients(
    of: Mapping[str, tuple[str, str]], bounds: Bounds | Mapping[str, Bounds] | None = (0.0, 1.0)
) -> SumMetric:
    """Metrics that are each the sum of one statistic over that of another; ``n`` is the number of rows."""
    return SumMetric(tuple(of), lambda sums: {key: share(sums, *pair) for key, pair in of.items()}, bounds)


ACCURACY = quotients({"accuracy": ("correct", "n")})
"""Share of right answers among the rows given; an invalid output counts as wrong, so failed rows must be left out first."""

VALID_RATE = quotients({"valid_rate": ("valid", "n")})
"""Share of the rows whose output could be read at all."""


def precision_recall_f1(tp: float, fp: float, fn: float) -> tuple[float, float, float]:
    """``tp / (tp + fp)``, ``tp / (tp + fn)`` and ``2 tp / (2 tp + fp + fn)``; 0 where the denominator is, as in scikit-learn."""
    return (
        tp / (tp + fp) if tp + fp else 0.0,
        tp / (tp + fn) if tp + fn else 0.0,
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
    )


def _detection(sums: Sums) -> Numbers:
    counts = (float(sums.get(name, 0.0)) for name in ("tp", "fp", "fn"))
    return dict(zip(("precision", "recall", "f1"), precision_recall_f1(*counts), strict=True))


DETECTION = SumMetric(("precision", "recall", "f1"), _detection, bounds=(0.0, 1.0))
"""Precision, recall and F1 of the positive answer, from the statistics ``tp``, ``fp`` and ``fn``; 0 where nothing is divided by."""


@dataclass(frozen=True)
class AnswerKappa(AdditiveMetric):
    """Cohen's kappa between given and true answers: ``(po - pe) / (1 - pe)`` with the answers as categories.

    Reads ``content``: ``answer`` and ``truth``. An invalid output is an answer that no truth equals. Rows without a truth are
    left out. None where chance agreement ``pe`` is 1 (one category on both sides).
    """

    keys: tuple[str, ...] = ("kappa",)
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        contents = [content or {} for content in rows["content"]]
        truth = np.array([content.get("truth", "") for content in contents], dtype=object)
        answer = np.array([content.get("answer", "") for content in contents], dtype=object)
        known = (truth != "").astype(np.float64)
        names = sorted({*truth, *answer} - {""})
        return {
            "agree": known * (truth == answer),
            "true": np.stack([known * (truth == name) for name in names], axis=1) if names else known[:, None],
            "given": np.stack([known * (answer == name) for name in names], axis=1) if names else known[:, None],
        }

    def from_sums(self, sums: Sums) -> Numbers:
        return {"kappa": kappa_of_margins(float(sums["agree"]), sums["true"], sums["given"])}


@dataclass(frozen=True)
class PromptVariants(AdditiveMetric):
    """Numbers over questions that are asked in several wordings: samples whose ids differ behind their last ``#`` alone.

    ``majority`` is the mean credit of the most common answer to each question (of equals the one to the first wording),
    ``all_variants`` the share of questions that are answered rightly in every wording, and ``consistency`` the share that are
    answered alike in every wording, right or wrong; an invalid output is like no other. Reads ``stats["correct"]`` and
    ``content["answer"]``. The wordings of a question belong to one scene, or intervals take them for independent.
    """

    keys: tuple[str, ...] = ("majority", "all_variants", "consistency")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        terms = {key: np.zeros(len(rows)) for key in ("questions", *self.keys)}
        counts = rows["status"].isin(("ok", "invalid_output")).to_numpy()
        groups: dict[tuple[str, int], list[int]] = {}
        names, candidates = rows["sample"].tolist(), rows["candidate"].tolist()
        for place in np.flatnonzero(counts).tolist():
            question = names[place].rpartition("#")[0] or names[place]
            groups.setdefault((question, candidates[place]), []).append(place)
        correct, contents = stats.get("correct", np.zeros(len(rows))), rows["content"].tolist()
        for places in groups.values():
            answers = [(contents[place] or {}).get("answer") or place for place in places]
            common = max(answers, key=answers.count)
            first = places[0]
            terms["questions"][first] = 1.0
            terms["majority"][first] = correct[places[answers.index(common)]]
            terms["all_variants"][first] = float(all(correct[place] == 1 for place in places))
            terms["consistency"][first] = float(len(set(answers)) == 1)
        return terms

    def from_sums(self, sums: Sums) -> Numbers:
        return {key: share(sums, key, "questions") for key in self.keys}
