"""Numbers as answers: how far one may be off, the ranges it may fall into, and the ``numeric_match`` verifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from rsw_rewards.core.metric import Metric, SumMetric, Sums
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Card
from rsw_rewards.data.bins import RATIO_BINS, ratio_bin, rsvqa_bin
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answer_metrics import ACCURACY, VALID_RATE, KindAccuracy, quotients, share
from rsw_rewards.verifiers.answers import (
    LONGEST_CACHED,
    AnswerConfig,
    PerQuestion,
    Rules,
    Truth,
    answer_truth,
    extract_answer,
    normalise,
    score_answer,
    texts_of,
    true_answers,
)
from rsw_rewards.verifiers.quantities import (
    LARGEST,
    LONGEST,
    NUMERAL,
    TOO_LONG,
    clean,
    is_unit,
    parse_quantities,
    parse_unit,
    read_number,
    within,
)
from rsw_rewards.verifiers.texts import known

MRA_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Confidence thresholds of the mean relative accuracy."""
_MRA_LIMITS = (1 - MRA_THRESHOLDS).tolist()

RSVQA_CLASSES = frozenset(
    f"between {low}{unit} and {high}{unit}" for unit in ("", "m2") for low, high in ((0, 10), (10, 100), (100, 1000))
) | {"0", "0m2", "more than 1000", "more than 1000m2"}
"""The range classes of :func:`rsw_rewards.data.bins.rsvqa_bin`."""


def relative_accuracy(predicted: float, target: float) -> float:
    """Mean relative accuracy of a number: the share of ten confidences C in .50 .. .95 with ``|p - t| / |t| <= 1 - C``.

    A zero target, which the definition of VSI-Bench (arXiv 2412.14171) leaves open, gives 1 for a predicted zero, else 0.
    """
    if target == 0:
        return float(predicted == 0)
    error = abs(predicted - target) / abs(target)
    return sum(error <= limit for limit in _MRA_LIMITS) / len(_MRA_LIMITS)


def first_token_number(text: str) -> float | None:
    """The number before the first blank of a text, None where there is none. NaN and infinities are no numbers."""
    try:
        value = float(text.split(" ")[0].rstrip("."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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


class NumericMatchConfig(AnswerConfig):
    """Configuration of ``numeric_match``."""

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
    merge_kinds: dict[str, str] = Field(
        default_factory=dict, description="kind -> the kind that it counts as in overall (oa) and average accuracy (aa)"
    )
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


class Numbers(NamedTuple):
    """The true numbers of a question."""

    values: tuple[float, ...]
    unit: str
    """The question's unit, which the values are in."""

    def stated(self, words: str) -> float | None:
        """The number that a few words give, None where they give none."""
        return read_number(words, self.unit)[0]


class Ranges(NamedTuple):
    """The ranges that the true numbers of a question fall into."""

    names: tuple[str, ...]
    unit: str
    kind: Literal["rsvqa", "cdvqa"]
    range_numbers: bool

    def read(self, text: str) -> tuple[str | None, str]:
        """The range that a text names or whose number it states, or None and the reason."""
        if self.kind == "cdvqa":
            return cdvqa_range(text, self.unit or "%")
        return rsvqa_class(text, self.unit, self.range_numbers)

    def stated(self, words: str) -> str | None:
        """The range that a few words name or whose number they state, None where there is none."""
        return self.read(words)[0]


@lru_cache(maxsize=4096)
def _true_numbers(answers: tuple[str, ...], unit: str | None) -> Numbers:
    """Raises ``ValueError`` for a truth that is no number."""
    units = {
        quantity.unit for answer in answers for quantity in parse_quantities(answer) or () if is_unit(quantity.unit)
    } - {""}
    if unit is None:
        if len(units) > 1:
            raise ValueError(f"the true answers {list(answers)} have several units")
        unit = units.pop() if units else ""
    values = []
    for answer in answers:
        value, reason = read_number(answer, unit)
        values.append(known(value, f"the true answer {answer!r} cannot be read as a number: {reason}"))
    return Numbers(tuple(values), unit)


_RSVQA_WORDS = (("yes", "no"), ("rural", "urban"))
"""What a question of RSVQA that asks for no number may be answered with."""


@lru_cache(maxsize=4096)
def _true_ranges(
    answers: tuple[str, ...],
    vocabulary: tuple[str, ...],
    unit: str | None,
    kind: Literal["rsvqa", "cdvqa"],
    range_numbers: bool,
) -> Ranges | Truth:
    """Words instead of ranges for a question of RSVQA that asks for no number. Raises ``ValueError`` for a truth that is neither."""
    if kind == "rsvqa" and not any(NUMERAL.search(clean(answer)) for answer in answers):
        pair = next((pair for pair in _RSVQA_WORDS if {normalise(answer) for answer in answers} <= set(pair)), ())
        return answer_truth(answers, vocabulary or pair, Rules("whole"))
    if unit is None:
        unit = "m2" if kind == "rsvqa" and any("m2" in clean(answer) for answer in answers) else ""
    found = Ranges((), unit, kind, range_numbers)
    names = []
    for answer in answers:
        name, reason = found.read(answer)
        names.append(known(name, f"the true answer {answer!r} falls into no range: {reason}"))
    return found._replace(names=tuple(names))


def _number_score(text: str, truth: Numbers, config: NumericMatchConfig) -> Score:
    if config.reading == "first_token":
        number = known(first_token_number(text), "what precedes the first blank is no number")
        if abs(number) > LARGEST:
            raise Unreadable(f"the number is beyond {LARGEST:g}")
    else:
        number = known(*read_number(text, truth.unit))
    nearest = truth.values[0]
    if len(truth.values) > 1:
        nearest = min(truth.values, key=lambda target: abs(number - target))
    error = abs(number - nearest)
    correct = float(within(number, nearest, config.abs_tol, config.rel_tol))
    mra = relative_accuracy(number, nearest)
    raw = {"correct": correct, "abs_error": error, "predicted": number, "target": nearest, "mra": mra}
    why = "" if correct else f"answered {number:g}, not {nearest:g}"
    return Score(reward_of(number, nearest, config), raw=raw, stats=_stats(correct, 1.0, error, mra), reason=why)


@lru_cache(maxsize=16384)
def _range_score(text: str, truth: Ranges | Truth) -> Score:
    if isinstance(truth, Truth):
        found = score_answer(text, truth)
        return replace(found, stats=_stats(found.raw["correct"], float(found.status is Status.OK)))
    name = known(*truth.read(text))
    correct = float(name in truth.names)
    why = "" if correct else f"answered {name!r}, not {truth.names[0]!r}"
    return Score(correct, raw={"correct": correct}, stats=_stats(correct, 1.0), reason=why)


def _unit_of(sample: Sample, config: NumericMatchConfig) -> str | None:
    named = config.unit if config.unit is not None else sample.reference.get("unit")
    if named is None:
        return None
    unit = parse_unit(named) if isinstance(named, str) else None
    if unit is None:
        raise ValueError(
            f"the unit {named!r:.80} is not known; use m, km, m2, ha, km2, %, ratio or the name of what is counted"
        )
    return unit


def _errors(sums: Sums) -> dict[str, float | None]:
    squared = share(sums, "squared_error", "measured")
    return {
        "mae": share(sums, "abs_error", "measured"),
        "rmse": None if squared is None else math.sqrt(squared),
    }


ERRORS = SumMetric(("mae", "rmse"), _errors, bounds=(0.0, math.inf))
MRA = quotients({"mra": ("mra", "n")})


class NumericMatch(PerQuestion[Numbers | Ranges | Truth]):
    """Whether the number in an answer is right, and how far off it is."""

    name = "numeric_match"
    card = Card(
        summary=(
            "Reads the only number of an answer, which may have the sample's unit, and compares it with the true number or "
            "the true range, such as 10 to 20."
        ),
        range="correct: 0 or 1; abs_error: the sample's unit, from 0; mra: [0, 1]",
        transform=(
            "exact: 1 if equal; tolerance: 1 within abs_tol or rel_tol; exponential: exp(-|p - t| / "
            "tolerance); mra: the mean relative accuracy."
        ),
        source=(
            "ranges: syvlo/RSVQA (arXiv 2003.07333) and CDVQA (arXiv 2112.06343); mra: VSI-Bench (arXiv 2412.14171)."
        ),
        gaming=(
            "Several numbers, another unit, and words that change a number are invalid. A constant near the typical "
            "count can get a high value: compare with majority."
        ),
    )
    Config = NumericMatchConfig
    worst_facts = {"raw": {"correct": 0.0, "mra": 0.0}, "stats": _stats()}

    def truth(self, sample: Sample) -> Numbers | Ranges | Truth:
        config: NumericMatchConfig = self.config
        answers, unit = true_answers(sample), _unit_of(sample, config)
        if config.ranges is None:
            return _true_numbers(answers, unit)
        vocabulary = texts_of(sample.reference, "vocabulary")
        return _true_ranges(answers, vocabulary, unit, config.ranges, config.range_numbers)

    def compare_text(self, truth: Numbers | Ranges | Truth, text: str) -> Score:
        config: NumericMatchConfig = self.config
        if len(text) > LONGEST:
            raise Unreadable(TOO_LONG)
        if config.reading == "strict":  # normalising would mend what VSI-Bench counts as wrong, such as a leading blank
            text = known(*extract_answer(text, config.extract, states=truth.stated))
        if isinstance(truth, Numbers):
            return _number_score(text, truth, config)
        return (_range_score if len(text) <= LONGEST_CACHED else _range_score.__wrapped__)(text, truth)

    def metrics(self) -> Sequence[Metric]:
        config: NumericMatchConfig = self.config
        keys = ("oa", "aa", *(f"oa/{kind}" for kind in config.metric_kinds))
        common = (ACCURACY, VALID_RATE, KindAccuracy(keys, merge=config.merge_kinds))
        return common if config.ranges else (*common, ERRORS, MRA)
