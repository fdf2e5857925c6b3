"""Numbers with units: how a quantity is read out of an answer, how far it may be off, ranges, and the ``numeric_match`` verifier."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rsw_rewards.contracts import Batch, Card, Metric, SumMetric, Verifier, register
from rsw_rewards.data.bins import RATIO_BINS, ratio_bin, rsvqa_bin
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scores import Score
from rsw_rewards.verifiers.answers import ACCURACY, Extract, KindAccuracy, extract_answer, normalise, true_answers

MRA_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Confidence thresholds of the mean relative accuracy."""
_MRA_LIMITS = (1 - MRA_THRESHOLDS).tolist()

RSVQA_CLASSES = frozenset(
    f"between {low}{unit} and {high}{unit}" for unit in ("", "m2") for low, high in ((0, 10), (10, 100), (100, 1000))
) | {"0", "0m2", "more than 1000", "more than 1000m2"}
"""The range classes of :func:`rsw_rewards.data.bins.rsvqa_bin`."""

_LARGEST = 1e15  # squares of larger numbers would swamp or overflow the sums that RMSE is made of

_UNITS: Mapping[str, tuple[str, float]] = {
    "": ("count", 1.0),
    "m": ("length", 1.0),
    "km": ("length", 1e3),
    "m2": ("area", 1.0),
    "ha": ("area", 1e4),
    "km2": ("area", 1e6),
    "%": ("share", 0.01),
    "ratio": ("share", 1.0),
}
_SPELLINGS = {
    "m": r"m|met(?:re|er)s?",
    "km": r"km|kilomet(?:re|er)s?",
    "m2": r"m\^?2|sq\.? ?m|square met(?:re|er)s?",
    "ha": r"ha|hectares?",
    "km2": r"km\^?2|sq\.? ?km|square kilomet(?:re|er)s?",
    "%": r"%|per ?cent|pct",
}
_ONES = "zero one two three four five six seven eight nine ten eleven twelve"
_TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: float(value) for value, word in enumerate(f"{_ONES} {_TEENS}".split())}
_WORDS |= {word: 10.0 * ten for ten, word in enumerate(_TENS.split(), start=2)}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6}

_WORD = "|".join(_WORDS)
_SCALE = "|".join(_SCALES)
_UNIT = "|".join(_SPELLINGS.values())
_DIGITS = r"[-+]?(?:(?:\d{1,3}(?:[,']\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
# Not inside a word, another number, a range, a fraction or a sum; nothing but a unit may be glued on behind.
_QUANTITY = re.compile(
    r"(?<![\w.,'^/\u2044*+-])(?<!- )(?<!minus )(?<!negative )"
    rf"(?:(?P<digits>{_DIGITS})|(?P<word>{_WORD})(?![\w-]))"
    rf"(?: (?P<scale>{_SCALE})\b)?(?: ?(?P<unit>{_UNIT})(?![\w^]))?(?![\w^/\u2044*+]|[.,']\d)"
)
_BARE_UNIT = re.compile(rf"(?<!\w)(?:{_UNIT})(?![\w^])")
_NUMERAL = re.compile(rf"\d|\b(?:{_WORD}|{_SCALE})\b")


class Quantity(NamedTuple):
    """A number and the unit that stands behind it: one of m, km, m2, ha, km2, %, or nothing."""

    value: float
    unit: str


@lru_cache(maxsize=256)
def parse_unit(text: str) -> str | None:
    """The canonical name of a unit, ``""`` for things that are counted (``"buildings"``), None for what is neither."""
    text = _clean(text)
    if text in ("ratio", "fraction", "share"):
        return "ratio"
    for unit, spelling in _SPELLINGS.items():
        if re.fullmatch(spelling, text):
            return unit
    return "" if re.fullmatch(r"[a-z _-]*", text) else None


def _clean(text: str) -> str:
    # Superscripts first: NFKC would make a ten with a superscript two the number 102.
    for sign, plain in (("\u00b2", "^2"), ("\u00b3", "^3"), ("\u2212", "-"), ("\u2013", "-")):
        text = text.replace(sign, plain)
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def parse_quantities(text: str) -> list[Quantity] | None:
    """Every number in a text with its unit, in order.

    Read are digits (thousands by comma or apostrophe, decimals by full stop, exponents) and the words zero to nineteen and
    the tens, each with hundred, thousand or million and a unit behind it if there is one.

    Returns:
        The quantities, or None if the text has digits or number words beyond them: ``1.2.3``, ``12px``, ``3/4``, ``10-20``,
        ``twenty-one``, ``minus 3``. Reading a part of such a text would make a number of what is none.
    """
    text = _clean(text)
    found = []
    for match in _QUANTITY.finditer(text):
        digits, unit = match["digits"], match["unit"]
        value = float(digits.replace(",", "").replace("'", "")) if digits else _WORDS[match["word"]]
        value *= _SCALES.get(match["scale"], 1.0)
        found.append(Quantity(value, (parse_unit(unit) or "") if unit else ""))
    rest = _BARE_UNIT.sub(" ", _QUANTITY.sub(" ", text))
    return None if _NUMERAL.search(rest) else found


def convert(quantity: Quantity, unit: str) -> float | None:
    """The value of a quantity in ``unit``; one without a unit is taken to be in it already. None for another dimension."""
    if not quantity.unit or quantity.unit == unit:
        return quantity.value
    (dimension, factor), (wanted, wanted_factor) = _UNITS[quantity.unit], _UNITS[unit]
    return quantity.value * (factor / wanted_factor) if dimension == wanted else None


@lru_cache(maxsize=4096)  # candidates of a group often say the same
def read_number(text: str, unit: str = "") -> tuple[float | None, str]:
    """The one number that a text gives, in ``unit``.

    Returns:
        The number and ``""``, or None and the reason: no number, several different ones, another dimension, not finite.
    """
    quantities = parse_quantities(text)
    if quantities is None:
        return None, "the answer has digits or number words that form no single number"
    if not quantities:
        return None, "no number in the answer"
    values = []
    for quantity in quantities:
        value = convert(quantity, unit)
        if value is None:
            return None, f"the answer is in {quantity.unit}, the question asks for {unit or 'a plain number'}"
        if not abs(value) <= _LARGEST:
            return None, f"the number {value:g} is beyond {_LARGEST:g}"
        values.append(value)
    if any(not within(value, values[0], 0.0, 0.0) for value in values):
        return None, f"hedged: {len(values)} numbers that differ"
    return values[0], ""


def relative_accuracy(predicted: float, target: float) -> float:
    """Mean relative accuracy of a number: the share of ten confidences C in .50 .. .95 with ``|p - t| / |t| <= 1 - C``.

    A zero target, which the definition of VSI-Bench (arXiv 2412.14171) leaves open, gives 1 for a predicted zero, else 0.
    """
    if target == 0:
        return float(predicted == 0)
    error = abs(predicted - target) / abs(target)
    return sum(error <= limit for limit in _MRA_LIMITS) / len(_MRA_LIMITS)


def mean_relative_accuracy(text: str, target: float) -> float:
    """Mean relative accuracy of a text as VSI-Bench reads it: only what stands before the first blank, without trailing
    full stops, and 0 where that is no number. See :func:`relative_accuracy`.
    """
    value = first_token_number(text)
    return 0.0 if value is None else relative_accuracy(value, target)


def first_token_number(text: str) -> float | None:
    """The number before the first blank of a text, None where there is none. NaN and infinities are no numbers."""
    try:
        value = float(text.split(" ")[0].rstrip("."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def within(predicted: float, target: float, abs_tol: float, rel_tol: float) -> bool:
    """``|p - t| <= max(abs_tol, rel_tol |t|)``, with room for the rounding of a unit conversion."""
    slack = 1e-9 * max(abs(predicted), abs(target))
    return abs(predicted - target) <= max(abs_tol, rel_tol * abs(target)) + slack


def cdvqa_range(text: str, unit: str = "%") -> tuple[str | None, str]:
    """The CDVQA range that a text names (``10_to_20``) or whose share it states (``12 %``), or None and the reason."""
    if normalise(text) in RATIO_BINS:
        return normalise(text), ""
    value, reason = read_number(text, unit)
    if value is None:
        return None, reason
    # Hundredths of a percent first: 0.3 and 30 / 100 must land in one bin.
    share = round(value if unit == "ratio" else value / 100, 12)
    if not 0 <= share <= 1:
        return None, f"{value:g} is not a share between 0 and 1"
    return ratio_bin(share), ""


def rsvqa_class(text: str, unit: str = "", range_numbers: bool = True) -> tuple[str | None, str]:
    """The RSVQA class that a text names or whose number it states, or None and the reason. ``unit`` is ``""`` or ``"m2"``."""
    named = rsvqa_bin(text, range_numbers)
    if named in RSVQA_CLASSES and named.endswith("m2") == (unit == "m2"):
        return named, ""
    value, reason = read_number(text, unit)
    if value is None:
        return None, reason
    number = f"{int(value)}" if value == int(value) else f"{value!r}"
    return rsvqa_bin(f"{number}{unit}", range_numbers), ""


class NumericMatchConfig(BaseModel):
    """Configuration of ``numeric_match``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extract: Extract = Field("auto", description="where the answer stands: auto, tag or whole")
    reading: Literal["strict", "first_token"] = Field(
        "strict",
        description="strict: the one number of the answer; first_token: as VSI-Bench, what precedes the first blank",
    )
    abs_tol: float = Field(0.0, ge=0, allow_inf_nan=False, description="allowed difference, in the sample's unit")
    rel_tol: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="allowed difference as a share of the true number"
    )
    ranges: Literal["rsvqa", "cdvqa"] | None = Field(None, description="compare the ranges that the numbers fall into")
    range_numbers: bool = Field(True, description="RSVQA ranges for counts too, not only for areas")
    unit: str | None = Field(None, description="unit of the true numbers; default: the sample's own")
    reward: Literal["exact", "tolerance", "exponential", "mra"] = Field(
        "tolerance",
        description="value: 1 if equal; 1 within tolerance; exp(-error / tolerance); mean relative accuracy",
    )
    merge_kinds: dict[str, str] = Field(default_factory=dict, description="kinds that count as another in oa and aa")
    metric_kinds: tuple[str, ...] = Field((), description="kinds to report as oa/<kind>")

    @model_validator(mode="after")
    def _fits(self) -> NumericMatchConfig:
        if self.reward == "exponential" and not (self.abs_tol or self.rel_tol):
            raise ValueError("reward 'exponential' needs abs_tol or rel_tol: the error that gives 1/e")
        if self.ranges and (self.abs_tol or self.rel_tol or self.reward in ("exponential", "mra")):
            raise ValueError("with ranges, two answers are equal or not: leave out tolerances and graded rewards")
        if self.ranges and self.reading == "first_token":
            raise ValueError("ranges have several words: use reading 'strict'")
        if self.unit is not None and parse_unit(self.unit) is None:
            raise ValueError(f"the unit {self.unit!r} is not known; use m, km, m2, ha, km2, % or ratio")
        return self


def reward_of(predicted: float, target: float, config: NumericMatchConfig) -> float:
    """The value in [0, 1] of a number under ``config.reward``; falls with the error, 1 for the true number."""
    if config.reward == "exact":
        return float(within(predicted, target, 0.0, 0.0))
    if config.reward == "tolerance":
        return float(within(predicted, target, config.abs_tol, config.rel_tol))
    if config.reward == "mra":
        return relative_accuracy(predicted, target)
    scale = max(config.abs_tol, config.rel_tol * abs(target))
    if scale == 0:
        return float(predicted == target)
    return math.exp(-abs(predicted - target) / scale)


def _stats(
    correct: float = 0.0, valid: float = 0.0, error: float | None = None, mra: float = 0.0
) -> dict[str, np.ndarray]:
    numbers = {
        "correct": correct,
        "valid": valid,
        "measured": float(error is not None),
        "abs_error": error or 0.0,
        "squared_error": (error or 0.0) ** 2,
        "mra": mra,
    }
    return {name: np.asarray(value, dtype=np.float64) for name, value in numbers.items()}


def _invalid(reason: str) -> Score:
    return Score.invalid(reason, raw={"correct": 0.0, "mra": 0.0}, stats=_stats())


@lru_cache(maxsize=4096)
def _targets(answers: tuple[str, ...], unit: str | None) -> tuple[tuple[float, ...], str]:
    """The true numbers in the question's unit, and that unit. Raises ``ValueError`` for a truth that is no number."""
    units = {quantity.unit for answer in answers for quantity in parse_quantities(answer) or ()} - {""}
    if unit is None:
        if len(units) > 1:
            raise ValueError(f"the true answers {list(answers)} have several units")
        unit = units.pop() if units else ""
    values = []
    for answer in answers:
        value, reason = read_number(answer, unit)
        if value is None:
            raise ValueError(f"the true answer {answer!r} cannot be read as a number: {reason}")
        values.append(value)
    return tuple(values), unit


def _number_score(text: str, sample: Sample, unit: str | None, config: NumericMatchConfig) -> Score:
    targets, unit = _targets(true_answers(sample), unit)
    predicted: float | None
    if config.reading == "first_token":
        predicted, reason = first_token_number(text), "what precedes the first blank is no number"
        if predicted is not None and abs(predicted) > _LARGEST:
            predicted, reason = None, f"the number is beyond {_LARGEST:g}"
    else:
        predicted, reason = read_number(text, unit)
    if predicted is None:
        return _invalid(reason)
    nearest, number = targets[0], predicted
    if len(targets) > 1:
        nearest = min(targets, key=lambda target: abs(number - target))
    error = abs(number - nearest)
    correct = float(within(number, nearest, config.abs_tol, config.rel_tol))
    mra = relative_accuracy(number, nearest)
    raw = {"correct": correct, "abs_error": error, "predicted": number, "target": nearest, "mra": mra}
    why = "" if correct else f"answered {number:g}, not {nearest:g}"
    return Score(reward_of(number, nearest, config), raw=raw, stats=_stats(correct, 1.0, error, mra), reason=why)


def _range_score(text: str, sample: Sample, unit: str | None, config: NumericMatchConfig) -> Score:
    answers = true_answers(sample)

    def range_of(answer: str, unit: str) -> tuple[str | None, str]:
        if config.ranges == "cdvqa":
            return cdvqa_range(answer, unit or "%")
        return rsvqa_class(answer, unit, config.range_numbers)

    if unit is None:
        unit = "m2" if config.ranges == "rsvqa" and any("m2" in _clean(answer) for answer in answers) else ""
    wanted = [range_of(answer, unit) for answer in answers]
    for answer, (true, reason) in zip(answers, wanted, strict=True):
        if true is None:
            raise ValueError(f"the true answer {answer!r} falls into no range: {reason}")
    found, reason = range_of(text, unit)
    if found is None:
        return _invalid(reason)
    correct = float(found in {true for true, _ in wanted})
    why = "" if correct else f"answered {found!r}, not {wanted[0][0]!r}"
    return Score(correct, raw={"correct": correct}, stats=_stats(correct, 1.0), reason=why)


def _unit_of(sample: Sample, config: NumericMatchConfig) -> str | None:
    named = config.unit if config.unit is not None else sample.reference.get("unit")
    if named is None:
        return None
    unit = parse_unit(str(named))
    if unit is None:
        raise ValueError(f"the unit {named!r} of sample {sample.id!r} is not known")
    return unit


def _share(sums: Mapping[str, np.ndarray], name: str, over: str = "n") -> float | None:
    total = float(sums.get(over, np.zeros(())))
    return float(sums[name]) / total if total else None


def _errors(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    squared = _share(sums, "squared_error", "measured")
    return {
        "mae": _share(sums, "abs_error", "measured"),
        "rmse": None if squared is None else math.sqrt(squared),
    }


def _mra(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    return {"mra": _share(sums, "mra") if "mra" in sums else None}


def _valid_rate(sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    return {"valid_rate": _share(sums, "valid") if "valid" in sums else None}


@register
class NumericMatch(Verifier):
    """Whether the number in an answer is right, and how far off it is."""

    name: ClassVar[str] = "numeric_match"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_QA})
    needs: ClassVar[frozenset[str]] = frozenset({"output.text", "reference.answers"})
    card: ClassVar[Card] = Card(
        summary=(
            "Reads the one number of an answer, in the sample's unit, and compares it with the true number or its range. A"
            " percentage counts as a ratio only where the unit says 'ratio'."
        ),
        range="correct: 0 or 1; abs_error: the sample's unit, from 0; mra: [0, 1]",
        transform=(
            "exact: 1 if equal; tolerance: 1 if |p - t| <= max(abs_tol, rel_tol |t|), so a zero target needs abs_tol to allow"
            " anything but zero; exponential: exp(-|p - t| / max(abs_tol, rel_tol |t|)); mra: the mean relative accuracy"
        ),
        source=(
            "ranges: syvlo/RSVQA (arXiv 2003.07333) and CDVQA (arXiv 2112.06343); mra: VSI-Bench (arXiv 2412.14171), where a"
            " zero target, which it leaves open, is defined here as 1 for a predicted zero and 0 otherwise"
        ),
        gaming=(
            "Several different numbers are invalid, so a list of guesses scores nothing; so are numbers in a unit of another"
            " dimension, infinities and numbers beyond 1e15. A constant near the typical count can score under a wide"
            " rel_tol or the exponential: read it beside the majority baseline. mae and rmse leave invalid answers out: read"
            " them beside valid_rate."
        ),
    )
    Config: ClassVar[type[BaseModel]] = NumericMatchConfig

    def score(self, batch: Batch) -> list[Score]:
        return [self._one(sample, output) for sample, output in zip(batch.samples, batch.outputs, strict=True)]

    def _one(self, sample: Sample, output: Output) -> Score:
        config: NumericMatchConfig = self.config
        text = output.text or ""
        try:
            unit = _unit_of(sample, config)
            if config.reading == "strict":
                answer, reason = extract_answer(text, config.extract)
            else:  # normalising would mend what VSI-Bench counts as wrong, such as a leading blank
                answer, reason = text, ""
            score = _range_score if config.ranges else _number_score
            # The truth is read even when the answer is not, so that a broken sample is always our error.
            found = score(answer or "", sample, unit, config)
            return found if answer is not None else _invalid(reason)
        except ValueError as error:
            return Score.error(str(error))

    def metrics(self) -> Sequence[Metric]:
        config: NumericMatchConfig = self.config
        keys = ("oa", "aa", *(f"oa/{kind}" for kind in config.metric_kinds))
        common = (ACCURACY, SumMetric(("valid_rate",), _valid_rate), KindAccuracy(keys, merge=config.merge_kinds))
        if config.ranges:
            return common
        return (*common, SumMetric(("mae", "rmse"), _errors), SumMetric(("mra",), _mra))
