"""What an English change caption claims: that something changed, that nothing did, or that a change did not happen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Claim = Literal["change", "no change", "denied change", "both", "hedged", "unclear"]
"""``denied change``: of a change that it did not happen ("no road was built"); ``both``: that nothing changed, and a change; ``unclear``:
something of the whole scene, in words that are not known here."""

_CLAUSES = re.compile(
    r"[.,;:!?]+|\b(?:and|but|while|whereas|although|though|however|yet|or|after|when|where(?! (?:it|they) (?:was|were)\b)|because|so)\b"
)
_BUT = re.compile(r"\b(?:but|while|whereas|although|though|however|yet)\b")
_EXCEPTED = re.compile(r"\b(?:except(?:ing)?|besides|apart from|other than|but for|aside from)\b")
_CHANGES = re.compile(
    r"\b(?:(?:re)?buil[dt]|construct(?:s|ed)?|appear(?:s|ed)?|add(?:s|ed)?|erect(?:s|ed)?|develop(?:s|ed)?|emerge[sd]?|remove[sd]?"
    r"|demolish(?:es|ed)?|disappear(?:s|ed)?|vanish(?:es|ed)?|replace[sd]?|expand(?:s|ed)?|extend(?:s|ed)?|widen(?:s|ed)?|plant(?:s|ed)"
    r"|grown?|cleared|destroy(?:s|ed)?|damage[sd]?|pave[sd]?|laid|create[sd]?|form(?:s|ed)|occup(?:y|ies|ied)|cover(?:s|ed)?|turn(?:s|ed)"
    r"|convert(?:s|ed)?|transform(?:s|ed)?|becomes?|became|cut|flatten(?:s|ed)?|taken|put|set up|pulled down|torn down|razed|felled|collapse[sd]?|burn(?:s|ed|t)?|fell|fallen|flood(?:s|ed)|eroded?|retreated|shr[au]nk|grew|melted|moved?|dried up|drained|show(?:s|ed|n)? up|arise[sn]?|lost|gone|now (?:stands?|sits?|lies?|there))\b"
)
"""Words that say of a thing how it changed."""
_AFTERWARDS = re.compile(_CHANGES.pattern + r"\s+(?:not|never)\b(?!\s+(?:only|just|far))")
_ANY_CHANGE = re.compile(
    r"\b(?:chang(?:e|es|ed|ing)|differences?|different|differs?|alter(?:s|ed|ations?)?|modifi(?:ed|cations?)|happen(?:s|ed)?|occur(?:s|red)?|developments?|constructions?|additions?"
    r"|took place|new|(?:larg|small|wid|narrow|tall|dens|bigg|broad)er)\b"
)
"""Words that say whether there is any change."""
_SAME = re.compile(
    r"\b(?:same|identical|unchanged|unaltered|alike|untouched|intact|still|remain(?:s|ed)?|stay(?:s|ed)?|(?:as|where|the way) (?:it|they) (?:was|were|did|used to)"
    r"|equal|(?:as|like) before|coincides?|indistinguishable|(?:is|are|was|were) stable|persist(?:s|ed)?|(?:repeat|equal|resemble|match(?:e)?|mirror)s the (?:first|other|earlier|previous|old)|(?:kept|keeps?) (?:its|their)|(?:images?|pictures?|photo(?:graph)?s|scenes?|views?|two|both|dates?) (?:match|agree))\b"
)
_WHOLE = re.compile(
    r"\b(?:scenes?|images?|pictures?|photo(?:graph)?s?|views?|frames?|everything|nothing(?! but)|(?:as|like) before)\b|^\W*(?:the )?(?:same|identical|unchanged)"
    r"|(?<!\bas )(?<!\bway )(?<!\bthan )\b(?:they|all|both|it|two)\s+(?:\w+\s+)?(?:is|are|was|were|looks?|seems?|remains?|stays?)\b"
)
"""Words by which sameness is of the whole scene, not of one thing in it."""
_NEGATION = re.compile(
    r"\b(?:no|not|never|zero|nothing|none|neither|nor|without|hardly|barely|cannot)\b(?!\s+(?:longer|more|only|just|doubt|less|fewer|but|left|far))"
    r"|n['\u2019]t\b|\blittle(?=\s+(?:has|change|difference))"
)
_UNTRUE = re.compile(
    r"\b(?:untrue|false|incorrect)\b|\bnot\s+(?:\w+\s+)?(?:true|correct|right|the case)\b|\bno\s+(?:sign|trace|evidence)s?\b"
)
_ABSENT = re.compile(
    r"^\W*(?:there\s+(?:is|are|was|were|(?:has|have)\s+been)\s+)?(?:no|not|never)\b(?!\s+(?:only|just)\b)(?!.*\b(?:left|remain\w*|longer|any ?more)\b)"
)
_LIGHT = r"(?:the |a )?(?:\w+ )?(?:dates?|light(?:ing)?|shadows?|illumination|seasons?|weather|colou?rs?|clouds?|haze|brightness|tones?|contrast|time of day)"
_OF_LIGHT = re.compile(
    r"\b(?:except(?:ing)?|besides|apart from|other than|but for|aside from) (?:(?:perhaps|maybe|possibly) )?(?:for )?"
    rf"(?:\w+ )?(?:differences? (?:in|of) )?{_LIGHT}\b"
    rf"|\bonly {_LIGHT} (?:differs?|(?:has |have )?changed|changes|(?:is|are|was|were) different)\b"
)
"""What is said of the light alone, which is no change of the scene."""
_NOT_AGAIN = re.compile(
    r"\b(?:not|never)(?= (?:been )?re(?:built|placed|stored|newed|opened|planted)\b)|\b(?:nothing|none)(?=.*\b(?:in (?:its|their) place|instead|since)\b)"
)
_IN_BOTH = re.compile(r"\bboth (?:images?|pictures?|photo(?:graph)?s?|dates?|years?|scenes?|views?|times)\b")
_SEEMING = re.compile(rf"\b(?:appears?|looks?|seems?)(?= (?:\w+ly )?(?:to (?:be|have)\b|{_SAME.pattern}))")
"""Verbs that say how a scene looks, where "appears" is no change."""
_THEN_NOW = re.compile(
    r"\b(?:no|not|none|nothing|never|without)\b[^,;.]*\b(?:before|earlier|previously|first)\b.*\bnow\b|\bthere (?:was|were) (?:no|nothing)\b.*\bnow\b"
)
"""Of something that was not there, and is."""
_ALONE = re.compile(r"\bonly\b.*\b(?:remains?|remained|(?:is|are) left)\b")
_UNTOUCHED = re.compile(r"(?:\bnot|\bnever|n't) (?:been )?\w+(?:ed|en)\b|^\W*nothing (?:has|is|was|had)\b")
"""Of a thing without a word for change: that nothing was done to it."""
_NEITHER = re.compile(r"\bnor\b")
_HEDGES = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|might|could(?! not|n['\u2019]t)|allegedly|supposedly|unsure|unclear|whether|if)\b|\bor not\b|\beither\b(?=.*\bor\b)"
    r"|\bmay (?:have|be|not)\b"
)


def claim_of(text: str) -> Claim:
    """What an English change caption claims.

    It reads clauses. A text that denies nothing claims a change, since captions of changed pairs often name what is new without a
    verb; so does a text that says what is the same beside what is not. Of the whole scene it may say what is not known here: then the
    claim is unclear.

    >>> claim_of("a road was built near the wood"), claim_of("no road was built near the wood")
    ('change', 'denied change')
    >>> claim_of("almost nothing has changed"), claim_of("the scene is not the same as before")
    ('no change', 'change')
    >>> claim_of("a road was built but the scene is the same as before"), claim_of("the trees are no longer there")
    ('both', 'change')
    """
    text = _SEEMING.sub("is", text.casefold())
    if _OF_LIGHT.search(text):
        rest = _OF_LIGHT.sub(" ", text)
        return claim_of(rest) if re.search(r"\w", rest) else "no change"
    if _HEDGES.search(text):
        return "hedged"
    if untrue := _UNTRUE.search(text):
        rest = text[: untrue.start()] + text[untrue.end() :]
        return "denied change" if claim_of(rest) == "change" else "change"
    if _THEN_NOW.search(text):
        return "change"
    kinds = list(_kinds(text))
    if "denied" in kinds:
        return "denied change"
    if "change" in kinds:
        return "both" if "still" in kinds and not _EXCEPTED.search(text) else "change"
    if _EXCEPTED.search(text):
        return "change"
    besides = "neutral" in kinds and _BUT.search(text)
    if "still" in kinds or ("same" in kinds and not besides):
        return "no change"
    return "unclear" if "same" in kinds or _WHOLE.search(text) else "change"


def _kinds(text: str) -> Iterator[str]:
    """Of every clause: ``still`` (nothing changed), ``same`` (one thing did not), ``change``, ``denied``, or ``neutral``."""
    for number, clause in enumerate(filter(str.strip, _CLAUSES.split(text))):
        if number:  # "was torn down and not rebuilt"
            clause = _NOT_AGAIN.sub("", clause)
        if "neither" in clause:
            clause = _NEITHER.sub("", clause)
        negations = [found.start() for found in _NEGATION.finditer(clause)]
        odd = len(negations) % 2 == 1
        things = [found.start() for found in _CHANGES.finditer(clause)]
        general = _ANY_CHANGE.search(clause)
        whole = _WHOLE.search(clause) is not None
        if _ALONE.search(clause):
            yield "change"
        elif _IN_BOTH.search(clause) and not things and not general and not _SAME.search(clause):
            yield "change" if odd else "same"
        elif _SAME.search(clause) and (whole or not things):
            yield "change" if odd else ("still" if whole else "same")
        elif _AFTERWARDS.search(clause) or (things and negations and negations[0] < things[-1]):
            yield "denied" if odd else "change"
        elif general and negations and negations[0] < general.start():
            yield "change" if not odd else ("denied" if general[0] == "new" else "still")
        elif odd and not things and not general and _UNTOUCHED.search(clause):
            yield "same"
        elif number == 0 and _ABSENT.match(clause):
            yield "denied"
        else:
            yield "change" if things or general else "neutral"
