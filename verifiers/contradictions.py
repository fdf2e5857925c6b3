"""What a text states beside its answer tag, and whether that is another answer than the one in the tag."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

States = Callable[[str], Any]
"""Gives the answer that a few words state, as it is compared, a set of answers as a frozenset, or None where they state none."""

FEW_WORDS = 3
"""Words up to which what stands before a tag can be an answer of its own; more of them lead to the answer in the tag."""

_ENDS = re.compile(r"[.!?;]+(?=\s|$)|\n+")
_PARTS = re.compile(r",\s|\s(?:or|but)\s")
_LEAD = re.compile(
    r"(?:(?:actually|sorry|wait|hmm|well|rather|instead|in fact|i mean|i think|i believe|maybe|perhaps|probably|so|and|but|or|thus"
    r"|therefore|hence|final(?:ly)?|the|my|correct|right|true|real|best|answer|choice|option|it|this|that|there|here|is|was|are|were"
    r"|be|should|must|would|could|may|might)(?!\w)|[\s,:=*\"'>-])+",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\banswer\b[^.!?;\n]{0,20}?(?:\b(?:is|be)\b|[:=])\s*([^.!?;\n]+)", re.IGNORECASE)


def contradiction(answer: str, before: str, after: str, states: States | None) -> str:
    """The words beside an answer tag that state another answer; empty where none do.

    Args:
        answer: what stands in the tag.
        before: the text before the first tag. It counts where it is nothing but an answer, in at most :data:`FEW_WORDS` words.
        after: the text behind the first tag, other tags taken out. Every sentence, and every part of one, counts.
        states: how answers of this question are read. Without it, only what is called the answer counts ("the answer is no").

    >>> contradiction("yes", "", "Actually the answer is no.", {"yes": "yes", "no": "no"}.get)
    'no'
    """
    if states is None:
        named = (found[1].strip() for found in _NAMED.finditer(after))
        return next((said for said in named if answer.casefold() not in said.casefold()), "")
    own = states(answer)
    if own is None:
        return ""
    return next((words for words in _statements(before, after) if _is_another(states(words), own)), "")


def _is_another(stated: Any, own: Any) -> bool:
    if isinstance(stated, frozenset):
        return not stated <= own  # a sentence may speak of a part of the answer
    return stated is not None and stated != own


def _statements(before: str, after: str) -> Iterator[str]:
    before = before.strip()
    for words in dict.fromkeys((before, _bare(before))):
        if words and len(words) <= 200 and len(words.split()) <= FEW_WORDS:
            yield _ENDS.sub("", words)
    if after := after.strip():
        yield after
        for sentence in _ENDS.split(after):
            for part in dict.fromkeys((sentence, *_PARTS.split(sentence))):
                yield from filter(None, dict.fromkeys((part.strip(), _bare(part))))


def _bare(text: str) -> str:
    """A text without the words that lead to an answer, and without signs around it."""
    return text[lead.end() if (lead := _LEAD.match(text)) else 0 :].strip(" \t\"'*")
