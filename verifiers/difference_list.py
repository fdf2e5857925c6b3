"""Open change answers as lists of atomic changes, matched one to one with the true ones: the ``difference_list`` verifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answers import AnswerConfig, Extract, normalise
from rsw_rewards.verifiers.contradictions import States
from rsw_rewards.verifiers.labels import answer_body, read_json, scalars, set_f1
from rsw_rewards.verifiers.texts import PerText

MOST_CHANGES = 100
"""Entries of a list that are read."""
LARGEST_COUNT = 1_000_000
METRIC_KEYS = ("difference_f1", "difference_precision", "difference_recall")

Detail = Literal["where", "count"]

_SPELLINGS = {
    "appeared": "added built constructed emerged new",
    "disappeared": "removed demolished destroyed cleared vanished gone",
    "grew": "grown expanded enlarged increased widened",
    "shrank": "shrunk reduced decreased",
    "moved": "relocated",
    "altered": "changed modified replaced",
}
_CHANGES = {word: change for change, words in _SPELLINGS.items() for word in words.split()}
_CELLS = {
    f"{row}-{column}": "-".join(part for part in (row, column) if part != "center") or "center"
    for row in ("top", "center", "bottom")
    for column in ("left", "center", "right")
}
_CELLS |= {name: name for name in _CELLS.values()}
_BULLET = re.compile(r"[-*\u2022]\s+(?=\S)")


@dataclass(frozen=True, slots=True)
class Change:
    """One atomic change, as it is compared."""

    object: str
    change: str
    where: str | None = None
    """Cell of a 3 x 3 grid: top-left, top, top-right, left, center, right, bottom-left, bottom or bottom-right."""
    count: int | None = None

    def __str__(self) -> str:
        fields = [self.object, self.change, self.where or "-", str(self.count or "-")]
        while fields[-1] == "-":
            fields.pop()
        return " | ".join(fields)


def parse_cell(text: str) -> str:
    """A cell of the 3 x 3 grid in its one spelling: ``Top_Center`` is ``top``, ``center-center`` is ``center``.

    Raises:
        ValueError: it is none of the nine.
    """
    cell = _CELLS.get(re.sub(r"centre|middle", "center", re.sub(r"[ _-]+", "-", normalise(text))))
    if cell is None:
        raise ValueError(f"{text[:40]!r} is no cell of the 3 x 3 grid (top-left, top, .., center, .., bottom-right)")
    return cell


def parse_change(record: Any, synonyms: Mapping[str, str] | None = None) -> Change:
    """A change from ``{"object": .., "change": .., "where"?: .., "count"?: ..}``.

    Objects are normalised, one trailing ``s`` is taken off, and ``synonyms`` (of singulars) are applied; the change is put in
    its common spelling (``built`` is ``appeared``) where it has one.

    Raises:
        ValueError: another key, a field of another kind, or one that is missing.
    """
    if not isinstance(record, Mapping):
        raise ValueError("a change is an object with 'object' and 'change'")
    if unknown := sorted(str(key)[:40] for key in record.keys() - {"object", "change", "where", "count"}):
        raise ValueError(f"a change has no field {unknown[0]!r}")
    texts = []
    for key in ("object", "change"):
        value = record.get(key)
        if not isinstance(value, str) or not normalise(value):
            raise ValueError(f"the {key!r} of a change is missing or not a text")
        texts.append(normalise(value))
    where, count = record.get("where"), record.get("count")
    if where is not None and not isinstance(where, str):
        raise ValueError("the 'where' of a change is not a text")
    if count is not None and (type(count) is not int or not 1 <= count <= LARGEST_COUNT):
        raise ValueError(f"the 'count' of a change is not a whole number from 1 to {LARGEST_COUNT}")
    thing, change = singular(texts[0]), texts[1]
    thing = (synonyms or {}).get(thing, thing)
    return Change(thing, _CHANGES.get(change, change), None if where is None else parse_cell(where), count)


def singular(noun: str) -> str:
    """A noun without one trailing ``s``; ``grass`` stays."""
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") and len(noun) > 1 else noun


def parse_changes(
    text: str,
    extract: Extract = "auto",
    synonyms: Mapping[str, str] | None = None,
    states: States | None = None,
) -> tuple[Change, ...]:
    """The changes that a text lists, in its order.

    Forms: a JSON list of objects (see :func:`parse_change`), or one line ``object | change | where | count`` for each change, of
    which ``where`` and ``count`` may be left out or be ``-``. ``none`` and ``[]`` say that nothing changed.

    Raises:
        Unreadable: nothing was answered, an entry is of another form (in words, with its place), or there are over 100.
    """
    body = answer_body(text, extract, states)
    if body[0] == "{":
        raise Unreadable("a JSON answer must be a list of changes")
    if in_json := body[0] == "[":
        entries = read_json(body)
    else:
        entries = [] if normalise(body) == "none" else [line for line in body.splitlines() if line.strip()]
    if len(entries) > MOST_CHANGES:
        raise Unreadable(f"{len(entries)} changes are more than the {MOST_CHANGES} that are read")
    found = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(parse_change(entry if in_json else _split(entry), synonyms))
        except ValueError as error:
            raise Unreadable(f"entry {number}: {error}") from None
    return tuple(found)


def _split(line: str) -> dict[str, Any]:
    """The record of a line. Raises ``ValueError`` where it has not two to four fields."""
    fields = [field.strip() for field in _BULLET.sub("", line.strip(), count=1).split("|")]
    if not 2 <= len(fields) <= 4:
        raise ValueError(f"{line.strip()[:40]!r} has not the form 'object | change | where | count'")
    record: dict[str, Any] = dict(zip(("object", "change", "where", "count"), fields, strict=False))
    for key in ("where", "count"):
        if record.get(key) in ("", "-"):
            del record[key]
    if re.fullmatch(r"[0-9]{1,7}", record.get("count", "")):
        record["count"] = int(record["count"])
    return record


def agrees(true: Change, listed: Change, details: Sequence[Detail] = ("where", "count")) -> bool:
    """Whether a listed change is a true one: same object, same change, and the same details where the truth states them.

    A listed change without a count is one of one thing.
    """
    return (
        (true.object, true.change) == (listed.object, listed.change)
        and ("where" not in details or true.where is None or true.where == listed.where)
        and ("count" not in details or true.count is None or true.count == (listed.count or 1))
    )


def match_changes(
    true: Sequence[Change], listed: Sequence[Change], details: Sequence[Detail] = ("where", "count")
) -> list[tuple[int, int]]:
    """Pairs (true, listed) of the largest one-to-one matching of changes that agree, so that a repeated entry counts once."""
    if not true or not listed:
        return []
    from scipy.optimize import linear_sum_assignment

    same = np.array([[agrees(one, other, details) for other in listed] for one in true])
    rows, columns = linear_sum_assignment(same, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if same[row, column]]


def difference_metrics(sums: Sums) -> Numbers:
    """F1, precision and recall from summed ``matched``, ``listed`` and ``true`` changes.

    None where the truth leaves them undefined (no change to find, and none listed); the precision of nothing listed is 0 where
    there was change.
    """
    matched, listed, true = (float(sums.get(name, np.zeros(()))) for name in ("matched", "listed", "true"))
    return {
        "difference_f1": 2 * matched / (listed + true) if listed + true else None,
        "difference_precision": matched / listed if listed else (0.0 if true else None),
        "difference_recall": matched / true if true else None,
    }


class DifferenceList(PerText[tuple[Change, ...]]):
    """F1 between the changes listed and the true ones."""

    name = "difference_list"
    tasks = frozenset({Task.CHANGE_QA, Task.CHANGE_CAPTION})
    card = Card(
        summary=(
            "Compares a list of changes with reference.changes: JSON objects {object, change, where?, count?}, or "
            "lines 'object | change | where | count'."
        ),
        range="f1 over one-to-one matches: [0, 1]; 1 if both lists are empty, 0 if one of them is",
        transform="none",
        source="precision and recall over atomic statements under a largest one-to-one matching; the format is this project's",
        gaming=(
            "Repeating an entry, listing every object or one change in all nine cells costs precision, since "
            "every true change is matched once at most."
        ),
    )

    class Config(AnswerConfig):
        """Configuration of ``difference_list``."""

        details: tuple[Detail, ...] = Field(
            ("where", "count"), description="what must agree beside object and change, where the truth states it"
        )
        synonyms: dict[str, str] = Field(default_factory=dict, description="object -> the object that it stands for")

    reported = (SumMetric(METRIC_KEYS, difference_metrics, bounds=(0.0, 1.0)),)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._synonyms = {
            singular(normalise(word)): singular(normalise(to)) for word, to in self.config.synonyms.items()
        }

    def truth(self, sample: Sample) -> tuple[Change, ...] | Score:
        changes = sample.reference.get("changes")
        if changes is None:
            return Score.not_applicable("the sample has no list of true changes")
        if not isinstance(changes, (list, tuple)):
            raise ValueError("the true changes are not a list")
        return tuple(parse_change(change, self._synonyms) for change in changes)

    def _stated(self, words: str) -> frozenset[Change] | None:
        try:
            return frozenset(parse_changes(words, "whole", self._synonyms))
        except Unreadable:
            return None

    def compare_text(self, truth: tuple[Change, ...], text: str) -> Score:
        listed = parse_changes(text, self.config.extract, self._synonyms, self._stated)
        pairs = match_changes(truth, listed, self.config.details)
        matched = len(pairs)
        f1 = set_f1(matched, len(listed) - matched, len(truth) - matched)
        missed = sorted(set(range(len(truth))) - {row for row, _ in pairs})
        wrong = sorted(set(range(len(listed))) - {column for _, column in pairs})
        reason = "; ".join(
            f"{what}: {', '.join(str(entries[i])[:80] for i in left[:4])}"
            for what, entries, left in (("missed", truth, missed), ("wrong", listed, wrong))
            if left
        )
        return Score(
            f1, raw={"f1": f1}, stats=scalars(matched=matched, listed=len(listed), true=len(truth)), reason=reason
        )

    def worst(self, truth: tuple[Change, ...], reason: str) -> Score:
        return Score.invalid(
            reason, raw={"f1": 0.0}, stats=scalars(matched=0, listed=max(len(truth), 1), true=len(truth))
        )
