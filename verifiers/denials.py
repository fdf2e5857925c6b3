"""Words by which an English answer takes back, denies or hedges what it says, in whatever letters they are written."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LATIN = re.compile(r"LATIN (?:(?:SMALL|CAPITAL) )?LETTER (?:[A-Z]+ )*?([A-Z])(?: WITH .+)?")
_ALIKE = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"})
"""Alphabets with letters that look like those of others."""
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4\u02b9\u2032`", "'"))
_WORD = re.compile(r"[^\W\d_]+")

_NEGATIONS = (
    r"\b(?:no|not|nor|never|none|nope|nah|neither|without|cannot|except|excluding|wrong|false|incorrect|untrue|fake|unlikely|impossible"
    r"|doubt(?:s|ful)?|kidding|joking|a lie|out of the question|too (?:many|few|much|little|high|low|large|small))\b"
    r"|\b(?:is|are|was|were|do|does|did|has|have|had|ca|wo|ai|could|would|should)n[' ]?t\b|n't\b|\bn[ ._-]o(?:[ ._-]t)?\b"
)
_HEDGES = r"\b(?:maybe|perhaps|possibly|(?:might|could|may) be|unsure|unclear)\b|\bor not\b"
_DENIALS = re.compile(f"{_NEGATIONS}|{_HEDGES}")
_TAKEN_BACK = re.compile(
    r"\b(?:is|are|was|be|seems?)(?: not|n'?t) (?:it|true|right|correct|the (?:case|answer))\b|\b(?:is|are|was|be|seems?) "
    r"(?:wrong|false|incorrect|untrue|impossible|a lie|out of the question)\b|\bor not\b|\b(?:kidding|joking)\b|\b(?:maybe|perhaps|possibly)$"
    r"|\bbut wrong$|[?,;-] ?(?:no|not|nope|wrong)$"
)


def denial(text: str) -> str:
    """The first words of an answer in lower case that deny or hedge it, or that hide their letters; empty where there are none.

    >>> denial("about 7 houses"), denial("it isn't 7"), denial("n\\u00f8t 7"), denial("n\\u043et 7"), denial("maybe 7")
    ('', "isn't", 'not', 'n\\u043et', 'maybe')
    """
    return mixed_word(text) or _first(_DENIALS, text)


def taken_back(text: str) -> str:
    """The same of an answer that may itself be a denial, as "no change" is: words that take back all that was said before them.

    >>> taken_back("no change"), taken_back("water is wrong"), taken_back("water, maybe")
    ('', 'is wrong', 'maybe')
    """
    return mixed_word(text) or _first(_TAKEN_BACK, text)


def mixed_word(text: str) -> str:
    """The first word with letters of two alphabets that look alike; empty where there is none."""
    if text.isascii():
        return ""
    return next((word for word in _WORD.findall(text) if len(_ALIKE & set(map(_alphabet, word))) > 1), "")


def plain_letters(text: str) -> str:
    """A text in lower case whose Latin letters have no marks and one form each, and whose apostrophes are ASCII.

    >>> plain_letters("N\\u00d8T, isn\\u2019t, \\u0274\\u1d0f\\u1d1b")
    "not, isn't, not"
    """
    if text.isascii():
        return text.lower().translate(_APOSTROPHES)
    apart = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).lower()
    return "".join(_plain(sign) for sign in apart if unicodedata.category(sign) not in ("Mn", "Me", "Cf"))


def _first(words: re.Pattern[str], text: str) -> str:
    found = words.search(plain_letters(text))
    return found[0].strip(" ,;?-") if found else ""


@lru_cache(maxsize=4096)
def _alphabet(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


@lru_cache(maxsize=4096)
def _plain(sign: str) -> str:
    found = None if sign.isascii() else _LATIN.fullmatch(unicodedata.name(sign, ""))
    return found[1].lower() if found else sign
