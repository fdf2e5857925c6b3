"""Whether anything valid was scored, and what most often stood in the way."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from rsw_rewards.core.scores import ScoreTable, Status

MOST_REASONS = 3
"""Reasons that are listed, the commonest first."""
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


def nothing_valid(table: ScoreTable, components: Collection[str] = ()) -> list[dict[str, Any]]:
    """The tasks of which no output is valid, each with its commonest reasons; empty where every task has a valid output.

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
        told = rows[rank == became].assign(status=rows["status"].astype(str), reason=rows["reason"].map(_shown))
        told["kind"] = told["reason"].map(kind_of)
        kinds = told.drop_duplicates([*_OUTPUT, "status", "kind"]).groupby(["status", "kind"], sort=False)
        reasons = kinds.agg(
            outputs=("kind", "size"), sample=("sample", "first"), reason=("reason", "first")
        ).reset_index()
        reasons = reasons.sort_values("outputs", ascending=False, kind="stable").head(MOST_REASONS)
        listed = reasons[["outputs", "status", "sample", "reason"]].to_dict("records")
        found.append({"task": str(task), "outputs": outputs.ngroups, "reasons": listed})
    return found


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
        f"nothing valid: none of the {found['outputs']:,} outputs of the task {found['task']} is valid; the commonest reasons:",
        *(
            f"{reason['outputs']:,} {reason['status']}, the first {reason['sample']}: {reason['reason']}"
            for reason in found["reasons"]
        ),
    ]


def _shown(reason: str | None) -> str:
    """A reason in one line of at most :data:`LONGEST_REASON` characters."""
    line = " ".join((reason or "no reason was given").split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
