"""What an English change caption claims: that something changed, that nothing did, or that a change did not happen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Claim = Literal["change", "no change", "denied change", "both", "hedged", "unclear"]
"""``denied change``: of a change that it did not happen ("no road was built"); ``both``: that nothing changed, and a change; ``unclear``:
something of the whole scene, in words that are not known here."""


def _any_of(*lists: str, then: str = "") -> re.Pattern[str]:
    """Any entry of lists divided by commas; an entry may be a pattern itself."""
    entries = [entry.strip() for entry in ",".join(lists).split(",")]
    return re.compile(rf"\b(?:{'|'.join(entries)})\b{then}")


_PICTURE = r"(?:scenes?|images?|pictures?|photo(?:graph)?s?|views?|frames?|shots?|acquisitions?)"
_PLACE = r"(?:area|site|place|location|region|landscape|land|environment|surroundings)"
_LIGHT = _any_of(
    "dates?, (?:sun)?light(?:ing)?, shadows?, illumination, seasons?, weather, colou?rs?, clouds?, haze, brightness, tones?, contrast, exposure",
    "sharpness, blur, resolution, quality, angles?, perspective, hues?, tint, times?, years, darker, brighter, blurr(?:y|ier)",
)
"""Words about the picture: what changes in them is no change of the scene."""
_OF_LIGHT = re.compile(rf"(?:^\W*|\b(?:only|in|of) )(?:the |a )?(?:\w+ )?{_LIGHT.pattern}")
_EXCEPTED = _any_of(
    "except(?:ing|ed)?, excluding, besides, (?:apart|aside) from, other than, but for, save(?: for| that)?, with the exception of, minus, plus, barring",
    then="[^,;.:]*",
)
_JOINTS = re.compile(
    rf"([.,;:!?]+|<[^>]*>|(?=\bwith(?:out| no| nothing| (?:\w+ )?(?:new|additional|extra|more|fewer|less))\b)|\b(?:and|while|whereas|although|though|however"
    r"|(?<!nothing )but|yet(?! to\b)|until|when|where(?! (?:it|they) (?:was|were)\b)|because|so|despite"
    rf"|(?:before|after|since)(?= (?:the|a|an|any|some|new|its|it was|they were)\b(?!(?: \w+)? {_PICTURE})))\b)"
)
_BUT = frozenset({"but", "while", "whereas", "though", "however", "yet"})
_ASIDE = re.compile(
    r"\bcould(?: not|n['\u2019]t) be more\b|\bwithout (?:an? |any )?\w+(?= (?:has|have|was|were|is|are|now)\b)|\b(?:that|which) (?:was|were|had|did|do|does|stood|lay)(?: not|n['\u2019]t)?\b[^,;.]*?\b(?:before|exist|earlier|previously)\b"
    r"|\b(?:land|ground|tree|plant|surface|natural|vegetation|its|their)[- ]cover\b|\bbuilt(?:-up)?(?= (?:features?|structures?|environment|areas?|land)\b)"
    rf"|\bnew(?= (?:\w+ )?{_PICTURE}\b)|(?<=\bthe )new(?= one\b)|\b(?:put|set|laid|placed) side by side\b|\btaken (?:(?:at|on|in) different )?(?=(?:at|on|in|times|dates|years)\b)|\bbefore and after(?=\W*$)"
)
"""Of a thing how it was, and words of change that name none."""
_LIST = re.compile(r"\b(?:no|any|without)(?: [\w-]+)+?(?:, (?!no\b)[\w-]+(?: [\w-]+)?)*,? n?or\b")
_CHANGES = _any_of(
    "(?:construct, appear, add, erect, develop, emerge, remove, demolish, disappear, vanish, replace, expand, extend, widen, destroy, damage, pave",
    "create, convert, transform, flatten, collapse, burn, erode, cover, move, arrive, double, install, excavate, reduce, dismantle, enlarge)(?:e?s|e?d)?",
    "(?:re)?buil[dt], planted, grown?, grew, cleared, laid, form(?:s|ed), occup(?:y|ies|ied), turn(?:s|ed), becomes?, became, cut, taken, put",
    "set up, (?:pulled|torn|knocked) down, razed, felled, burnt, fell, fallen, flood(?:s|ed), retreated, shr[au]nk, dug, melted, dried up, drained",
    "show(?:s|ed|n)? up, (?:spr[aiu]ng|went|gone|come) up, arise[sn]?, lost, gone, (?:g[ai]ven?|ma[dk]es?) (?:way|room), (?:takes?|took) the place, comes? into view",
    "been (?:finished|completed), now (?:stands?|sits?|lies?|there|has|have|holds?|joined), joined by, ha(?:s|ve) joined, missing, absent from",
)
"""Words that say of a thing how it changed."""
_AFTERWARDS = re.compile(_CHANGES.pattern + r"\s+(?:not|never|nothing)\b(?!\s+(?:only|just|far|but))")
_ANY_CHANGE = _any_of(
    "chang(?:e|es|ed|ing), differences?, different, differs?, alter(?:s|ed|ations?)?, modifi(?:ed|cations?), happen(?:s|ed)?, occur(?:s|red)?",
    "developments?, (?:de|re)?constructions?(?! sites?), additions?, additional, extra, fewer, unlike, took place, new, loss(?:es)?, gains?, removals?",
    "demolitions?, disappearances?, transformations?, conversions?, expansions?, replacements?, growth, decline, (?:in|de)crease, mismatch(?:es)?, to (?:report|note), (?:larg|small|wid|narrow|tall|dens|bigg|broad|green)er",
    "than (?:before|earlier|it was|they were), (?:one|two|three|four|some|many|several) more",
)
"""Words that say whether there is any change."""
_SAME = _any_of(
    "same, identical, un(?:changed|altered|modified|touched|affected|disturbed), alike(?! shows?), intact, still, remain(?:s|ed)?, stay(?:s|ed)?, equal, coincides?, in common",
    "(?:as|like|where|the way) (?:it|they) (?:was|were|did|used to), (?:as|like) before, indistinguishable, interchangeable, static, constant, preserved",
    "continuity, correspondence, persist(?:s|ed)?, (?:is|are|was|were|been) (?:stable|consistent), (?:kept|keeps?|retain(?:s|ed)?) (?:its|their), always been",
    f"(?:repeat, equal, resemble, matche?, mirror, confirm)s (?:the|its), (?:{_PICTURE}, two, both, dates?, they, after) (?:match, agree), already (?:there|standing|present|existed), left standing, all along, what (?:we saw|the first [a-z]+ showed)",
    "from the (?:start|beginning), as ever, spared, left alone, in (?:its|their) (?:old|usual|original) places?, like (?:the |each |one an)other, resemble (?:each other|one another), (?<!that )(?<!which )(?:was|were) there before",
)
_PREDICATE = re.compile(
    rf"(?<!that )(?<!which )\b(?:is|are|was|were|looks?|remain(?:s|ed)?)(?: \w+)?(?: \w+)? {_SAME.pattern}"
)
_WHOLE = re.compile(
    rf"\b(?:{_PICTURE}|everything|nothing(?! but)|(?:as|like) before|(?:just|exactly) as (?:it|they))\b|^\W*(?:the )?(?:same|identical|unchanged)"
    r"|(?<!\bas )(?<!\bway )(?<!\bthan )\b(?:they|all|both|it|two)\s+(?:\w+\s+)?(?:is|are|was|were|looks?|seems?|remains?|stays?)\b"
)
"""Words by which sameness is of the whole scene, not of one thing in it."""
_PART = re.compile(
    rf"\b(?:else|other|otherwise|rest)\b|\b(?:in|to|on|of|between) the (?!(?:\w+ )?(?:{_PICTURE}|{_PLACE})\b|two|pair)\w"
    rf"|^\W*(?:the|which|its|these) (?!(?:\w+ )?(?:\w+ )?(?:{_PICTURE}|{_PLACE})\b|two|pair)\w"
)
_ABOUT_SCENE = re.compile(rf"{_WHOLE.pattern}|^\W*(?:all|every|(?:the |this )?(?:\w+ )?{_PLACE})\b")
_WITHIN = re.compile(rf"\b(?:in|on|into|from|across|of) (?:(?:the|both|this|two|each) )*(?:\w+ )?{_PICTURE}\b")
_HAPPENED = re.compile(r"\b(?:has|have|had|was|were) (?:\w+ly )?(?:been )?\w+(?:ed|en)\b|\bnow\b")
"""A verb that is not known, and says that something was done."""
_NEGATION = re.compile(
    _any_of(
        "no, not, never, zero, nothing, none, nobody, neither, nor, without, hardly, barely, scarcely, cannot, (?:hard|difficult|impossible) to(?! miss), yet to, fail(?:s|ed)? to, far from",
        "(?:free|devoid|absence) of",
        then=r"(?!\s+(?:longer|more|only|just|doubt|less than|fewer than|but|left|far|one\s*$))",
    ).pattern
    + r"|n['\u2019]t\b|\blittle(?=\s+(?:has|is|change|difference|in common))"
)
_NO_LONGER = _any_of("no longer, nothing but, anything but")
_UNTRUE = _any_of(
    r"untrue, false, incorrect, not\s+(?:\w+\s+)?(?:true|correct|right|the case), nothing came of, came to nothing"
)
_ABSENT = re.compile(r"^\W*(?:there (?:is|are|was|were|has been|have been) )?(?:no|not|never)\b")
_NOT_AGAIN = re.compile(
    r"\b(?:not|never)(?= (?:been )?re(?:built|placed|stored|newed|opened|planted)\b)|\b(?:nothing|none)(?=.*\b(?:in (?:its|their) place|instead|since)\b)"
)
_IN_BOTH = re.compile(rf"\bboth (?:{_PICTURE}|dates?|years?|times)\b")
_SEEMING = re.compile(rf"\b(?:appears?|looks?|seems?)(?= (?:\w+ly |just )?(?:to (?:be|have)\b|{_SAME.pattern}))")
"""Verbs that say how a scene looks, where "appears" is no change."""
_THEN_NOW = re.compile(
    r"\b(?:no|not|none|nothing|never|without)\b[^,;.]*\b(?:before|earlier|previously|first)\b.*\bnow\b|\bthere (?:was|were) (?:no|nothing)\b.*\b(?:now|then \w+ (?:was|were))\b"
    r"|\bnot (?:there|present) (?:before|earlier)\b"
)
"""Of something that was not there, and is."""
_LEFT = re.compile(
    rf"^\W*(?:only|nothing but)\b.*{_SAME.pattern}|\bonly\b.*\b(?:remain\w*|(?:is|are) left)\b"
    r"|\b(?:no|not|cannot|nothing|none|hardly|little)\b.*\b(?:(?:is|are|been|nothing|none|\w+s) left(?! to\b)|survive[sd]?|remains? of|any ?more|any longer)\b"
)
"""Of what is left, which says that the rest is gone."""
_SUBJECT = re.compile(
    r"^\W*(?:any |further )?(?:changes?|differences?|growth|developments?|constructions?|alterations?)\b|.*\b(?:are|in) (?:none|nothing)\b"
)
_UNTOUCHED = re.compile(r"(?:\bnot|\bnever|n't) (?:been )?\w+(?:ed|en)\b|^\W*nothing (?:has|is|was|had)\b")
"""Of a thing without a word for change: that nothing was done to it."""
_HEDGES = _any_of(
    r"maybe, perhaps, possibly, probably, presumably, might, could(?= be\b(?! swapped| exchanged| seen)| have\b), would be, would have been, allegedly, supposedly, unsure, unclear",
    r"uncertain, whether, if, or (?:not|nothing|it|they|there), either(?=.*\bor\b), may (?:have|be|not)",
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
    >>> claim_of("the scene is the same save for a new house"), claim_of("the two scenes are a perfect fit")
    ('change', 'unclear')
    """
    text = _ASIDE.sub("", _SEEMING.sub("is", text.casefold()))
    if excepted := _EXCEPTED.search(text):
        rest = text[: excepted.start()] + text[excepted.end() :]
        if _LIGHT.search(excepted[0]):
            return claim_of(rest) if re.search(r"\w", rest) else "no change"
        return "denied change" if excepted[0].startswith("besides") and "denied" in _kinds(rest) else "change"
    if _HEDGES.search(text):
        return "hedged"
    if untrue := _UNTRUE.search(text):
        rest = text[: untrue.start()] + text[untrue.end() :]
        return "denied change" if claim_of(rest) == "change" else "change"
    if _THEN_NOW.search(text):
        return "change"
    kinds = set(_kinds(text))
    if "denied" in kinds:
        return "denied change"
    if "change" in kinds:
        return "both" if "still" in kinds else "change"
    if "aside" in kinds and kinds & {"still", "same"}:
        return "change"
    besides = "neutral" in kinds and _BUT & set(text.split())
    if "still" in kinds or ("same" in kinds and not besides) or ("light" in kinds and "only" in text):
        return "no change"
    unknown = _ABOUT_SCENE.search(_WITHIN.sub("", text)) and not _HAPPENED.search(text)
    return "unclear" if unknown or kinds & {"same", "light", "not"} else "change"


def _kinds(text: str) -> Iterator[str]:
    """Of every clause: ``still`` (nothing changed), ``same`` (one thing did not), ``change``, ``denied``, ``light`` (of the picture alone),
    ``not`` (something that is not known is denied), ``neutral``, or ``aside`` (neutral, behind a "but")."""
    in_both = _IN_BOTH.search(text) is not None
    first, *others = _JOINTS.split(_LIST.sub(lambda found: found[0].replace(",", ""), text))
    clauses = [("", first), *zip(others[::2], others[1::2], strict=True)]
    for number, (joint, clause) in enumerate(one for one in clauses if one[1].strip()):
        if number:  # "was torn down and not rebuilt"
            clause = _NOT_AGAIN.sub("", clause)
        if "neither" in clause:
            clause = clause.replace(" nor ", " ")
        negations = [found.start() for found in _NEGATION.finditer(clause)]
        odd = len(negations) % 2 == 1
        things = [found.start() for found in _CHANGES.finditer(clause)]
        general = _ANY_CHANGE.search(clause)
        same, predicate = _SAME.search(clause), _PREDICATE.search(clause)
        lasting = same and same[0].startswith(("still", "remain", "stay"))  # "still without a roof"
        now = any(clause.startswith("now", place) for place in things)
        whole, part = _WHOLE.search(clause), _PART.search(clause)
        if _LEFT.search(clause) and not general:
            yield "change"
        elif _IN_BOTH.search(clause) and not things and not general and not same:
            yield "change" if odd else "same"
        elif same and (not things or in_both or (whole and not now) or (predicate and predicate.start() > things[-1])):
            denials = len(_NO_LONGER.findall(clause))
            denials += sum(place < same.start() or not lasting for place in negations)
            yield "change" if denials % 2 else ("still" if whole and not part else "same")
        elif _AFTERWARDS.search(clause) or (things and negations and negations[0] < things[-1]):
            yield "denied" if odd else "change"
        elif general and negations and (negations[0] < general.start() or _SUBJECT.match(clause)):
            yield "change" if not odd else ("denied" if general[0] == "new" else "same" if part else "still")
        elif odd and not things and not general and _UNTOUCHED.search(clause):
            yield "same"
        elif odd and number == 0 and _ABSENT.match(clause):
            yield "denied"
        elif not things and (_OF_LIGHT if general else _LIGHT).search(clause):
            yield "light"
        elif things or general:
            yield "change"
        else:
            unknown = odd and not clause.startswith("with") and "now" not in clause.split()
            yield "not" if unknown else "aside" if number and joint in _BUT else "neutral"
