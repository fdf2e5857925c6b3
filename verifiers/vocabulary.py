"""N-grams as integers, which are hashed faster than tuples of texts: every word of a reference has a number in its process.

An n-gram of up to four words is one integer, its key. Keys are this process's own; :meth:`Vocabulary.words` writes one out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

ORDERS = 4
"""Longest n-gram of BLEU and CIDEr."""
_BITS = 21  # keys of 3-grams then fit into a machine word, almost
_MASK = (1 << _BITS) - 1
_OUTSIDE = 1 << (_BITS - 1)


class Ngrams(NamedTuple):
    """The n-grams of one length that a text has."""

    keys: list[int]
    """Each once, in the order of the text."""
    counts: list[int] | None
    """How often the text has them; None where it has each once, as nearly always."""


class Vocabulary:
    """The numbers of words, from 1, and the n-grams of texts by them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._tokens = [""]

    def __len__(self) -> int:
        return len(self._tokens)

    def learn(self, tokens: Sequence[str]) -> tuple[Ngrams, ...]:
        """The n-grams of a reference, for n = 1 .. 4; words that are new get a number. Raises ``ValueError`` for a million words."""
        return _counted([self._number(token) for token in tokens])

    def read(self, tokens: Sequence[str]) -> tuple[Ngrams, ...]:
        """The n-grams of a candidate, likewise. Words that no reference has are told apart within their text only, so that outputs
        cannot fill the memory."""
        numbers: list[Any] = list(map(self._numbers.get, tokens))
        if None in numbers:
            outside: dict[str, int] = {}
            numbers = [
                outside.setdefault(token, _OUTSIDE + len(outside)) if number is None else number
                for token, number in zip(tokens, numbers, strict=True)
            ]
        return _counted(numbers)

    def key(self, ngram: Sequence[str]) -> int:
        """The key of one n-gram of 1 to 4 words; words that are new get a number."""
        return _keys([self._number(token) for token in ngram])[len(ngram) - 1][0]

    def words(self, key: int) -> str:
        """The words of an n-gram, joined with blanks; the opposite of :meth:`key`."""
        shifts = range(_BITS * (ORDERS - 1), -1, -_BITS)
        return " ".join(self._tokens[key >> shift & _MASK] for shift in shifts if key >> shift)

    def _number(self, token: str) -> int:
        number = self._numbers.get(token)
        if number is None:
            if len(self._tokens) >= _OUTSIDE:
                raise ValueError(f"references of more than {_OUTSIDE - 1:,} different words in one process")
            self._tokens.append(token)
            number = self._numbers[token] = len(self._tokens) - 1
        return number


def _keys(numbers: list[int]) -> tuple[list[int], ...]:
    """The n-grams of a text in their order, for n = 1 .. 4, as integers of up to n * 21 bits."""
    second = [first << _BITS | last for first, last in zip(numbers, numbers[1:])]  # noqa: B905, RUF007 - the shorter one ends it
    third = [first << _BITS | last for first, last in zip(second, numbers[2:])]  # noqa: B905
    fourth = [first << _BITS | last for first, last in zip(third, numbers[3:])]  # noqa: B905
    return numbers, second, third, fourth


def _counted(numbers: list[int]) -> tuple[Ngrams, ...]:
    found = []
    repeated = True
    for keys in _keys(numbers):
        repeated = repeated and len(set(keys)) < len(keys)  # without a repeated n-gram there is no longer one either
        if repeated:
            counted = Counter(keys)
            found.append(Ngrams(list(counted), list(counted.values())))
        else:
            found.append(Ngrams(keys, None))
    return tuple(found)


VOCABULARY = Vocabulary()
"""That of this process: reference sets, document frequencies and captions share it."""
