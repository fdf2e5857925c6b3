"""Captioning metrics of a corpus from score rows: BLEU and METEOR from sums, CIDEr-D with the document frequencies of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rsw_rewards.core.metric import AdditiveMetric, Frame, Numbers, SumMetric, Sums, Terms
from rsw_rewards.verifiers.confusion import ratio
from rsw_rewards.verifiers.meteor import SIZE, meteor
from rsw_rewards.verifiers.ngrams import CiderD, DocumentFrequency, ReferenceSet, bleu
from rsw_rewards.verifiers.vocabulary import ORDERS

BLEU_SIZE = 2 + 2 * ORDERS
"""Counts of one caption that BLEU sums."""
FRACTIONS = (*(f"bleu{n}" for n in range(1, ORDERS + 1)), "meteor", "rouge_l")


@lru_cache(maxsize=2048)
def _stored(references: str) -> ReferenceSet:
    return ReferenceSet.of_text(references)


def corpus_cider_d(rows: Frame) -> np.ndarray:
    """CIDEr-D of every row, its n-grams weighted by how many of the rows' samples have them in a reference.

    Args:
        rows: score rows whose ``content`` holds ``candidate`` and ``references`` as tokens joined with blanks, references with
            line feeds; rows without them score 0.

    Returns:
        (rows,) float64 in [0, 10]. On samples that all have the same references it is 0 for every caption.
    """
    contents = [content or {} for content in rows["content"]]
    sets = [_stored(content["references"]) if content.get("references") else None for content in contents]
    first = ~rows["sample"].duplicated().to_numpy()
    cider = CiderD(DocumentFrequency.of(one for one, new in zip(sets, first, strict=True) if new and one is not None))
    return np.array(
        [
            0.0 if one is None else cider.score(one.match(content.get("candidate", "").split()))
            for one, content in zip(sets, contents, strict=True)
        ]
    )


@dataclass(frozen=True)
class CaptionMetric(AdditiveMetric):
    """Numbers of a captioning table, as pycocoevalcap gives them over a corpus.

    BLEU and METEOR come from the sums of ``stats``, ROUGE-L and CIDEr-D are means over the rows. CIDEr-D's document frequencies
    are those of the rows given, so that a slice has its own; resamples keep them. ``s_star_m`` is the mean of BLEU-4, METEOR,
    ROUGE-L and CIDEr-D (github.com/Chen-Yang-Liu/PromptCC). METEOR, and with it ``s_star_m``, is None as soon as a row lacks it.
    """

    keys: tuple[str, ...]
    bounds: tuple[float, float]

    def terms(self, rows: Frame, stats: Terms) -> Terms:
        n = len(rows)
        meteors = stats.get("meteor", np.zeros((n, SIZE)))
        terms = {
            "n": np.ones(n),
            "bleu": stats.get("bleu", np.zeros((n, BLEU_SIZE))),
            "rouge_l": stats.get("rouge_l", np.zeros(n)),
            "meteor": meteors,
            "no_meteor": (meteors[:, 1] == 0).astype(np.float64),  # the length of the reference, which is never 0
        }
        if {"cider", "s_star_m"} & set(self.keys):
            terms["cider"] = corpus_cider_d(rows)
        return terms

    def from_sums(self, sums: Sums) -> Numbers:
        n = float(sums["n"])
        if n == 0:
            return dict.fromkeys(self.keys)
        scores = bleu(sums["bleu"].tolist())
        numbers: dict[str, float | None] = {f"bleu{order}": score for order, score in enumerate(scores, start=1)}
        numbers["rouge_l"] = rouge = float(sums["rouge_l"]) / n
        numbers["meteor"] = alignment = None if float(sums["no_meteor"]) > 0 else meteor(sums["meteor"])
        if "cider" in sums:
            numbers["cider"] = consensus = float(sums["cider"]) / n
            numbers["s_star_m"] = None if alignment is None else (scores[3] + alignment + rouge + consensus) / 4
        return {key: numbers[key] for key in self.keys}

    def notes(self, rows: Frame) -> Mapping[str, str]:
        """Why METEOR is missing."""
        reason = next((why for content in rows["content"] if (why := (content or {}).get("no_meteor"))), "")
        return {"meteor": reason, "s_star_m": reason} if reason else {}


def _change_numbers(sums: Sums) -> Numbers:
    counts = sums.get("change", np.zeros((2, 2)))
    right, asked = np.diagonal(counts), counts.sum(1)
    return {
        "change_accuracy": ratio(right.sum(), asked.sum()),
        "no_change_recall": ratio(right[0], asked[0]),
        "change_recall": ratio(right[1], asked[1]),
    }


CHANGE_RECOGNITION = SumMetric(("change_accuracy", "change_recall", "no_change_recall"), _change_numbers, (0.0, 1.0))
"""How often a caption says rightly whether anything changed: over all rows, over the changed and over the unchanged pairs
(``change_acc`` and ``nochange_acc`` of Change-Agent's test.py)."""
