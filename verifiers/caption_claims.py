"""What an English change caption claims: that something changed, that nothing did, or that a change did not happen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Claim = Literal["change", "no change", "denied change", "both", "hedged"]
"""``denied change``: of a change that it did not happen ("no road was built"); ``both``: that nothing changed, and a change."""

_CLAUSES = re.compile(
    r"[.,;:!?]+|\b(?:and|but|while|whereas|although|though|however|yet|or|after|when|where|because|so)\b"
)
_EXCEPTED = re.compile(r"\b(?:except(?:ing)?|besides|apart from|other than|but for|aside from)\b")
_CHANGES = re.compile(
    r"\b(?:(?:re)?buil[dt]|construct(?:s|ed)?|appear(?:s|ed)?|add(?:s|ed)?|erect(?:s|ed)?|develop(?:s|ed)?|emerge[sd]?|remove[sd]?"
    r"|demolish(?:es|ed)?|disappear(?:s|ed)?|vanish(?:es|ed)?|replace[sd]?|expand(?:s|ed)?|extend(?:s|ed)?|widen(?:s|ed)?|plant(?:s|ed)"
    r"|grown?|cleared|destroy(?:s|ed)?|damage[sd]?|pave[sd]?|laid|create[sd]?|form(?:s|ed)|occup(?:y|ies|ied)|cover(?:s|ed)?|turn(?:s|ed)"
    r"|convert(?:s|ed)?|transform(?:s|ed)?|becomes?|became|cut|flatten(?:s|ed)?|taken|put|set up|show(?:s|ed|n)? up|arise[sn]?|lost|gone)\b"
)
"""Words that say of a thing how it changed."""
_AFTERWARDS = re.compile(_CHANGES.pattern + r"\s+(?:not|never)\b(?!\s+(?:only|just|far))")
_ANY_CHANGE = re.compile(
    r"\b(?:chang(?:e|es|ed|ing)|differences?|different|differs?|alter(?:s|ed|ations?)?|modifi(?:ed|cations?)|happen(?:s|ed)?|occur(?:s|red)?"
    r"|new)\b"
)
"""Words that say whether there is any change."""
_SAME = re.compile(r"\b(?:same|identical|unchanged|unaltered|alike|untouched|still|remain(?:s|ed)?|stay(?:s|ed)?)\b")
_WHOLE = re.compile(
    r"\b(?:scenes?|images?|pictures?|photos?|everything|nothing|as before)\b|^\W*(?:the )?(?:same|identical|unchanged)"
    r"|\b(?:they|all|both|it|two)\s+(?:\w+\s+)?(?:is|are|was|were|looks?|seems?|remains?|stays?)\b"
)
"""Words by which sameness is of the whole scene, not of one thing in it."""
_NEGATION = re.compile(
    r"\b(?:no|not|never|nothing|none|neither|nor|without|hardly|barely|cannot)\b(?!\s+(?:longer|more|only|just|doubt|less|fewer|but|left|far))"
    r"|n['\u2019]t\b|\blittle(?=\s+(?:has|change|difference))"
)
_UNTRUE = re.compile(
    r"\b(?:untrue|false|incorrect)\b|\bnot\s+(?:\w+\s+)?(?:true|correct|right|the case)\b|\bno\s+(?:sign|trace|evidence)s?\b"
)
_ABSENT = re.compile(
    r"^\W*(?:there\s+(?:is|are|was|were)\s+)?(?:no|not|never)\b(?!\s+(?:only|just)\b)(?!.*\b(?:left|remain\w*|longer|any ?more)\b)"
)
_HEDGES = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|might|could|allegedly|supposedly|unsure|unclear|whether|either|if)\b|\bor not\b"
    r"|\bmay (?:have|be|not)\b"
)


def claim_of(text: str) -> Claim:
    """What an English change caption claims.

    It reads clauses. A text that denies nothing claims a change, since captions of changed pairs often name what is new without a
    verb; so does a text that says what is the same beside what is not.

    >>> claim_of("a road was built near the wood"), claim_of("no road was built near the wood")
    ('change', 'denied change')
    >>> claim_of("almost nothing has changed"), claim_of("the scene is not the same as before")
    ('no change', 'change')
    >>> claim_of("a road was built but the scene is the same as before"), claim_of("the trees are no longer there")
    ('both', 'change')
    """
    text = text.casefold()
    if _HEDGES.search(text):
        return "hedged"
    if untrue := _UNTRUE.search(text):
        rest = text[: untrue.start()] + text[untrue.end() :]
        return "denied change" if claim_of(rest) == "change" else "change"
    kinds = list(_kinds(text))
    if "denied" in kinds:
        return "denied change"
    if "change" in kinds:
        return "both" if "still" in kinds and not _EXCEPTED.search(text) else "change"
    if "still" in kinds:
        return "change" if _EXCEPTED.search(text) else "no change"
    return "no change" if "same" in kinds else "change"


def _kinds(text: str) -> Iterator[str]:
    """Of every clause: ``still`` (nothing changed), ``same`` (one thing did not), ``change``, ``denied``, or ``neutral``."""
    for number, clause in enumerate(filter(str.strip, _CLAUSES.split(text))):
        negations = [found.start() for found in _NEGATION.finditer(clause)]
        odd = len(negations) % 2 == 1
        things = [found.start() for found in _CHANGES.finditer(clause)]
        general = _ANY_CHANGE.search(clause)
        whole = _WHOLE.search(clause) is not None
        if _SAME.search(clause) and (whole or not things):
            yield "change" if odd else ("still" if whole else "same")
        elif _AFTERWARDS.search(clause) or (things and negations and negations[0] < things[-1]):
            yield "denied" if odd else "change"
        elif general and negations and negations[0] < general.start():
            yield "change" if not odd else ("denied" if general[0] == "new" else "still")
        elif number == 0 and _ABSENT.match(clause):
            yield "denied"
        else:
            yield "change" if things or general else "neutral"
