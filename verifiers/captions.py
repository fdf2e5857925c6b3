"""Change captions: BLEU, ROUGE-L and CIDEr-D as rewards, and ``captions``, which measures all that captioning tables print."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue, Metric, Numbers, SumMetric, Sums
from rsw_rewards.core.per_sample import truths_of
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.caption_base import (
    EMPTY,
    CaptionConfig,
    CaptionVerifier,
    is_changed,
    no_change_sentences,
    says_no_change,
)
from rsw_rewards.verifiers.caption_metrics import CHANGE_RECOGNITION, FRACTIONS, CaptionMetric
from rsw_rewards.verifiers.document_frequency import read_document_frequency
from rsw_rewards.verifiers.meteor import Meteor, MeteorError, meteor, no_match
from rsw_rewards.verifiers.ngrams import CiderD, DocumentFrequency, Match, ReferenceSet, bleu
from rsw_rewards.verifiers.vocabulary import ORDERS


class CaptionReward(CaptionVerifier[ReferenceSet]):
    """One number of one caption, and what unusable captions are."""

    def truth(self, sample: Sample) -> ReferenceSet:
        return self.references(sample)

    def compare_text(self, truth: ReferenceSet, text: str) -> Score:
        tokens = self.tokenise(text)
        match = truth.match(tokens)
        return self.measure(match) if tokens else self.empty(match)

    @abstractmethod
    def measure(self, match: Match) -> Score:
        """The score of a caption that has a word."""

    def empty(self, match: Match) -> Score:
        """The score of a caption without a word."""
        return self.worst(match.references, EMPTY)


class Bleu(CaptionReward):
    """Sentence BLEU against the reference captions."""

    name = "bleu"
    card = Card(
        summary="Geometric mean of the shares of the caption's 1- to n-grams that are in a reference, with a penalty for "
        "short captions.",
        range="bleu<n>: 0 to 1",
        transform="none",
        source="BleuScorer of github.com/salaniz/pycocoevalcap: closest reference length, 1e-15 and 1e-9 added to the counts",
        gaming=(
            "Repeated words count only as often as in a reference. A caption of all references together loses "
            "precision. An empty caption is invalid."
        ),
    )

    class Config(CaptionConfig):
        """Configuration of ``bleu``."""

        order: int = Field(4, ge=1, le=ORDERS, description="longest n-gram that must match")

    def measure(self, match: Match) -> Score:
        counts = match.bleu_counts()
        value = min(1.0, bleu(counts, self.config.order)[-1])
        return Score(value, **self._facts(value, counts))

    def empty(self, match: Match) -> Score:
        return Score.invalid(EMPTY, **self._facts(0.0, match.bleu_counts()))

    def worst(self, truth: ReferenceSet, reason: str) -> Score:
        return Score.invalid(reason, **self._facts(0.0, truth.no_match_counts()))

    def _facts(self, value: float, counts: list[int]) -> dict[str, Any]:
        """What a score holds beside its value."""
        return {
            "raw": {f"bleu{self.config.order}": value},
            "stats": {"bleu": np.array(counts, dtype=np.float64)},
        }

    def metrics(self) -> Sequence[Metric]:
        order = self.config.order

        def corpus(sums: Sums) -> Numbers:
            scores: list[Any] = bleu(sums["bleu"].tolist(), order) if sums["n"] and "bleu" in sums else [None] * order
            return {f"bleu{n}": score for n, score in enumerate(scores, start=1)}

        return (SumMetric(tuple(f"bleu{n}" for n in range(1, order + 1)), corpus, bounds=(0.0, 1.0)),)


class RougeL(CaptionReward):
    """ROUGE-L against the reference captions."""

    name = "rouge_l"
    card = Card(
        summary="F-measure of the longest common subsequence of words, from the best precision and recall over the references.",
        range="rouge_l: 0 to 1",
        transform="none",
        source="rouge.py of github.com/salaniz/pycocoevalcap, beta 1.2 (Lin 2004)",
        gaming=(
            "Precision and recall may come from different references, so a mixture of references gains a little. "
            "Repeated words and joined references lose precision"
        ),
    )
    reported = (MeanValue("rouge_l", raw="rouge_l", bounds=(0.0, 1.0)),)
    worst_facts = {"raw": {"rouge_l": 0.0}}

    def measure(self, match: Match) -> Score:
        value = match.references.rouge_l(match.tokens)
        return Score(value, raw={"rouge_l": value})


class CiderDReward(CaptionReward):
    """CIDEr-D against the reference captions, with document frequencies that stay as they are for the whole run."""

    name = "cider_d"
    card = Card(
        summary="Similarity of tf-idf weighted n-grams to the references: words that are rare among the samples count "
        "most.",
        range="cider_d: 0 to 10",
        transform="divided by 10",
        source="arXiv 1411.5726; cider_scorer.py of github.com/salaniz/pycocoevalcap (sigma 6)",
        gaming=(
            "Repeated n-grams count only as often as in a reference, and other lengths are punished. So repetition and "
            "joined references gain nothing."
        ),
    )

    class Config(CaptionConfig):
        """Configuration of ``cider_d``."""

        document_frequency: str | None = Field(
            None, description="JSON table of write_document_frequency; default: counted on the samples of the run"
        )

    reported = (MeanValue("cider_d", raw="cider_d", bounds=(0.0, 10.0)),)
    worst_facts = {"raw": {"cider_d": 0.0}}

    _cider: CiderD | None = None

    @property
    def needs_samples(self) -> bool:
        return self.config.document_frequency is None

    def prepare(self, samples: Sequence[Sample]) -> None:
        if self.needs_samples:
            truths = truths_of(self, samples)  # one that cannot be used is an error where its sample is scored
            self._cider = CiderD(DocumentFrequency.of(truth for truth in truths if isinstance(truth, ReferenceSet)))

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._table()

    def _table(self) -> CiderD:
        if self._cider is None:
            named = self.config.document_frequency
            if named is None:
                raise ConfigError("cider_d has no document frequencies: set 'document_frequency' to a table of them")
            self._cider = CiderD(read_document_frequency(named, self.config.tokens))
        documents = self._cider.frequency.documents
        if documents < 2:
            raise ConfigError(
                f"cider_d's document frequencies are of {documents} samples, which makes every reward 0: set "
                "'document_frequency' to a table of the training split"
            )
        return self._cider

    def measure(self, match: Match) -> Score:
        found = self._table().score(match)
        return Score(min(1.0, found / 10.0), raw={"cider_d": found})


class CaptionTruth(NamedTuple):
    """What is known of a pair."""

    references: ReferenceSet
    changed: bool
    no_change: tuple[str, ...]
    """The sentences of the data set that say so."""


class _Reading(NamedTuple):
    """What is known of one caption before METEOR is asked."""

    match: Match
    changed: bool
    says_change: bool | None
    """None where there is no caption, which is wrong either way."""
    problem: str = ""
    absent: bool = False
    """Whether there is no caption at all, rather than an empty one, which the published code scores."""


class Captions(CaptionVerifier[CaptionTruth]):
    """All numbers of a captioning table from one tokenisation, and whether the caption says rightly that something changed."""

    name = "captions"
    card = Card(
        summary="BLEU-1 to 4, METEOR, ROUGE-L, CIDEr-D, their mean S*m, and how often a caption says correctly whether "
        "anything changed.",
        range="bleu1..bleu4, meteor, rouge_l and the recognition rates: 0 to 1; cider: 0 to 10; s_star_m: 0 to 3.25",
        transform="the value is ROUGE-L; the others are metrics of the corpus",
        source=(
            "github.com/salaniz/pycocoevalcap; METEOR 1.5 by its own program; change recognition by the data "
            "set's fixed sentences."
        ),
        gaming=(
            "Empty captions gain nothing: their references still count. One fixed sentence for no change is right on "
            "half of LEVIR-CC: compare with the baseline no_change."
        ),
        cost="a tenth of a millisecond; METEOR some milliseconds, a Java process of up to 2 GB and its start",
    )

    class Config(CaptionConfig):
        """Configuration of ``captions``."""

        meteor: bool = Field(True, description="whether METEOR is asked for, which needs Java and the extra 'meteor'")

    reported = (
        CaptionMetric(FRACTIONS, (0.0, 1.0)),
        CaptionMetric(("cider",), (0.0, 10.0)),
        CaptionMetric(("s_star_m",), (0.0, 3.25)),
        CHANGE_RECOGNITION,
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._meteor = Meteor()
        self._no_meteor = "" if self.config.meteor else "METEOR was left out by 'meteor: false'"

    def truth(self, sample: Sample) -> CaptionTruth:
        return CaptionTruth(self.references(sample), is_changed(sample), no_change_sentences(sample))

    def compare_text(self, truth: CaptionTruth, text: str) -> _Reading:
        match = truth.references.match(tokens := self.tokenise(text))
        if not tokens:
            return _Reading(match, truth.changed, None, EMPTY)
        return _Reading(match, truth.changed, not says_no_change(text, truth.no_change))

    def rate(self, truths: Sequence[CaptionTruth], compared: Sequence[_Reading]) -> list[Score]:
        alignments = iter(self._alignments(compared))
        return [self._score(reading, next(alignments, None)) for reading in compared]

    def worst(self, truth: CaptionTruth, reason: str) -> Score:
        return self.rate([truth], [_Reading(truth.references.match(()), truth.changed, None, reason, absent=True)])[0]

    def warm(self) -> None:
        """Start METEOR's program."""
        if not self._no_meteor:
            try:
                self._meteor.stats([(("a",), (("a",),))])
            except MeteorError as error:
                self._no_meteor = str(error)

    def _alignments(self, readings: Sequence[_Reading]) -> list[np.ndarray]:
        """METEOR's statistics of captions; none of any where it cannot be had."""
        if self._no_meteor or not readings:
            return []
        try:
            found = self._meteor.stats([(one.match.tokens, one.match.references.references) for one in readings])
        except MeteorError as error:
            self._no_meteor = str(error)  # one METEOR of half a corpus is none, so it is not tried again
            return []
        return [no_match(stats) if one.absent else stats for one, stats in zip(readings, found, strict=True)]

    def _score(self, reading: _Reading, alignment: np.ndarray | None) -> Score:
        match = reading.match
        references = match.references
        counts = references.no_match_counts() if reading.absent else match.bleu_counts()
        rouge = references.rouge_l(match.tokens)
        said = (not reading.changed) if reading.says_change is None else reading.says_change
        change = np.zeros((2, 2))
        change[int(reading.changed), int(said)] = 1.0
        raw = {"rouge_l": rouge, "bleu4": bleu(counts)[3], "changed": float(reading.changed)}
        stats = {"bleu": np.array(counts, dtype=np.float64), "rouge_l": np.array(rouge), "change": change}
        content = {"candidate": " ".join(match.tokens), "references": references.text}
        if reading.says_change is not None:
            raw["says_change"] = float(said)
        if alignment is None:
            content["no_meteor"] = self._no_meteor
        else:
            raw["meteor"] = meteor(alignment)
            stats["meteor"] = alignment
        if reading.problem:
            return Score.invalid(reading.problem, raw=raw, stats=stats, content=content)
        return Score(rouge, raw=raw, stats=stats, content=content)

    def close(self) -> None:
        self._meteor.close()
