"""Changed cells of a 3 x 3 grid, per class, as ChangeChat asks for them: the ``grid_localization`` verifier."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product

import numpy as np

from rsw_rewards.core.metric import Numbers, SumMetric, Sums
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.verifiers.answer_metrics import VALID_RATE, precision_recall_f1
from rsw_rewards.verifiers.answers import PerQuestion, extract_answer, normalise, true_answer
from rsw_rewards.verifiers.counts import CLASSES
from rsw_rewards.verifiers.texts import known

CELLS = tuple(f"{row}-{column}" for row, column in product(("top", "center", "bottom"), ("left", "center", "right")))
"""The nine cells, row by row."""

Cells = Mapping[str, frozenset[str]]
"""Class -> the cells in which it changed."""

_LIST = {name: re.compile(rf"(?<!\w)['\"]?{name[:-1]}s?['\"]? ?:? ?\[([^\[\]]*)\]") for name in CLASSES}
_LONGEST = 4000  # characters; nine quoted labels twice take 300


@lru_cache(maxsize=4096)
def read_cells(text: str) -> tuple[Cells | None, str]:
    """The cells that an answer lists for every class.

    Read is ``roads ['top-left', 'top-center'] buildings []``: one list in brackets behind every class, labels between commas with
    or without quotes, with a colon or braces if there are any, and with other words around it.

    Args:
        text: lower case, as :func:`rsw_rewards.verifiers.answers.normalise` gives it.

    Returns:
        Class -> labels and ``""``, or None and the reason: no list or two of them for a class, a label that is no cell.
    """
    if len(text) > _LONGEST:
        return None, f"an answer of {len(text)} characters is no list of cells"
    cells = {}
    for name, pattern in _LIST.items():
        lists = pattern.findall(text)
        if len(lists) != 1:
            return None, f"{name} have {len(lists) or 'no'} lists of cells in {text[:80]!r}"
        labels = [label.strip(" '\"").replace(" ", "-").replace("_", "-") for label in lists[0].split(",")]
        if labels == [""]:
            labels = []
        for label in labels:
            if label not in CELLS:
                return None, f"{label[:40]!r} is no cell of the grid; cells are {', '.join(CELLS)}"
        cells[name] = frozenset(labels)
    return cells, ""


_COLUMNS = ("tp", "fp", "fn", "jaccard", "jaccard_empty1", "subset", "wrong")


def label_counts(true: np.ndarray, predicted: np.ndarray) -> list[float]:
    """What the multi-label metrics of one sample are summed from, in the order of the columns of ``stats["cells"]``.

    Args:
        true: (labels,) bool.
        predicted: (labels,) bool.

    Returns:
        True positives, false positives, false negatives, Jaccard index (0 where both are empty, as scikit-learn's
        ``jaccard_score(average="samples")`` has it), Jaccard index with 1 there, whether all labels are right, wrong labels.
    """
    tp, fp, fn = (int((a & b).sum()) for a, b in ((true, predicted), (~true, predicted), (true, ~predicted)))
    union = tp + fp + fn
    jaccard = tp / union if union else 0.0
    return [tp, fp, fn, jaccard, jaccard if union else 1.0, float(fp + fn == 0), fp + fn]


KEYS = ("micro_precision", "micro_recall", "micro_f1", "jaccard_empty1", "jaccard", "subset_accuracy", "hamming")
GRID_KEYS = (*KEYS, *(f"{key}/{name}" for name in CLASSES for key in KEYS))


def _numbers(sums: Sums) -> Numbers:
    n = float(sums["n"])
    if not n or "cells" not in sums:
        return dict.fromkeys(GRID_KEYS)
    numbers: dict[str, float | None] = {}
    labels = (len(CELLS) * len(CLASSES), *(len(CELLS) for _ in CLASSES))
    for suffix, width, row in zip(("", *(f"/{name}" for name in CLASSES)), labels, sums["cells"], strict=True):
        tp, fp, fn, jaccard, jaccard_empty1, subset, wrong = (float(value) for value in row)
        found = (*precision_recall_f1(tp, fp, fn), jaccard_empty1 / n, jaccard / n, subset / n, wrong / (n * width))
        numbers |= {f"{key}{suffix}": value for key, value in zip(KEYS, found, strict=True)}
    return numbers


def _flags(cells: Cells) -> np.ndarray:
    """(classes, cells) bool."""
    return np.array([[cell in cells[name] for cell in CELLS] for name in CLASSES])


def _outcome(true: np.ndarray, predicted: np.ndarray, valid: bool) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    rows = [label_counts(true.ravel(), predicted.ravel())]
    rows += [label_counts(*pair) for pair in zip(true, predicted, strict=True)]
    place = _COLUMNS.index("jaccard_empty1")
    raw = {f"jaccard_empty1/{name}": row[place] for name, row in zip(CLASSES, rows[1:], strict=True)}
    return raw, {"cells": np.array(rows), "valid": np.asarray(float(valid))}


class GridLocalization(PerQuestion[Cells]):
    """Which cells of a 3 x 3 grid changed, for roads and for buildings."""

    name = "grid_localization"
    card = Card(
        summary=(
            "Multi-label metrics over the nine cells of a grid: per class, and without a class's name over the eighteen"
            " labels of both classes together."
        ),
        range="[0, 1]; hamming is a loss, the share of wrong labels",
        transform="mean over the classes of the Jaccard index, 1 if both lists are empty",
        source="hanlinwu/DeltaVLM scripts/test-loc.ipynb (arXiv 2507.22346) with scikit-learn's multi-label metrics",
        gaming=(
            "jaccard is scikit-learn's average over samples, in which two empty lists count 0. With unchanged pairs "
            "even the truth gets less than 1: read jaccard_empty1."
        ),
    )
    reported = (SumMetric(GRID_KEYS, _numbers, bounds=(0.0, 1.0)), VALID_RATE)

    def truth(self, sample: Sample) -> Cells:
        cells, reason = read_cells(extract_answer(true_answer(sample), "whole").answer or "")
        return known(cells, f"the true answer lists no cells: {reason}")

    def compare_text(self, truth: Cells, text: str) -> Score:
        answer = extract_answer(text, self.config.extract, states=lambda words: read_cells(normalise(words))[0])
        found = known(*read_cells(known(*answer)))
        raw, stats = _outcome(_flags(truth), _flags(found), valid=True)
        return Score(sum(raw.values()) / len(raw), raw=raw, stats=stats, reason=_difference(truth, found))

    def worst(self, truth: Cells, reason: str) -> Score:
        flags = _flags(truth)
        raw, stats = _outcome(flags, ~flags, valid=False)
        return Score.invalid(reason, raw=raw, stats=stats)


def _difference(true: Cells, found: Cells) -> str:
    parts = []
    for name in CLASSES:
        parts += [f"{name} miss {', '.join(sorted(true[name] - found[name]))}"] if true[name] - found[name] else []
        parts += [f"{name} need no {', '.join(sorted(found[name] - true[name]))}"] if found[name] - true[name] else []
    return "; ".join(parts)
