"""The page of a comparison: runs by name, their numbers, paired differences, and the same samples side by side."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rsw_rewards.core.files import write_text
from rsw_rewards.evaluation.comparison import compare_runs, run_names
from rsw_rewards.evaluation.finished_runs import FinishedRun, shared_outputs
from rsw_rewards.evaluation.leaderboard import NOTHING, Leaderboard
from rsw_rewards.evaluation.numbers import Mark, axis_around_zero, axis_of, lane
from rsw_rewards.evaluation.pages import Key, cards_of, gathered, read_cards, render, short_names
from rsw_rewards.evaluation.pictures import pictures
from rsw_rewards.evaluation.report import ROWS, command

DISPUTED = 24
"""Samples that are shown first: those on which the runs are furthest apart."""
RANDOM = 8
"""Samples that are drawn from the others."""
LIMIT = 2_500_000
"""Characters of images on the page."""


def write_comparison(
    path: Path, board: Leaderboard, runs: Sequence[FinishedRun], names: Sequence[str] | None = None
) -> None:
    """Write the page of a comparison.

    Args:
        path: of the page.
        board: what the runs compare to.
        runs: the same runs; the first is what the differences are to.
        names: of the runs, in their order; default: the folders' names.
    """
    called = run_names(runs, names)
    rows = compare_runs(runs, board.keys, called)
    values = run_values(runs, called)
    cards, lacking = shared_cards(runs, called, values)
    page = render(
        "comparison.html",
        board=board,
        names=called,
        cells=[[board.cells.get((name, key), NOTHING) for key in board.keys] for name in board.names],
        baselines=[(name, [found.get(key, NOTHING) for key in board.keys]) for name, found in board.baselines.items()],
        numbers=number_plots(board),
        differences=difference_plots(sorted(rows, key=lambda row: board.keys.index(row["metric"]))),
        cards=gathered(cards, LIMIT) if cards else None,
        lacking=lacking,
        all=sample_rows(runs[0], values),
        written=time.strftime("%Y-%m-%d %H:%M"),
        command=command(),
    )
    write_text(path, page)


def run_values(runs: Sequence[FinishedRun], names: Sequence[str]) -> pd.DataFrame:
    """The mean value of the components on every output that all runs have: one row per sample and candidate, one column per run, and
    ``apart``, the largest less the smallest. The rows on which the runs are furthest apart come first."""
    shared = shared_outputs(runs)
    columns = {
        name: run.only(shared).frame.groupby(["sample", "candidate"], sort=False)["value"].mean()
        for name, run in zip(names, runs, strict=True)
    }
    found = pd.DataFrame(columns)
    found["apart"] = (found.max(axis=1) - found.min(axis=1)).fillna(0.0)
    return found.sort_values("apart", ascending=False, kind="stable")


def shared_cards(
    runs: Sequence[FinishedRun], names: Sequence[str], values: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[str]]:
    """Cards of samples with the outputs of all runs, those on which they disagree first; and the runs that hold no cards."""
    apart: list[Key] = list(values.index[values["apart"] > 0][:DISPUTED])
    disputed = set(apart)
    rest: list[Key] = [key for key in values.index if key not in disputed]
    chosen = [*apart, *random.Random(0).sample(rest, min(len(rest), RANDOM))]
    held = {name: drawn_cards(run, chosen) for name, run in zip(names, runs, strict=True)}
    lacking = [name for name, cards in held.items() if not cards]
    distance = dict(zip(values.index, values["apart"].tolist(), strict=True))
    found = []
    for key in chosen:
        sides = [(name, cards[key]) for name, cards in held.items() if key in cards]
        if not sides:
            continue
        first = sides[0][1]
        found.append(
            {
                **{field: first[field] for field in ("id", "candidate", "kind", "prompt", "truth")},
                "why": "disputed" if key in disputed else "random",
                "pictures": [one for one in first["pictures"] if one["part"] in ("input", "truth")],
                "numbers": {"apart": distance[key]},
                "sides": [
                    {
                        "name": name,
                        "answer": one["answer"],
                        "pictures": [picture for picture in one["pictures"] if picture["part"] in ("made", "both")],
                        "scores": one["scores"],
                    }
                    for name, one in sides
                ],
            }
        )
    return found, lacking


def drawn_cards(run: FinishedRun, keys: Collection[Key]) -> dict[Key, dict[str, Any]]:
    """Cards of some outputs of a run: of its samples in memory, or from the pages in its folder."""
    if run.evaluation is None:
        return {} if run.folder is None else read_cards(run.folder / "report.html", keys)
    outputs = [output for output in run.evaluation.outputs if (output.sample_id, output.candidate) in keys]
    return {
        card.key: {**card.content, "pictures": pictures(card.sample, card.output)}
        for card in cards_of(run.table.frame, run.evaluation.samples, outputs)
    }


def number_plots(board: Leaderboard) -> list[dict[str, Any]]:
    """Per metric, the runs on one axis, the baselines beside the first."""
    drawn = []
    for key in board.keys:
        cells = {name: board.cells.get((name, key), NOTHING) for name in board.names}
        known = {name: (cell.value, cell.ci95) for name, cell in cells.items() if cell.value is not None}
        beside = {name: found[key].value for name, found in board.baselines.items() if key in found}
        marks = [Mark("baseline", name, value) for name, value in beside.items() if value is not None]
        ends = [end for value, ci95 in known.values() for end in (value, *(ci95 or ()))]
        if not ends:
            continue
        # A baseline far beyond the runs would press them together.
        low, high = min(ends), max(ends)
        reach = max(high - low, 0.25 * abs(high), 1e-9)
        near = [mark for mark in marks if low - 4 * reach <= mark.value <= high + 4 * reach]
        axis = axis_of([*ends, *(mark.value for mark in near)])
        lanes = [
            lane(name, value, axis, ci95, near if name == board.names[-1] else ())
            for name, (value, ci95) in known.items()
        ]
        far = [mark for mark in marks if mark not in near]
        drawn.append({"key": key, "lanes": lanes, "axis": axis, "far": far})
    return drawn


def difference_plots(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per metric, the paired differences to the first run on one axis with 0 in its middle."""
    drawn = []
    for key in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == key and row["difference"] is not None]
        axis = axis_around_zero(end for row in own for end in (row["difference"], *(row["ci95"] or ())))
        lanes = [
            lane(row["run"], row["difference"], axis, row["ci95"], signed=True, note=_p(row["p_holm"])) for row in own
        ]
        if lanes:
            drawn.append({"key": key, "lanes": lanes, "axis": axis})
    return drawn


def _p(value: float | None) -> str:
    return "" if value is None else "p < 0.001" if value < 0.001 else f"p {value:.3f}"


def sample_rows(base: FinishedRun, values: pd.DataFrame) -> dict[str, Any]:
    """The table of all shared samples, for the template."""
    kinds = base.table.frame.drop_duplicates(["sample", "candidate"]).set_index(["sample", "candidate"])["kind"]
    heading, names = short_names(list(values.index))
    rows = []
    for name, kind, numbers in zip(
        names, kinds.reindex(values.index).fillna(""), values.to_numpy().tolist(), strict=True
    ):
        rows.append([name, kind, *(None if value != value else round(value, 4) for value in numbers)])
    columns = [[heading, "text"], ["kind", "text", True], *([name, "number"] for name in values.columns)]
    return {"columns": columns, "rows": rows, "size": ROWS}
