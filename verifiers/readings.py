"""How the published code of benchmarks reads an answer, lenient or odd as that may be: pure functions and the table of them.

A reading takes the whole text, one true answer and the texts of the options, and gives what it read and its credit in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need
from rsw_rewards.verifiers.answers import unpunctuated

FIRST_LETTERS = "ABCDE"


class Read(NamedTuple):
    """What was read out of a text, and what it is worth."""

    answer: str
    credit: float


Reads = Callable[[str, str, Sequence[str]], Read]


class Reading(NamedTuple):
    """How one benchmark reads answers."""

    read: Reads
    truth: Literal["letters", "text"]
    """Whether true answers are letters of options, joined (``AC``), or texts as they are written."""
    alone: bool = True
    """Whether a true answer is one letter."""
    options: bool = False
    """Whether the texts of the options are needed."""
    skips_missing: bool = False
    """Whether a sample without an output is left out of the number, which flatters models that answer few."""
    library: str = ""
    """What must be installed."""
    number: Callable[[str], float | None] | None = None
    """The number of an answer, of which the root mean squared error is taken."""


def _same(answer: str, true: str) -> Read:
    return Read(answer, float(answer == true))


def first_character(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """The first character that is no blank, as a capital.

    >>> first_character(" b. a road", "B").credit, first_character("The answer is B", "B").credit
    (1.0, 0.0)
    """
    return _same(text.strip()[:1].upper(), true)


def first_of_all(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """The very first character in any case; F for an empty text (MONITRS, ``calculate_accuracy_mcq``).

    >>> first_of_all("Absolutely not", "A").credit, first_of_all(" A", "A").credit
    (1.0, 0.0)
    """
    return Read(letter := (text or "F")[0].lower(), float(letter == true[0].lower()))


_OFFERED = re.compile(r"answer|Answer|could be|would be|Correct option")
_FOUR = "ABCD"


def cascade(text: str, true: str, options: Sequence[str]) -> Read:
    """The first rule that fits: a letter alone, before a blank, before a stop; a capital behind a phrase; words of the true option.

    CHOICE's ``general_evaluater``. The last rule knows the truth: an empty text is in every option.

    >>> cascade("", "B", ["a road", "a pond"]).credit, cascade("It is a lake", "B", ["a road", "a pond"]).credit
    (1.0, 1.0)
    """
    for letter in (text.strip(), text.split(" ")[0], text.split(".")[0]):
        if letter and letter in _FOUR and len(letter) == 1:
            return _same(letter, true)
    if phrase := _OFFERED.search(text):
        # A phrase further on is tried too, but what lies behind the first holds every capital that lies behind it.
        capital = re.search(f"[{_FOUR}]", text[phrase.end() :])
        return _same(capital[0] if capital else "", true)
    option = options["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(true)].split(".")[0].replace("_", " ").lower()
    said = text.lower()
    return Read(true, 1.0) if said in option or option.split(" ")[0] in said else Read("", 0.0)


_BEFORE_ANSWERS = ("The best answer is", "The correct answer is", "The answer is", "The answer")


def _without(text: str, phrases: Sequence[str]) -> str:
    for phrase in phrases:
        text = text.replace(phrase, "")
    return text


def first_capital(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """The first capital from A to E anywhere; without one, the first option whose mark ``(a)`` holds the text.

    MME-RealWorld's ``extract_characters_regex`` in lmms-eval: an empty text reads A, and so does "An aerial view".

    >>> first_capital("", "A").credit, first_capital("probably Not B", "B").credit
    (1.0, 1.0)
    """
    bare = _without(
        text.strip(),
        (*_BEFORE_ANSWERS, "The best option is", "The correct option is", "Best answer:", "Best option:"),
    )
    found = re.search(f"[{FIRST_LETTERS}]", bare)
    if found is None and len(bare.split()) > 10:
        return Read("", 0.0)
    marks = (letter for letter in FIRST_LETTERS if bare.lower() in f"({letter.lower()})")
    return _same(found[0] if found else next(marks, ""), true)


def any_letters(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """The set of letters in brackets, or else of all letters a to e in the text; none without a capital A to E.

    XLRS-Bench's ``extract_characters_regex`` in lmms-eval. Two of its phrases are fused and hardly ever occur.

    >>> any_letters("(C) and (A)", "AC").credit, any_letters("A bad cede", "ABCDE").credit
    (1.0, 1.0)
    """
    fused = ("The best option isThe correct option is", "Best answer:Best option:")
    bare = _without(text.strip(), (*_BEFORE_ANSWERS, *fused))
    if not re.search(f"[{FIRST_LETTERS}]", bare):
        return Read("", float(not true))
    found = re.findall(r"\(([a-eA-E])\)", bare) or re.findall("[a-eA-E]", bare)
    letters = "".join(sorted({letter.upper() for letter in found}))
    return Read(letters, float(set(letters) == set(true)))


def as_written(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """The text itself, without the mark ``<|end|>`` (EarthMind's multiple choice)."""
    return _same(text.replace("<|end|>", ""), true)


def joined(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """Lower case without blanks and full stops (EarthMind's ``evaluate_hrben``).

    >>> joined(" Y e s.", "yes").credit
    1.0
    """
    mine, theirs = (one.strip().lower().replace(" ", "").replace(".", "") for one in (text, true))
    return _same(mine, theirs)


_PLACES = tuple(f"{row} {column}" for row in ("top", "bottom") for column in ("left", "center", "right"))
_KEYWORDS = ("yes", "no", *_PLACES, "center left", "center", "center right")


def keywords(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """Right where a word of xBD's answers is part of both texts, or where both are equal, lower case without punctuation.

    TEOChat's ``classification_metrics`` with the keywords of xBD: "no" is part of "unknown", and "center" of "top center".

    >>> keywords("Unknown.", "no").credit, keywords("the top left", "top left").credit
    (1.0, 1.0)
    """
    mine, theirs = unpunctuated(text), unpunctuated(true)
    shared = any(word in mine and word in theirs for word in _KEYWORDS)
    return Read(mine, float(shared or mine == theirs))


def shared_tokens(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """The share of the tokens of a true label, written without blanks and in lower case, that the answer has (EarthDial).

    For a label of one token this is equality but for what punctuation cuts off; a longer label gives part of its credit.
    """
    from nltk.tokenize import word_tokenize

    # Without blanks there is one sentence, so that no model of sentence ends is needed.
    mine, theirs = (word_tokenize(one.strip().lower().replace(" ", ""), preserve_line=True) for one in (text, true))
    return Read(" ".join(mine), len(set(mine) & set(theirs)) / len(theirs))


@cache
def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        raise ConfigError(
            "the reading lrs-vqa needs WordNet, which is not here; run: python -m nltk.downloader wordnet, or compare words alone by"
            " --set published_answer.reading=lower"
        ) from None
    return wordnet


@lru_cache(maxsize=1 << 16)
def _alike(first: str, second: str) -> bool:
    near = _wordnet()
    pairs = ((one, other) for one in near.synsets(first) for other in near.synsets(second))
    return any((one.path_similarity(other) or 0.0) > 0.8 for one, other in pairs)


def lower(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """Equality in lower case, blanks and punctuation as they are."""
    return _same(text.lower(), true.lower())


def synonyms(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """Equality in lower case, or a WordNet path similarity over 0.8 between any two meanings (LRS-VQA, ``are_synonyms``)."""
    found = lower(text, true)
    return found if found.credit or not _alike(true.lower(), found.answer) else Read(found.answer, 1.0)


_TENTHS = [f"{low}%-{low + 10}%" for low in range(0, 100, 10)]
_CLASSES = {answer: float(place) for place, answer in enumerate([*map(str, range(7)), *_TENTHS])}


def earthvqa_class(answer: str) -> float | None:
    """The place of a count (0 to 6) or a tenth of an area among EarthVQA's answers, 0 to 16; None for any other answer.

    >>> earthvqa_class("3"), earthvqa_class("10%-20%"), earthvqa_class("Yes")
    (3.0, 8.0, None)
    """
    return _CLASSES.get(answer)


def exact(text: str, true: str, options: Sequence[str] = ()) -> Read:
    """Equality of the texts as they are."""
    return _same(text, true)


READINGS: Mapping[str, Reading] = {
    "geobench-vlm": Reading(first_character, "letters"),
    "choice": Reading(cascade, "letters", options=True),
    "mme-realworld": Reading(first_capital, "letters"),
    "xlrs": Reading(any_letters, "letters", alone=False),
    "monitrs": Reading(first_of_all, "letters"),
    "earthmind": Reading(as_written, "text", skips_missing=True),
    "earthmind-hrben": Reading(joined, "text", skips_missing=True),
    "teochat-keywords": Reading(keywords, "text"),
    "earthdial": Reading(shared_tokens, "text", library="nltk"),
    "lrs-vqa": Reading(synonyms, "text", library="nltk"),
    "lower": Reading(lower, "text"),
    "earthvqa": Reading(exact, "text", number=earthvqa_class),
}
"""Name -> how answers are read."""


def prepare(name: str) -> None:
    """None where a reading can be used. Raises :class:`MissingExtra` or :class:`ConfigError` that says what to install."""
    if library := READINGS[name].library:
        need(f"the reading {name!r}", library)
    if name == "lrs-vqa":
        _wordnet()
