"""Whether an English caption reads as a sentence: order of words, repetition, length, alphabet. Pure functions of words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_ARTICLES = frozenset({"a", "an", "the"})
_PREPOSITIONS = frozenset(
    {"of", "in", "on", "at", "near", "by", "beside", "along", "around", "with", "to", "into", "from", "behind", "between", "for"}
)  # fmt: skip
_JOINING = frozenset({"and", "or", "but"})
_BEING = frozenset({"is", "are", "was", "were", "has", "have", "had", "be", "been", "being"})
_ALLOWED = frozenset({("has", "been"), ("have", "been"), ("had", "been"), ("has", "had"), ("have", "had"), ("to", "be"), ("to", "have"), ("by", "and"), ("for", "being"), ("into", "being"), ("is", "being"), ("are", "being"), ("was", "being"), ("were", "being")})  # fmt: skip
"""Pairs of small words that sentences have ("seems to have", "the years went by and") where others of their kinds cannot meet."""
_NEVER_FIRST = _JOINING | _BEING | {"of", "built", "constructed"}
_NEVER_LAST = _ARTICLES | _JOINING | _BEING | {"of", "with", "to", "into", "at", "from", "some", "many", "several"}
_COMPARING = frozenset({"as", "than", "way", "where", "what", "how"})
"""Words behind which a sentence may end in "was": "wider than it was"."""
_AFTER_ARTICLE = _ARTICLES | _PREPOSITIONS | _JOINING | _BEING | {"some", "many", "several"}
LONGEST = 25
"""Words that a caption may always have; more of them where twice the longest reference has more."""
REORDERED, SHARED = 0.8, 0.9
"""A caption that shares at least this part of its words with a reference (SHARED) keeps at least this part of their order."""


def words_of(text: str) -> list[str]:
    """The words of a caption in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def out_of_order(words: Sequence[str], references: Sequence[Sequence[str]] = ()) -> str:
    """Two words that cannot follow each other in an English caption, or why the order is wrong otherwise; empty where it is not.

    Two rules: small words ("the of", "and and", a last "the") stand where no sentence has them; or a caption has nearly the words of a
    reference in another order, so that the longest common subsequence is under :data:`REORDERED` of them.

    >>> out_of_order("a road was built near the wood".split()), out_of_order("wood the near built was road a".split())
    ('', "'the near'")
    """
    for first, second in pairwise(words):
        wrong = (
            (first in _ARTICLES and second in _AFTER_ARTICLE)
            or (first in _JOINING and second in _JOINING)
            or (first in _PREPOSITIONS and second in _BEING | {"and"} and (first, second) not in _ALLOWED)
            or (first in _BEING and second in _BEING and (first, second) not in _ALLOWED)
        )
        if wrong:
            return f"'{first} {second}'"
    if words and words[0] in _NEVER_FIRST:
        return f"a first {words[0]!r}"
    if words and words[-1] in _NEVER_LAST and not (words[-1] in _BEING and _COMPARING & set(words[:-1])):
        return f"a last {words[-1]!r}"
    own = Counter(words)
    for reference in references:
        longer = max(len(words), len(reference))
        shares = longer > 3 and (own & Counter(reference)).total() >= SHARED * longer
        swapped = sorted(_clauses(words)) == sorted(_clauses(reference))
        if shares and not swapped and _in_common(words, reference) < REORDERED * longer:
            return "the words of a reference in another order"
    return ""


def _clauses(words: Sequence[str]) -> list[str]:
    """What stands between words that join, which may stand in any order."""
    return re.split(r" (?:and|but) ", " ".join(words))


def _in_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def repeated(words: Sequence[str]) -> str:
    """What a caption says again and again; empty where nothing is.

    That is: a word three times in a row, several words twice in a row, or four words three times anywhere.

    >>> repeated("houses houses houses".split()), repeated("a road and houses are built by a road".split())
    ('houses', '')
    """
    for place in range(len(words)):
        for n in range(1, (len(words) - place) // 2 + 1):
            times = 3 if n == 1 else 2
            part = list(words[place : place + n])
            if len(words) >= place + times * n and list(words[place : place + times * n]) == part * times:
                return " ".join(part)
    fours = Counter(tuple(words[place : place + 4]) for place in range(len(words) - 3))
    return next((" ".join(four) for four, count in fours.items() if count > 2), "")


def in_a_row(words: Sequence[str], references: Sequence[Sequence[str]]) -> int:
    """How many references stand whole in a caption, one beside the other.

    >>> in_a_row("a road was built a house appears".split(), [["a", "road", "was", "built"], ["a", "house", "appears"]])
    2
    """
    left, found = f" {' '.join(words)} ", 0
    for reference in sorted({" ".join(one) for one in references if len(one) > 2}, key=lambda one: (-len(one), one)):
        if f" {reference} " in left:
            left, found = left.replace(f" {reference} ", " | ", 1), found + 1
    return found


def foreign_letters(text: str) -> str:
    """The first letter that is neither Latin nor a plain one of its alphabet, or a sign of no width; empty where there is none.

    >>> foreign_letters("no road"), foreign_letters("n\\u043e road")
    ('', '\\u043e')
    """
    if text.isascii():
        return ""
    for letter in text:
        if (letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN")) or unicodedata.category(letter) == "Cf":  # fmt: skip
            return letter
    return ""
