"""From a score table to what ``summary.json`` says of it: metrics with intervals, slices, status counts, and whether anything was valid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import comb
from typing import Any

import numpy as np
import pandas as pd

from rsw_rewards.core.metric import FeatureLookup, Metric
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Named, Verifier, named_metrics
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.statistics import (
    COUNTED,
    NO_VALID_OUTPUT,
    Estimate,
    estimates,
    mean_estimate,
    paired_difference,
)

MOST_REASONS = 3
"""Reasons that are listed, the most common first."""
LONGEST_REASON = 200
"""Characters of a reason that are shown; the same are compared."""

_DECISIVE = (Status.INVALID_OUTPUT, Status.OK, Status.ERROR, Status.TIMEOUT, Status.NOT_APPLICABLE)
"""The first of these that any component gave an output is what became of it: one that is invalid to a component is not valid."""

_OUTPUT = ["sample", "group", "candidate"]
"""The columns that tell an output from others."""

_NAME = re.compile(
    r"""
      (?<!\w)'(?:\\.|[^'\\])*'?     # a quoted text; a reason may be cut off within it
    | (?<!\w)"(?:\\.|[^"\\])*"?
    | \([^()]*\)                    # a list of names or values, an aside
    | \S*[\d/\\]\S*                 # a number, a path
    | \S+\.\w\S*                    # the name of a file
    """,
    re.VERBOSE,
)
_NAMES = re.compile(r"_(?:(?:\s|,|or|and)*_)+")

Verifiers = Mapping[str, Verifier]
"""Component name -> verifier, as built for a protocol."""


def summarise(
    protocol: Protocol,
    verifiers: Verifiers,
    table: ScoreTable,
    samples: Sequence[Sample],
    features: FeatureLookup | None = None,
) -> dict[str, Any]:
    """The part of ``summary.json`` that follows from the table."""
    candidates = int(table.frame.groupby("group")["candidate"].nunique().max()) if len(table) else 0
    metrics = metrics_of(protocol, verifiers, table, features)
    summary: dict[str, Any] = {
        "protocol": protocol.name,
        "n": len(samples),
        "n_scenes": len({sample.scene for sample in samples}),
        "metrics": metrics,
        "slices": slices_of(protocol, verifiers, table, metrics, features),
        "status": status_counts(table),
        "nothing_valid": nothing_valid(table),
    }
    if candidates > 1:
        summary["candidates"] = {"k": candidates, "metrics_are": f"mean@{candidates}"}
        valued = next((label for label, verifier in verifiers.items() if verifier.rewarding), None)
        if valued is not None:
            summary["candidates"] |= {"value_component": valued, **best_of(table, valued, candidates)}
    return summary


def valid_rate(table: ScoreTable) -> float | None:
    """Share of the counted rows whose output could be scored; None without such rows."""
    counted = table.frame["status"].isin(COUNTED)
    return float((table.frame["status"] == Status.OK).sum() / counted.sum()) if counted.any() else None


def too_few_valid(metric: Metric, rate: float | None) -> str:
    """Why a number that leaves invalid outputs out is not shown at a valid rate; empty where it is.

    Such a metric says by ``least_valid`` which share it needs: leaving hard samples out would make a distance between sets better.
    """
    least = metric.least_valid
    if rate is None or rate >= least:
        return ""
    return (
        f"{rate:.1%} of the outputs are valid, and it is not shown below {least:.0%}, since it leaves the others out, which makes it"
        " better; value_of_valid has it over the valid ones"
    )


def _reported(protocol: Protocol, verifiers: Verifiers) -> list[Named]:
    """The metrics of which the protocol reports a number."""
    known = set(protocol.named)
    return [one for one in named_metrics(verifiers) if not protocol.only_named or known & set(one.names.values())]


def metrics_of(
    protocol: Protocol,
    verifiers: Verifiers,
    table: ScoreTable,
    features: FeatureLookup | None = None,
    intervals: bool = True,
) -> dict[str, dict[str, Any]]:
    """All numbers of a protocol over a table: key -> entry of ``summary.json``, headline keys first; the others are marked ``diagnostic``.

    ``intervals`` cost most of the time where a set distance is computed anew for every part of the scenes.
    """
    found: dict[str, dict[str, Any]] = {}
    tables = {label: table.verifier(label) for label in verifiers}
    for label, metric, names in _reported(protocol, verifiers):
        rows = tables[label]
        rate = valid_rate(rows)
        n = int(rows.frame["status"].isin(COUNTED).sum())
        why = "" if n or not len(rows) else str(rows.frame["reason"].iloc[0])
        try:
            numbers = estimates(metric, rows, features, intervals)
        except KeyError as error:  # features of another process that were not kept
            numbers = {key: Estimate(None, None, 0, str(error.args[0])) for key in metric.keys}
        few = too_few_valid(metric, rate)
        notes = metric.notes(rows.frame)
        for key, name in names.items():
            estimate = numbers[key]
            if name in protocol.named or not protocol.only_named:
                reason = why or notes.get(key, "") or estimate.reason
                found[name] = replace(estimate, reason=reason).to_json(n=n)
                if rate is not None and rate < 1.0:
                    found[name]["valid_rate"] = rate
                if few and estimate.value is not None:
                    found[name] |= {"value": None, "ci95": None, "reason": few, "value_of_valid": estimate.value}
                if name not in protocol.headline:
                    found[name]["diagnostic"] = True
    ordered = [key for key in protocol.named if key in found]
    return {key: found[key] for key in [*ordered, *(key for key in found if key not in ordered)]}


def slices_of(
    protocol: Protocol,
    verifiers: Verifiers,
    table: ScoreTable,
    metrics: Mapping[str, Mapping[str, Any]],
    features: FeatureLookup | None = None,
) -> dict[str, dict[str, Any]]:
    """The numbers again for every ``kind`` of sample that the table has, and for the slices of ``protocol.slice_by``.

    A slice of all rows has the ``metrics`` of the table.
    """
    if not protocol.slices:
        return {}
    kinds = sorted({kind for kind in table.frame["kind"] if isinstance(kind, str)})
    parts = {kind: table.frame["kind"] == kind for kind in kinds if len(kinds) > 1 or kind}
    if protocol.slice_by is not None:
        key, *names = protocol.slice_by
        for name, flag in zip(names, (1.0, 0.0), strict=True):
            if (rows := table.raw(key) == flag).any():
                parts[name] = rows
    slices = {}
    for name, rows in parts.items():
        found = metrics if rows.all() else metrics_of(protocol, verifiers, table.where(rows), features)
        # Numbers of single kinds, such as oa/<kind>, are those of the other slices or this one's again.
        slices[name] = {key: dict(entry) for key, entry in found.items() if not set(key.split("/")[1:]) & set(kinds)}
    return slices


def status_counts(table: ScoreTable) -> dict[str, dict[str, int]]:
    """Component -> status -> number of rows; every status is there."""
    counts = Counter(zip(table.frame["verifier"], table.frame["status"], strict=True))
    return {label: {str(status): counts[label, status] for status in Status} for label in table.names}


def best_of(table: ScoreTable, label: str, k: int) -> dict[str, dict[str, Any]]:
    """``best@j`` for j = 2, 4, 8, .. and ``k``: what the best of j candidates is worth, by the value of one component.

    The mean over samples of the expected best of j candidates drawn without replacement from the k that there are, which is
    unbiased for any j; for values of 0 and 1 it is pass@j of Chen et al. 2021 (arXiv 2107.03374). Candidates whose score failed are
    left out; where fewer than j are left, all of them are drawn.

    Returns:
        Key -> entry as in ``metrics``, ``n`` being samples.
    """
    rows = table.verifier(label).frame
    rows = rows[rows["value"].notna()].sort_values(["sample", "value"], kind="stable")
    by_sample = rows.groupby("sample", sort=False)
    # Of n values in rising order, the one at place i (from 0) is the best of C(i, j - 1) of the C(n, j) ways to draw j.
    place, available = by_sample.cumcount().tolist(), by_sample["value"].transform("size").tolist()
    values = rows["value"].to_numpy(dtype=np.float64)
    scenes = by_sample["scene"].first().tolist()
    sample = by_sample.ngroup().to_numpy()
    found = {}
    for drawn in sorted({k, *(2**power for power in range(1, k.bit_length()) if 2**power < k)}):
        odds = [_best_odds(i, n, min(drawn, n)) for i, n in zip(place, available, strict=True)]
        best = np.bincount(sample, weights=values * odds, minlength=len(scenes))
        estimate = mean_estimate(best, scenes, (0.0, 1.0))
        if not (rows["status"] == Status.OK).any():
            estimate = replace(estimate, ci95=None, reason=NO_VALID_OUTPUT)
        found[f"best@{drawn}"] = estimate.to_json(n=len(scenes))
    return found


@cache
def _best_odds(place: int, n: int, drawn: int) -> float:
    return comb(place, drawn - 1) / comb(n, drawn)


def compare(
    protocol: Protocol,
    verifiers: Verifiers,
    before: ScoreTable,
    after: ScoreTable,
    features: FeatureLookup | None = None,
    keys: Iterable[str] | None = None,
) -> dict[str, Estimate]:
    """Paired differences ``after - before`` of a protocol's numbers, key -> estimate."""
    wanted = set(keys) if keys is not None else None
    out: dict[str, Estimate] = {}
    for label, metric, names in _reported(protocol, verifiers):
        if wanted is not None and not wanted & set(names.values()):
            continue
        sides = before.verifier(label), after.verifier(label)
        if few := next(filter(None, (too_few_valid(metric, valid_rate(side)) for side in sides)), ""):
            difference = {key: Estimate(None, None, 0, few) for key in metric.keys}
        else:
            difference = paired_difference(metric, *sides, features)
        out |= {name: difference[key] for key, name in names.items() if wanted is None or name in wanted}
    return out


def nothing_valid(table: ScoreTable, components: Collection[str] = ()) -> list[dict[str, Any]]:
    """The tasks of which no output is valid, each with its most common reasons; empty where every task has a valid output.

    An output is valid if a component has scored it and none calls it invalid.

    Args:
        table: scores of outputs, of one or more components.
        components: those that decide, such as the ones with a weight; all where none is named.

    Returns:
        Per task ``task``, ``outputs`` (how many there are) and ``reasons``, at most :data:`MOST_REASONS`: each with ``outputs``
        (how many have it), ``status``, and ``sample`` and ``reason`` of the first of them. Reasons that differ in names and
        numbers alone are one. A table without rows gives one record without a task.

    >>> nothing_valid(ScoreTable())
    [{'task': '', 'outputs': 0, 'reasons': []}]
    """
    frame = table.frame[table.frame["verifier"].isin(components)] if components else table.frame
    if frame.empty:
        return [{"task": "", "outputs": 0, "reasons": []}]
    found = []
    for task, rows in frame.groupby("task", sort=False):
        rank = rows["status"].map({status: place for place, status in enumerate(_DECISIVE)})
        outputs = rank.groupby([rows[key] for key in _OUTPUT])
        became = outputs.transform("min")
        if (became == _DECISIVE.index(Status.OK)).any():
            continue
        told = rows[rank == became].assign(status=rows["status"].astype(str))
        reasons = common_reasons(told, ("status",), MOST_REASONS)
        found.append({"task": str(task), "outputs": outputs.ngroups, "reasons": reasons})
    return found


def common_reasons(rows: pd.DataFrame, by: Sequence[str], most: int) -> list[dict[Any, Any]]:
    """The most common reasons of score rows; those that differ in names and numbers alone are one.

    Args:
        rows: of a score table.
        by: columns in which the rows of one reason agree.
        most: reasons at most.

    Returns:
        For each ``outputs`` (how many have it), the columns ``by``, and ``sample`` and ``reason`` of the first.
    """
    reason = rows["reason"].map(_shown)
    told = rows.assign(reason=reason, kind=reason.map(kind_of)).drop_duplicates([*_OUTPUT, *by, "kind"])
    kinds = told.groupby([*by, "kind"], sort=False)
    found = kinds.agg(outputs=("kind", "size"), sample=("sample", "first"), reason=("reason", "first")).reset_index()
    found = found.sort_values("outputs", ascending=False, kind="stable").head(most)
    return found[["outputs", *by, "sample", "reason"]].to_dict("records")


def kind_of(reason: str) -> str:
    """The words of a reason without names and numbers, which tell one output's from another's.

    >>> kind_of("the mask has 32 x 32 pixels, the true one 64 x 64")
    'the mask has _ x _ pixels, the true one _ x _'
    >>> kind_of("'it may be' is not one of the 2 allowed answers") == kind_of("'dunno' is not one of the 19 allowed answers")
    True
    """
    return _NAMES.sub("_", _NAME.sub("_", reason))


def in_words(found: Mapping[str, Any]) -> list[str]:
    """A record of :func:`nothing_valid` as lines: what was found, then a line for every reason."""
    if not found["outputs"]:
        return ["nothing valid: there is no output to score"]
    return [
        f"nothing valid: none of the {found['outputs']:,} outputs of the task {found['task']} is valid; the most common reasons:",
        *(
            f"{reason['outputs']:,} {reason['status']}, the first {reason['sample']}: {reason['reason']}"
            for reason in found["reasons"]
        ),
    ]


def _shown(reason: str | None) -> str:
    """A reason in one line of at most :data:`LONGEST_REASON` characters."""
    line = " ".join((reason or "no reason was given").split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
