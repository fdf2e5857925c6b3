"""Counts of new roads and buildings in one sentence, as ChangeChat asks for them: the ``change_counts`` verifier."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answer_metrics import ACCURACY, VALID_RATE
from rsw_rewards.verifiers.answers import PerQuestion, extract_answer, normalise, true_answer
from rsw_rewards.verifiers.quantities import LONGEST, NUMERAL, TOO_LONG, WORDS, changed_by, read_number
from rsw_rewards.verifiers.texts import known

CLASSES = ("roads", "buildings")
"""The classes of ChangeChat whose changes are counted and located."""

_THINGS = r"(?:roads?|buildings?)"
_NEITHER = re.compile(rf"\bno (?:new |changes? in (?:the )?)?{_THINGS} (?:or|and) (?:new )?{_THINGS}\b")
_COUNT = re.compile(rf"(?<![\w.,/'-])(?P<count>no|\d{{1,9}}|{'|'.join(WORDS)}) (?:new )?(?P<thing>{_THINGS})\b")


@lru_cache(maxsize=4096)
def read_counts(text: str) -> tuple[Mapping[str, float] | None, str]:
    """The counts that a sentence gives for every class.

    Read are "2 new roads and 5 new buildings", "no new roads and 5 new buildings", "no new roads or buildings" and "there are no
    changes in roads or buildings", numbers in digits or words, with other words around them.

    Returns:
        Class -> count and ``""``, or None and the reason: a class is missing, counted twice, numbers are left over, or words change
        a count ("at least 2 new roads").
    """
    if _NEITHER.search(text):
        counts = {name: [0.0] for name in CLASSES}
        rest = _NEITHER.sub(" ", text)
    else:
        counts, rest = {name: [] for name in CLASSES}, _COUNT.sub(" ", text)
        for match in _COUNT.finditer(text):
            word = match["count"]
            name = "roads" if match["thing"].startswith("road") else "buildings"
            counts[name].append(0.0 if word == "no" else float(word) if word.isdigit() else WORDS[word])
    for name, found in counts.items():
        if len(found) != 1:
            return None, f"{name} are {'counted more than once' if found else 'not counted'} in {text[:80]!r}"
    if words := changed_by(_COUNT.sub("0", _NEITHER.sub("0", text))):
        return None, f"{text[:80]!r} does not give its counts themselves, but says {words!r}"
    if NUMERAL.search(rest) or _COUNT.search(rest):
        return None, f"{text[:80]!r} holds other numbers than the counts"
    return {name: found[0] for name, found in counts.items()}, ""


def read_single(text: str) -> tuple[Mapping[str, float] | None, str]:
    """The one number of a text, under the name ``""`` that a count of no class has; else None and the reason."""
    number, reason = read_number(text)
    return (None if number is None else {"": number}), reason


def _errors(sums: Sums) -> Numbers:
    table = sums.get("errors", np.zeros((3, 3)))
    numbers: dict[str, float | None] = {}
    for suffix, (absolute, squared, n) in zip(("", *(f"/{name}" for name in CLASSES)), table, strict=True):
        numbers[f"mae{suffix}"] = float(absolute / n) if n else None
        numbers[f"rmse{suffix}"] = math.sqrt(squared / n) if n else None
    return numbers


ERROR_KEYS = ("mae", "rmse", "mae/roads", "rmse/roads", "mae/buildings", "rmse/buildings")


def _stats(correct: bool, valid: bool, errors: Mapping[str, float]) -> dict[str, np.ndarray]:
    table = np.zeros((3, 3))
    for name, error in errors.items():
        for row in (0, *([1 + CLASSES.index(name)] if name else [])):
            table[row] += (error, error**2, 1.0)
    return {"correct": np.asarray(float(correct)), "valid": np.asarray(float(valid)), "errors": table}


class ChangeCounts(PerQuestion[Mapping[str, float]]):
    """How far counted roads and buildings are off."""

    name = "change_counts"
    card = Card(
        summary=(
            "Reads the numbers of new roads and new buildings from a sentence, and compares them with those of the "
            "true sentence. If that names neither, it is one number."
        ),
        range="errors: counts, from 0; correct: 0 or 1 (all counts right)",
        transform="mean over the classes of 1 / (1 + |p - t|)",
        source="hanlinwu/DeltaVLM scripts/test-count.ipynb (arXiv 2507.22346), which stops at a sentence of another form",
        gaming=(
            "Lists, ranges and words that change a number are invalid. Half of the pairs have no change: compare with "
            "the baselines, and read the errors beside valid_rate."
        ),
    )
    reported = (ACCURACY, VALID_RATE, SumMetric(ERROR_KEYS, _errors, bounds=(0.0, math.inf)))
    worst_facts = {"raw": {"correct": 0.0}, "stats": _stats(False, False, {})}

    def truth(self, sample: Sample) -> Mapping[str, float]:
        answer = extract_answer(true_answer(sample), "whole").answer or ""
        counts, reason = (read_counts if re.search(_THINGS, answer) else read_single)(answer)
        return known(counts, f"the true answer holds no counts: {reason}")

    def compare_text(self, truth: Mapping[str, float], text: str) -> Score:
        read = read_single if "" in truth else read_counts
        if len(text) > LONGEST:
            raise Unreadable(TOO_LONG)
        answer = known(*extract_answer(text, self.config.extract, states=lambda words: read(normalise(words))[0]))
        found = known(*read(answer))
        errors = {name: abs(found[name] - count) for name, count in truth.items()}
        right = not any(errors.values())
        raw = {"correct": float(right)} | {
            f"abs_error/{name}" if name else "abs_error": e for name, e in errors.items()
        }
        value = sum(1 / (1 + error) for error in errors.values()) / len(errors)
        why = "" if right else f"counted {_said(found)}, not {_said(truth)}"
        return Score(value, raw=raw, stats=_stats(right, True, errors), reason=why)


def _said(counts: Mapping[str, float]) -> str:
    return " and ".join(f"{count:g} {name}".strip() for name, count in counts.items())
