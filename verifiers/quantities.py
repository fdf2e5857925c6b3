"""Quantities in texts: numbers in digits or words, with or without a unit, and the one number that an answer gives."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from rsw_rewards.verifiers.denials import denial, plain_letters

LONGEST = 8192
"""Characters of an answer that a number is looked for in; a longer one is no answer to a question for a number."""
TOO_LONG = f"the answer has more than {LONGEST} characters"

LARGEST = 1e15
"""Larger numbers are not read: their squares would swamp or overflow the sums that RMSE is made of."""

_UNITS: Mapping[str, tuple[str, float]] = {
    "": ("count", 1.0),
    "m": ("length", 1.0),
    "km": ("length", 1e3),
    "m2": ("area", 1.0),
    "ha": ("area", 1e4),
    "km2": ("area", 1e6),
    "%": ("share", 0.01),
    "ratio": ("share", 1.0),
    "mm": ("length", 1e-3),
    "cm": ("length", 1e-2),
    "inch": ("length", 0.0254),
    "ft": ("length", 0.3048),
    "yd": ("length", 0.9144),
    "mi": ("length", 1609.344),
    "ft2": ("area", 0.09290304),
    "yd2": ("area", 0.83612736),
    "mi2": ("area", 2589988.110336),
    "acre": ("area", 4046.8564224),
    "px": ("pixels", 1.0),
    "degree": ("angle", 1.0),
    "second": ("time", 1.0),
    "minute": ("time", 60.0),
    "hour": ("time", 3600.0),
    "day": ("time", 86400.0),
    "week": ("time", 604800.0),
    "month": ("months", 1.0),
    "year": ("months", 12.0),
    "kg": ("mass", 1.0),
    "t": ("mass", 1e3),
}
_SPELLINGS = {
    "m": r"m|met(?:re|er)s?",
    "km": r"km|kilomet(?:re|er)s?",
    "m2": r"m\^?2|sq\.? ?m|square met(?:re|er)s?",
    "ha": r"ha|hectares?",
    "km2": r"km\^?2|sq\.? ?km|square kilomet(?:re|er)s?",
    "%": r"%|per ?cent|pct",
    "mm": r"mm|millimet(?:re|er)s?",
    "cm": r"cm|centimet(?:re|er)s?",
    "inch": r"inch(?:es)?|in(?=[.,;!]?$)",
    "ft": r"ft|feet|foot",
    "yd": r"yds?|yards?",
    "mi": r"mi|miles?",
    "ft2": r"ft\^?2|sq\.? ?ft|square (?:feet|foot)",
    "yd2": r"yd\^?2|sq\.? ?yd|square yards?",
    "mi2": r"mi\^?2|sq\.? ?mi|square miles?",
    "acre": r"acres?",
    "px": r"px\^?2?|pix|pixels?|square pixels?",
    "degree": r"\u00b0|deg|degrees?",
    "second": r"s|secs?|seconds?",
    "minute": r"min|mins|minutes?",
    "hour": r"h|hrs?|hours?",
    "day": r"days?",
    "week": r"weeks?",
    "month": r"months?",
    "year": r"yrs?|years?",
    "kg": r"kg|kilograms?",
    "t": r"t|tons?|tonnes?",
}
_ONES = "zero one two three four five six seven eight nine ten eleven twelve"
_TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {word: float(value) for value, word in enumerate(f"{_ONES} {_TEENS}".split())}
WORDS |= {word: 10.0 * ten for ten, word in enumerate(_TENS.split(), start=2)}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

_WORD = "|".join(WORDS)
_SCALE = "|".join(_SCALES)
_UNIT = "|".join(_SPELLINGS.values())
_DIGITS = r"[-+]?(?:(?:\d{1,3}(?:(?:,\d{3})+|(?:'\d{3})+|(?: \d{3})+)|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
# Not inside a word, another number, a range, a fraction, a sum or an amount of money; nothing but a unit may be glued on behind.
_QUANTITY = re.compile(
    r"(?<![\w.,'^/\u2044*+$\u20ac\u00a3\u00a5#-])(?<!- )(?<!minus )(?<!negative )"
    rf"(?:(?P<digits>{_DIGITS})|(?P<word>{_WORD})(?![\w-]))"
    rf"(?: (?P<scale>{_SCALE})\b)?(?: ?(?P<unit>{_UNIT})(?![\w^/]))?(?![\w^/\u2044*+]|[.,']\d|-\w)"
    r"(?= ?(?P<behind>[^\s\d,;:.!?()\[\]{}'\"*~=&|-]\S*))?"
)
# Between words only: in 3*4*5 a star is a sign of its own.
_EMPHASIS = re.compile(r"(?<![\w*`])(\*{1,3}|_{1,3}|`)(?=\S)([^*_`]{1,100})(?<=\S)\1(?![\w*`])")
_THINGS = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_FILLER_WORDS = (
    "a an about across after all altogether and approximately are around as at because before between but by changed during for from"
    " has have here i if in inside into is it new now of on only or out outside overall roughly since so such than that the there these"
    " they this those to together total was were when where which while who with within"
)
_FILLERS = frozenset(_FILLER_WORDS.split())
"""Words that may stand behind a number without being its unit."""
_NO_THING_WORDS = (
    "square sq cubic nautical nm dm hm litre litres liter liters gallon gallons gram grams g lb lbs pound pounds ounce ounces dollar"
    " dollars usd euro euros eur cent cents yuan decade decades century centuries percentage pp point points k mn mio bn dozen dozens"
    " hundreds thousands millions billions score gross pair pairs couple couples time times fold halves quarters squared cubed x"
)
_NO_THINGS = frozenset(_NO_THING_WORDS.split())
"""Words behind a number that neither are known units nor name things that are counted, so that they make it another number."""
_NUMBER = rf"(?:[-+]?\.?\d|(?:{_WORD})\b)"
_CHANGED = re.compile(
    # Words before a number, and others anywhere, by which a text gives another number or none.
    r"(?:\b(?:than|under|over|above|below|beyond|exceed(?:s|ing)?|almost|nearly|least|most|up to|upwards? of|minus|plus|half|twice|double"
    r"|triple|until|till|hardly|instead of|anything but|nothing like|far from|opposite of)|(?<![=-])[<>\u2264\u2265\u2260\u00b1]|!=)(?: (?:a|an|the|of|about|exactly|only|just|even|total))* ?(?="
    + _NUMBER
    + ")"
    r"|\b(?:or (?:more|less|fewer|greater|larger|smaller|higher|lower|above|over|under|below|beyond)"
    r"|and (?:more$|above|over|under|below|beyond|up|counting|an? (?:half|quarter|third)))\b"
    r"|\bat (?:the )?(?:very )?(?:least|most|minimum|maximum)\b|\b(?:minimum|maximum|max|per(?! ?cent))\b"
)
_BARE_UNIT = re.compile(rf"(?<!\w)(?:{_UNIT})(?![\w^])")
NUMERAL = re.compile(rf"\d|\b(?:{_WORD}|{_SCALE})\b")


class Quantity(NamedTuple):
    """A number and what stands behind it."""

    value: float
    unit: str
    """A known unit (m, km, m2, ha, km2, %, ft, acre, px, year, ...), a word that is none (``buildings``), or nothing."""


@lru_cache(maxsize=256)
def parse_unit(text: str) -> str | None:
    """The canonical name of a unit, ``""`` for things that are counted (``"buildings"``), None for what is neither."""
    text = clean(text)
    if text in ("ratio", "fraction", "share"):
        return "ratio"
    for unit, spelling in _SPELLINGS.items():
        if re.fullmatch(spelling, text):
            return unit
    return "" if re.fullmatch(r"[a-z _-]*", text) else None


def clean(text: str) -> str:
    """Lower case, NFKC with superscripts kept apart, blanks collapsed, marks of Markdown around words left out."""
    # Superscripts first: NFKC would make a ten with a superscript two the number 102.
    for sign, plain in (("\u00b2", "^2"), ("\u00b3", "^3"), ("\u2212", "-"), ("\u2013", "-")):
        text = text.replace(sign, plain)
    return _EMPHASIS.sub(r"\2", " ".join(unicodedata.normalize("NFKC", text).lower().split()))


def parse_quantities(text: str) -> list[Quantity] | None:
    """Every number in a text with its unit, in order.

    Read are digits (thousands by comma, apostrophe or any blank, decimals by full stop, exponents) and the words zero to nineteen
    and the tens, each with hundred to trillion and a unit or a word behind it if there is one.

    Returns:
        The quantities, or None if the text has digits or number words beyond them: ``1.2.3``, ``12px``, ``3/4``, ``10-20``,
        ``twenty-one``, ``minus 3``. Reading a part of such a text would make a number of what is none.
    """
    text = clean(text)
    found = []
    for match in _QUANTITY.finditer(text):
        digits, unit = match["digits"], match["unit"]
        value = float(re.sub("[,' ]", "", digits)) if digits else WORDS[match["word"]]
        value *= _SCALES.get(match["scale"], 1.0)
        found.append(Quantity(value, (parse_unit(unit) or "") if unit else _word_behind(match["behind"])))
    rest = _BARE_UNIT.sub(" ", _QUANTITY.sub(" ", text))
    return None if NUMERAL.search(rest) else found


def _word_behind(text: str | None) -> str:
    """What stands behind a number, as its unit; empty for a word that says nothing of it."""
    if text is None:
        return ""
    word = text.rstrip(",;:.!?()[]{}'\"*")[:40]
    return "" if word in _FILLERS else word


def is_unit(name: str) -> bool:
    """Whether a name is that of a known unit, ``""`` among them."""
    return name in _UNITS


def convert(quantity: Quantity, unit: str) -> float | None:
    """The value of a quantity in ``unit``; one without a unit is taken to be in it already.

    None for another dimension, and for a word that is no known unit, unless things are counted (``""``).
    """
    if not quantity.unit or quantity.unit == unit:
        return quantity.value
    wanted, wanted_factor = _UNITS[unit]
    if not is_unit(quantity.unit):
        counted = _THINGS.fullmatch(quantity.unit) and quantity.unit not in _NO_THINGS
        return quantity.value if unit == "" and counted else None
    dimension, factor = _UNITS[quantity.unit]
    return quantity.value * (factor / wanted_factor) if dimension == wanted else None


def changed_by(text: str) -> str:
    """Words by which a text gives another number than the one in it, or none: ``less than``, ``at least``, ``not``, ``maybe``.

    Args:
        text: as :func:`clean` gives it.

    Returns:
        The words, empty where there are none.
    """
    found = _CHANGED.search(plain_letters(text))
    return found[0].strip() if found else denial(text)


@lru_cache(maxsize=4096)  # candidates of a group often say the same
def read_number(text: str, unit: str = "") -> tuple[float | None, str]:
    """The one number that a text gives, in ``unit``.

    Returns:
        The number and ``""``, or None and the reason: no number, several different ones, another dimension, a unit that is not
        known, words that change it, not finite.
    """
    quantities = parse_quantities(text)
    if quantities is None:
        return None, "the answer has digits or number words that form no single number"
    if not quantities:
        return None, "no number in the answer"
    if words := changed_by(clean(text)):
        return None, f"the answer does not give its number itself, but says {words!r}"
    values = []
    for quantity in quantities:
        value = convert(quantity, unit)
        if value is None:
            return None, f"the answer is in {quantity.unit!r}, the question asks for {unit or 'a plain number'}"
        if not abs(value) <= LARGEST:
            return None, f"the number {value:g} is beyond {LARGEST:g}"
        values.append(value)
    if any(not within(value, values[0], 0.0, 0.0) for value in values):
        return None, f"hedged: {len(values)} numbers that differ"
    return values[0], ""


def within(predicted: float, target: float, abs_tol: float, rel_tol: float) -> bool:
    """``|p - t| <= max(abs_tol, rel_tol |t|)``, with room for the rounding of a unit conversion."""
    slack = 1e-9 * max(abs(predicted), abs(target))
    return abs(predicted - target) <= max(abs_tol, rel_tol * abs(target)) + slack
