"""BLEU, ROUGE-L and CIDEr-D of tokens, with all that depends on the references alone computed once for all their candidates.

The numbers are those of coco-caption (github.com/salaniz/pycocoevalcap), which published captioning tables are made with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple

from rsw_rewards.verifiers.vocabulary import ORDERS, VOCABULARY, Ngrams

BETA = 1.2
"""Weight of recall in ROUGE-L (pycocoevalcap rouge.py)."""
SIGMA = 6.0
"""Width of CIDEr-D's length penalty, in tokens (pycocoevalcap cider.py)."""
_TINY, _SMALL = 1e-15, 1e-9  # beside numerators and denominators in BleuScorer.compute_score

_NOWHERE, _ONES = repeat(-1), repeat(1)

Counts = Mapping[int, int]
"""Key of an n-gram in :data:`VOCABULARY` -> how often it stands in a text."""


def bleu(counts: Sequence[float], order: int = ORDERS) -> list[float]:
    """BLEU-1 .. BLEU-``order`` from summed counts (BleuScorer.compute_score).

    Args:
        counts: 10 of them: candidate length, reference length, four n-gram totals, four clipped matches; of one caption or
            summed.

    Returns:
        ``order`` fractions. Without a match of some order they are small but not 0, because of the epsilons.
    """
    length, reference, *rest = counts
    ratio = (length + _TINY) / (reference + _SMALL)
    penalty = math.exp(1.0 - 1.0 / ratio) if ratio < 1.0 else 1.0
    product, scores = 1.0, []
    for k in range(order):
        product *= (rest[ORDERS + k] + _TINY) / (rest[k] + _SMALL)
        scores.append(product ** (1.0 / (k + 1)) * penalty)
    return scores


class ReferenceSet:
    """The tokenised references of one sample, and what scores need of them.

    Args:
        references: one or more token lists; at least one is not empty.

    Raises:
        ValueError: no reference has a token.
    """

    def __init__(self, references: Iterable[Sequence[str]]) -> None:
        self.references = tuple(tuple(reference) for reference in references)
        self.lengths = tuple(len(reference) for reference in self.references)
        if not any(self.lengths):
            raise ValueError("no reference holds a word")
        self._closest: dict[int, int] = {}
        self.ngrams = list(map(VOCABULARY.learn, self.references))

    @classmethod
    def of_text(cls, text: str) -> ReferenceSet:
        """The opposite of :attr:`text`."""
        return cls(line.split() for line in text.split("\n"))

    def __reduce__(self) -> tuple[Any, ...]:
        return ReferenceSet, (self.references,)

    @cached_property
    def text(self) -> str:
        """The references as one text: tokens joined with blanks, references with line feeds."""
        return "\n".join(" ".join(reference) for reference in self.references)

    @cached_property
    def _places(self) -> tuple[dict[int, int], list[int]]:
        """N-gram -> its place; and, by place, how often it stands in the reference that has it most often, last a 0 for any other."""
        places: dict[int, int] = {}
        most: list[int] = []
        for ngrams in self.ngrams:
            for keys, counts in ngrams:
                for key, count in zip(keys, _ONES if counts is None else counts):  # noqa: B905 - ones have no end
                    place = places.setdefault(key, len(most))
                    if place == len(most):
                        most.append(count)
                    elif count > most[place]:
                        most[place] = count
        most.append(0)
        return places, most

    @property
    def places(self) -> dict[int, int]:
        """N-gram -> its place among those of the references."""
        return self._places[0]

    def match(self, tokens: Sequence[str]) -> Match:
        """Count a candidate's n-grams and look them up, once for all scores."""
        ngrams = VOCABULARY.read(tokens)
        place_of = self._places[0].get
        return Match(tokens, self, ngrams, [list(map(place_of, keys, _NOWHERE)) for keys, _ in ngrams], len(VOCABULARY))

    def closest_length(self, length: int) -> int:
        """The reference length nearest to ``length``, the shorter of two that are equally near."""
        found = self._closest.get(length)
        if found is None:
            found = self._closest[length] = min([(abs(own - length), own) for own in self.lengths])[1]
        return found

    @cached_property
    def _fields(self) -> tuple[dict[str, int], int, tuple[int, ...]]:
        """Bit masks of the longest common subsequence: token -> places, all places, the places of every reference.

        The references stand side by side in one number, a spare bit after each, so that one pass serves them all.
        """
        places: dict[str, int] = {}
        every, fields, shift = 0, [], 0
        for reference in self.references:
            bit = 1 << shift
            for token in reference:
                places[token] = places.get(token, 0) | bit
                bit <<= 1
            fields.append(((1 << len(reference)) - 1) << shift)
            every |= fields[-1]
            shift += len(reference) + 1
        return places, every, tuple(fields)

    def common_lengths(self, tokens: Sequence[str]) -> list[int]:
        """Length of the longest common subsequence with every reference (bit-parallel: Hyyro 2004, after Allison and Dix 1986)."""
        places, every, fields = self._fields
        row = every
        for token in tokens:
            if (hit := places.get(token)) is not None:
                hit &= row
                # The carry of a reference ends in its spare bit, which is dropped.
                row = ((row + hit) | (row - hit)) & every
        found = row ^ every
        return [(found & own).bit_count() for own in fields]

    def rouge_l(self, tokens: Sequence[str]) -> float:
        """ROUGE-L: F-measure (beta 1.2) of the best precision and the best recall over the references, in [0, 1]."""
        longest, recall = 0, 0.0
        for common, length in zip(self.common_lengths(tokens), self.lengths, strict=True):
            if common:
                longest = max(longest, common)
                recall = max(recall, common / length)
        if not longest:
            return 0.0
        precision = longest / len(tokens)
        return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)

    def no_match_counts(self) -> list[int]:
        """The counts for BLEU of a caption as long as the shortest reference, in which nothing matches."""
        length = min(self.lengths)
        return [length, length, *(max(0, length - k) for k in range(ORDERS)), *[0] * ORDERS]


class Match(NamedTuple):
    """The n-grams of a candidate among those of its references, each list for n = 1 .. 4."""

    tokens: Sequence[str]
    references: ReferenceSet
    ngrams: tuple[Ngrams, ...]
    """What it has."""
    places: list[list[int]]
    """Where they stand among the references' n-grams, -1 for those that no reference has."""
    vocabulary: int
    """How many tokens had a number when it was made."""

    def bleu_counts(self) -> list[int]:
        """What BLEU sums over captions; see :func:`bleu`."""
        length, most = len(self.tokens), self.references._places[1]
        found = [length, self.references.closest_length(length)]
        found += (
            (length, length - 1, length - 2, length - 3) if length > 3 else [max(0, length - k) for k in range(ORDERS)]
        )
        for (keys, counts), places in zip(self.ngrams, self.places, strict=True):
            if counts is None:
                found.append(len(keys) - places.count(-1))
            else:
                found.append(sum([min(own, most[place]) for own, place in zip(counts, places, strict=True)]))
        return found


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many samples' references every n-gram stands. Samples are CIDEr's documents, however many references they have."""

    documents: int
    counts: Counts

    @classmethod
    def of(cls, references: Iterable[ReferenceSet]) -> DocumentFrequency:
        """Count over the reference sets of a corpus, one a sample."""
        counts: Counter[int] = Counter()
        documents = 0
        for one, times in Counter(references).items():  # half of a corpus may share one set of references
            documents += times
            counts.update(one.places.keys() if times == 1 else dict.fromkeys(one.places, times))
        return cls(documents, counts)

    @classmethod
    def of_words(cls, documents: int, counts: Mapping[str, int]) -> DocumentFrequency:
        """The opposite of :meth:`words`."""
        return cls(documents, {VOCABULARY.key(ngram.split()): count for ngram, count in counts.items()})

    def words(self) -> dict[str, int]:
        """The counts by n-grams that are written out, their tokens joined with blanks."""
        return {VOCABULARY.words(key): count for key, count in self.counts.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # Keys are this process's own.
        return DocumentFrequency.of_words, (self.documents, self.words())


class _Vectors:
    """The tf-idf vectors of a set of references."""

    def __init__(self, references: ReferenceSet, squares: Mapping[int, float], unseen: float) -> None:
        places = references.places
        self.gains: list[tuple[tuple[int, int, float], ...]] = [()] * (len(places) + 1)
        """By place: the references that have the n-gram, how often, and what it gives there to a candidate that has it once:
        squared idf times count by the length of the reference's vector. Last nothing for any other n-gram."""
        self.bigrams = [max(0, length - 1) for length in references.lengths]
        self._penalties: dict[int, list[float]] = {}
        for number, ngrams in enumerate(references.ngrams):
            for keys, counts in ngrams:
                weights, norm = _weights(keys, counts, squares, unseen)
                if norm == 0.0:
                    continue
                for key, count, weight in zip(keys, _ONES if counts is None else counts, weights):  # noqa: B905
                    self.gains[places[key]] += ((number, count, weight * count / norm),)

    def penalty(self, length: int) -> list[float]:
        """What the gain of every reference is multiplied with for a candidate of that many bigrams."""
        found = self._penalties.get(length)
        if found is None:
            found = [math.exp(-((other - length) ** 2) / (2 * SIGMA**2)) for other in self.bigrams]
            self._penalties[length] = found
        return found


def _weights(
    keys: list[int], counts: list[int] | None, squares: Mapping[int, float], unseen: float
) -> tuple[list[float], float]:
    """The squared idf of n-grams, and the length of the tf-idf vector that they make."""
    weights = list(map(squares.get, keys, repeat(unseen)))
    if counts is None:
        return weights, math.sqrt(sum(weights))
    return weights, math.sqrt(sum([weight * own * own for weight, own in zip(weights, counts, strict=True)]))


_KEPT = 2048
"""Reference sets whose vectors are kept, of some 30 KB each."""


@dataclass
class CiderD:
    """CIDEr-D with fixed document frequencies (arXiv 1411.5726; pycocoevalcap cider_scorer.py).

    Cosine of tf-idf vectors with clipped counts, times a Gaussian in the difference of lengths, mean over n = 1 .. 4 and over
    the references, times 10: in [0, 10]. An n-gram that stands in every document weighs nothing.
    """

    frequency: DocumentFrequency
    _squares: dict[int, float] = field(init=False, repr=False)
    _unseen: float = field(init=False, repr=False)
    _vocabulary: int = field(init=False, repr=False)
    _vectors: dict[ReferenceSet, _Vectors] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        whole = math.log(max(1, self.frequency.documents))
        counts = self.frequency.counts
        squares = {count: (whole - math.log(count)) ** 2 for count in set(counts.values())}
        self._squares = {ngram: squares[count] for ngram, count in counts.items()}
        self._unseen = whole**2
        self._vocabulary = len(VOCABULARY)

    def __reduce__(self) -> tuple[Any, ...]:
        return CiderD, (self.frequency,)

    def _of(self, references: ReferenceSet) -> _Vectors:
        found = self._vectors.get(references)
        if found is None:
            if len(self._vectors) >= _KEPT:
                self._vectors.clear()
            found = self._vectors[references] = _Vectors(references, self._squares, self._unseen)
        return found

    def score(self, match: Match) -> float:
        """CIDEr-D of one caption, in [0, 10]."""
        if match.vocabulary < self._vocabulary:
            # It was made before the documents were known, and takes their words for new.
            match = match.references.match(match.tokens)
        vectors, squares, unseen = self._of(match.references), self._squares, self._unseen
        length = max(0, len(match.tokens) - 1)  # the original takes the number of bigrams for the length
        gains, total = vectors.gains, 0.0
        sums = [0.0] * len(vectors.bigrams)
        for (keys, counts), places in zip(match.ngrams, match.places, strict=True):
            inner = [0.0] * len(sums)
            for own, place in zip(_ONES if counts is None else counts, places):  # noqa: B905
                for number, count, gain in gains[place]:
                    inner[number] += gain * (own if own < count else count)
            if any(inner):
                norm = _weights(keys, counts, squares, unseen)[1]
                for number, product in enumerate(inner):
                    sums[number] += product / norm
        for number, penalty in enumerate(vectors.penalty(length)):
            total += sums[number] * penalty
        return 10.0 * total / ORDERS / len(sums)
