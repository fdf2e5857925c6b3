"""Comparing runs: paired differences over the scenes that they share, and a leaderboard of many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Verifier, named_metrics
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.finished_runs import FinishedRun, shared_outputs
from rsw_rewards.evaluation.intervals import holm, mcnemar_p
from rsw_rewards.evaluation.leaderboard import Cell, Leaderboard, percent_key, too_few_scenes
from rsw_rewards.evaluation.numbers import sign
from rsw_rewards.evaluation.statistics import Estimate, bounds_of
from rsw_rewards.evaluation.summary import compare, metrics_of, status_counts, valid_rate


class _Features:
    """Stored features of several runs."""

    def __init__(self, *runs: FinishedRun) -> None:
        self.banks = [run.bank for run in runs]

    def features(self, encoder: str, hashes: Sequence[str]) -> Any:
        rows = []
        for digest in hashes:
            for bank in self.banks:
                try:
                    rows.append(bank.features(encoder, [digest])[0])
                    break
                except KeyError:
                    continue
            else:
                raise KeyError(f"no {encoder} features are stored for the image {digest[:12]}")
        return np.stack(rows)


def warnings_of(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[str]:
    """What forbids or weakens a comparison of these runs, in words; empty where nothing does."""
    found = []
    shared = shared_outputs(runs)
    if any(run.outputs != shared for run in runs):
        samples, scenes = len({key[1] for key in shared}), len({key[0] for key in shared})
        most = max(len({key[1] for key in run.outputs}) for run in runs)
        ks = {
            name: max((int(key[2]) for key in run.outputs), default=0) + 1
            for name, run in zip(names, runs, strict=True)
        }
        if len(set(ks.values())) > 1:
            listed = ", ".join(f"{name} {k}" for name, k in ks.items())
            found.append(
                f"the runs have different numbers of candidates per sample ({listed}); only shared ones are compared"
            )
        if any({key[1] for key in run.outputs} != {key[1] for key in shared} for run in runs):
            found.append(
                f"the runs are of different samples: all numbers are over the {samples} samples ({scenes} scenes) that they share,"
                f" of up to {most}"
            )
    if len({json.dumps(run.config.get("components"), sort_keys=True) for run in runs}) > 1:
        found.append(
            "the runs were scored with different configurations of the protocol; evaluate them in the same way"
        )
    elif len({str(run.config.get("config_hash")) for run in runs}) > 1 and not found:
        found.append(
            "the configuration hashes of the runs differ: a verifier or the order of the samples changed between them"
        )
    for encoder in sorted({name for run in runs for name in run.summary.get("encoders") or {}}):
        weights = {(run.summary.get("encoders") or {}).get(encoder) for run in runs} - {None}
        if len(weights) > 1:
            found.append(
                f"the weights of the encoder {encoder} differ between the runs: its numbers cannot be compared"
            )
    for name, run in zip(names, runs, strict=True):
        for label, counts in status_counts(run.only(shared)).items():
            if failed := counts["error"] + counts["timeout"]:
                found.append(
                    f"{label} failed on {failed} of {sum(counts.values())} outputs of {name}, which its numbers leave out: mend the cause"
                    " and go on with --resume before comparing them"
                )
    for label in runs[0].table.names:
        rates = {name: valid_rate(run.only(shared).verifier(label)) for name, run in zip(names, runs, strict=True)}
        if len({rate for rate in rates.values() if rate is not None}) > 1:
            listed = ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items() if rate is not None)
            found.append(
                f"the share of valid outputs differs ({label}: {listed}): numbers that leave invalid outputs out, such as mae, "
                "rmse and Frechet distances, favour the run that leaves more out"
            )
    return found


def run_names(runs: Sequence[FinishedRun], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names given, or else those of the folders, with their parents where those are the same; ``run 1`` .. for runs in memory.

    Raises:
        InputError: not as many names as runs, or one name twice.
    """
    if names:
        if len(names) != len(runs):
            raise InputError(f"{len(names)} names for {len(runs)} runs; give one for each run, in their order")
        chosen = tuple(names)
    else:
        numbered = [Path(f"run {number}") for number in range(1, len(runs) + 1)]
        paths = [run.folder.resolve() if run.folder else own for run, own in zip(runs, numbered, strict=True)]
        deepest = max(len(path.parts) for path in paths)
        depths = (d for d in range(1, deepest + 1) if len({path.parts[-d:] for path in paths}) == len(paths))
        depth = next(depths, 1)
        chosen = tuple("/".join(path.parts[-depth:]) for path in paths)
    twice = [name for name, count in Counter(chosen).items() if count > 1]
    if twice:
        raise InputError(f"two runs are named {twice[0]!r}; give each a name of its own")
    return chosen


def compare_runs(
    runs: Sequence[FinishedRun], keys: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Differences of every run to the first, for every number of their protocol, over the outputs that both have.

    Returns:
        Records ``run`` and ``base_run`` (names), ``metric``, ``diagnostic``, ``base``, ``value``, ``difference``, ``ci95``, ``n_scenes``,
        ``p_value``, ``p_mcnemar`` (of accuracies, over single questions), ``p_holm`` (corrected for all records of the ``keys``, or else of the headline; None for others), ``reason``.

    Raises:
        InputError: for a key that the protocol does not have.
    """
    called = run_names(runs, names)
    base, verifiers = runs[0], runs[0].verifiers()
    _check_keys(keys, runs)
    rows: list[dict[str, Any]] = []
    for name, run in zip(called[1:], runs[1:], strict=True):
        shared = shared_outputs((base, run))
        features = _Features(base, run)
        values = [_numbers(side, shared, verifiers, features) for side in (base, run)]
        found = compare(base.protocol, verifiers, base.only(shared), run.only(shared), features, keys)
        for key, estimate in found.items():
            rows.append(
                {
                    "run": name,
                    "base_run": called[0],
                    "metric": key,
                    "diagnostic": key not in base.protocol.headline,
                    "base": values[0].get(key, {}).get("value"),
                    "value": values[1].get(key, {}).get("value"),
                    "difference": estimate.value,
                    "ci95": list(estimate.ci95) if estimate.ci95 else None,
                    "n_scenes": estimate.n_scenes,
                    "p_value": estimate.p_value,
                    "p_mcnemar": _mcnemar(base, run, shared) if key in ("accuracy", "oa") else None,
                    "reason": estimate.reason,
                }
            )
    family = keys or base.protocol.headline
    tested = [row["p_value"] if row["metric"] in family else None for row in rows]
    for row, p in zip(rows, holm(tested), strict=True):
        row["p_holm"] = p
    return rows


def _mcnemar(base: FinishedRun, run: FinishedRun, shared: frozenset[tuple[Any, ...]]) -> float | None:
    """:func:`mcnemar_p` of two runs over the answers that the accuracy counts; None where answers are not right or wrong."""
    kinds = base.protocol.components[0].get("config", {}).get("only_kinds")
    right = []
    for side in (base, run):
        table = side.only(shared).verifier(base.table.names[0])
        frame, correct = table.frame, table.raw("correct")
        counted = table.stats().get("seen", np.ones(len(frame))) > 0
        if kinds:
            counted &= frame["kind"].isin(kinds).to_numpy()
        answers = zip(frame["sample"][counted], frame["candidate"][counted], strict=True)
        right.append(dict(zip(answers, correct[counted], strict=True)))
    both = np.array([[right[0][one], right[1][one]] for one in right[0] if one in right[1]]).reshape(-1, 2)
    both = both[np.isfinite(both).all(axis=1)]
    if not len(both) or not np.isin(both, (0, 1)).all():
        return None
    first, second = (both == 1).T
    return mcnemar_p(int((first & ~second).sum()), int((second & ~first).sum()))


def leaderboard(
    runs: Sequence[FinishedRun], keys: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> Leaderboard:
    """Runs of one protocol beside each other, the best first.

    In every column each run is compared with the best by a paired difference (:func:`compare_runs` has the method); the
    p-values of all columns together are corrected by Holm's method.

    Args:
        runs: two or more, of :func:`read_runs`.
        keys: the columns; default: the headline of the protocol, as far as a run has a value of it.
        names: of the runs, in their order; default: the folders' names.

    Raises:
        InputError: as :func:`run_names`, and for a key that the protocol does not have.
    """
    called = run_names(runs, names)
    verifiers = runs[0].verifiers()
    _check_keys(keys, runs)
    shared = shared_outputs(runs)
    features = _Features(*runs)
    numbers = [_numbers(run, shared, verifiers, features) for run in runs]
    known = dict.fromkeys(key for found in numbers for key, entry in found.items() if entry["value"] is not None)
    headline = runs[0].protocol.headline
    columns = tuple(keys or [key for key in headline if key in known] or known or headline)
    cells = {
        (name, key): Cell(found[key]["value"], _pair(found[key]["ci95"]), reason=found[key].get("reason", ""))
        for name, found in zip(called, numbers, strict=True)
        for key in columns
        if key in found
    }
    leaders = {key: leader for key in columns if (leader := _leader(key, called, cells)) is not None}
    for key, leader in leaders.items():
        for name in called:
            if (name, key) in cells and cells[name, key].value == cells[leader, key].value:
                cells[name, key] = replace(cells[name, key], best=True)
    tables = {name: run.only(shared) for name, run in zip(called, runs, strict=True)}
    tested = _to_leaders(
        tables, leaders, cells, lambda best, own, keys: compare(runs[0].protocol, verifiers, best, own, features, keys)
    )
    for (place, estimate), p in zip(tested.items(), holm([found.p_value for found in tested.values()]), strict=True):
        cells[place] = replace(
            cells[place],
            difference=estimate.value,
            difference_ci95=estimate.ci95,
            p_value=estimate.p_value,
            p_holm=p,
            reason=cells[place].reason or estimate.reason,
        )
    whole = all(run.outputs == shared for run in runs)
    return Leaderboard(
        protocol=runs[0].protocol.name,
        names=_ranked(called, columns, cells),
        keys=columns,
        cells=cells,
        n=len({key[1] for key in shared}),
        n_scenes=len({key[0] for key in shared}),
        baselines=_baselines(runs[0], columns) if whole else {},
        fractions=_fractions(verifiers),
        warnings=(*warnings_of(runs, called), *too_few_scenes(len({key[0] for key in shared}), len(tested))),
        differences=partial(compare_runs, runs, keys, names),
    )


def _to_leaders(
    tables: Mapping[str, ScoreTable],
    leaders: Mapping[str, str],
    cells: Mapping[tuple[str, str], Cell],
    compared: Callable[[ScoreTable, ScoreTable, Sequence[str]], Mapping[str, Estimate]],
) -> dict[tuple[str, str], Estimate]:
    """Differences to the best run of each column, by run and column, of the runs that are not the best there."""
    found: dict[tuple[str, str], Estimate] = {}
    for name, own in tables.items():
        for leader in dict.fromkeys(leaders.values()):
            led = (key for key, best in leaders.items() if best == leader)
            if behind := [key for key in led if (name, key) in cells and not cells[name, key].best]:
                differences = compared(tables[leader], own, behind)
                found.update({(name, key): estimate for key, estimate in differences.items()})
    return found


def _check_keys(keys: Sequence[str] | None, runs: Sequence[FinishedRun]) -> None:
    known = list(dict.fromkeys(key for run in runs for key in run.summary["metrics"]))
    for key in keys or ():
        if key not in known:
            raise InputError(f"the runs have no metric {key!r}; they have {', '.join(known)}")


def _numbers(
    run: FinishedRun, shared: frozenset[tuple[Any, ...]], verifiers: Mapping[str, Verifier], features: _Features
) -> dict[str, dict[str, Any]]:
    """The run's entries of ``metrics``, computed anew where it has other outputs than the shared ones."""
    if run.outputs == shared:
        found: dict[str, dict[str, Any]] = run.summary["metrics"]
        return found
    return metrics_of(run.protocol, verifiers, run.only(shared), features)


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))


def _leader(key: str, names: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> str | None:
    """The run with the best value; None where no direction is better, or no other run has a value."""
    known = [(cell.value, name) for name in names if (cell := cells.get((name, key))) and cell.value is not None]
    if sign(key) == 0 or len(known) < 2:
        return None
    return max(known, key=lambda pair: sign(key) * pair[0])[1]


def _ranked(names: Sequence[str], keys: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> tuple[str, ...]:
    """Best first by the first column that has a direction; runs without its value last."""
    key = next((key for key in keys if sign(key)), None)

    def rank(name: str) -> tuple[bool, float]:
        value = cells[name, key].value if key is not None and (name, key) in cells else None
        return (value is None, 0.0 if value is None or key is None else -sign(key) * value)

    return tuple(sorted(names, key=rank))


def _baselines(run: FinishedRun, keys: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """The rows that the run's own table is printed beside, without intervals: they are marks to read the runs by."""
    rows = {}
    for name, found in (run.summary.get("baselines") or {}).items():
        entries = {key: entry for key, entry in (found.get("metrics") or {}).items() if key in keys}
        if entries:
            rows[name] = {key: Cell(entry["value"], None) for key, entry in entries.items()}
    return rows


def _fractions(verifiers: Mapping[str, Verifier]) -> frozenset[str]:
    """Keys of the metrics that papers print times 100."""
    return frozenset(
        name
        for _, metric, names in named_metrics(verifiers)
        for key, name in names.items()
        if percent_key(key, bounds_of(metric).get(key))
    )
