"""Evaluation: outputs in, scores and numbers out. The scorer is the one that training uses."""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.baseline_rows import add_chance_corrected, baseline_rows, baseline_warnings
from rsw_rewards.evaluation.box_scale import scale_warnings
from rsw_rewards.evaluation.chunks import CHUNK, batch_of, group_chunks, needs_whole
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.identity import hash_of, identities
from rsw_rewards.evaluation.inputs import coverage_warnings, seldom_collecting
from rsw_rewards.evaluation.leakage import leakage_warnings
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.published import comparable
from rsw_rewards.evaluation.results import RunDirectory, features_in, versions
from rsw_rewards.evaluation.summary import best_of, first_candidates, metrics_of, slices_of, status_counts
from rsw_rewards.evaluation.taken_off import taken_off, taken_off_warnings
from rsw_rewards.evaluation.validity import nothing_valid
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.pairing import Problem


def select(samples: Sequence[Sample], protocol: Protocol) -> list[Sample]:
    """The samples of the protocol's task. Raises :class:`InputError` when there is none."""
    chosen = [sample for sample in samples if sample.task is protocol.task]
    if not chosen:
        have = ", ".join(sorted({str(sample.task) for sample in samples}))
        raise InputError(f"the protocol {protocol.name!r} needs samples of the task {protocol.task}; these are {have}")
    return chosen


@seldom_collecting()
def evaluate(
    protocol: Protocol,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    *,
    out: Path | None = None,
    problems: Sequence[Problem] = (),
    resume: bool = False,
    workers: int = 0,
    device: str = "cpu",
    about: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    progress: Progress = silent,
) -> Evaluation:
    """Score outputs by a protocol; :meth:`Evaluation.save` writes what was found.

    Args:
        protocol: what to measure.
        samples: what was asked; samples of other tasks, and those without any output, are left out of all numbers and baselines.
        outputs: the answers, of these samples.
        out: a run directory in which scores and features are kept as they come, so that an interrupted evaluation can be resumed.
        problems: of the predictions, to be counted in the summary.
        resume: do only what an earlier attempt in ``out`` left undone or what failed.
        workers: Ray actors that share the scoring; 0 scores here.
        device: where encoders run.
        about: what the report says of where the outputs come from.
        warnings: what a reader must know of the outputs, a sentence each.
        progress: told how far the work is.

    Raises:
        InputError: no sample fits, or ``out`` holds another run.
    """
    chosen = select(samples, protocol)
    known = {sample.id for sample in chosen}
    others = {sample.id for sample in samples} - known
    outputs = [output for output in outputs if output.sample_id in known]
    # Where there is no output at all, it is said of every sample that nothing is valid.
    answered = {output.sample_id for output in outputs} or known
    lacking = known - answered
    chosen = [sample for sample in chosen if sample.id in answered]
    problems = [problem for problem in problems if not (problem.kind == "missing" and problem.where in others)]
    bank = _bank(device, out, workers)
    with Scorer(protocol.rubric, device=device, bank=bank, workers=workers, strict=False) as scorer:
        scorer.prepare(chosen)
        asked = identities(chosen, outputs)
        config = {
            "protocol": protocol.name,
            "components": protocol.written(),
            "about": dict(about or {}),
            "versions": versions(),
            "config_hash": config_hash(protocol, scorer, chosen),
            "inputs_hash": hash_of(asked),
        }
        run = None if out is None else RunDirectory(out, config, asked, resume)
        table = _score(scorer, chosen, outputs, run, progress)
        verifiers = scorer.by_name
        summary = summarise(protocol, verifiers, table, chosen, bank)
        summary["problems"] = count_problems(problems)
        summary["left_out"] = {"samples_of_other_tasks": len(others), "samples_without_output": len(lacking)}
        summary["baselines"] = baseline_rows(protocol, chosen, scorer, verifiers, bank, progress)
        add_chance_corrected(summary)
        summary["published"] = comparable(protocol.name, chosen)
        summary["taken_off"] = taken_off(outputs)
        summary["warnings"] = [
            *warnings,
            *coverage_warnings(problems, len(known), warnings),
            *image_warnings(chosen),
            *taken_off_warnings(summary["taken_off"]),
            *scale_warnings(verifiers, chosen, outputs),
            *leakage_warnings(chosen, outputs),
            *contradiction_warnings(table),
            *failure_warnings(summary["status"]),
            *baseline_warnings(summary["baselines"]),
        ]
        summary["config_hash"] = config["config_hash"]
        summary["versions"] = config["versions"]
        summary["encoders"] = scorer.weights()
        summary["features"] = bank.report()
        summary["about"] = config["about"]
    return Evaluation(protocol, chosen, outputs, table, summary, problems, config, asked, bank)


def _bank(device: str, out: Path | None, workers: int) -> FeatureBank:
    """Features kept in the run directory; without one in memory, or in a temporary folder where actors share the work."""
    if out is not None:
        return FeatureBank(device, features_in(out))
    if not workers:
        return FeatureBank(device)
    folder = tempfile.TemporaryDirectory(prefix="rsw_features_")
    bank = FeatureBank(device, Path(folder.name))
    weakref.finalize(bank, folder.cleanup)
    return bank


def config_hash(protocol: Protocol, scorer: Scorer, samples: Sequence[Sample]) -> str:
    """Twelve hexadecimal digits that change with the protocol, its verifiers' configurations or the set of samples."""
    digest = hashlib.sha256(json.dumps([protocol.name, [verifier.hash for verifier in scorer.verifiers]]).encode())
    for sample in samples:
        digest.update(sample.id.encode() + b"\0")
    return digest.hexdigest()[:12]


def _score(
    scorer: Scorer,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    run: RunDirectory | None,
    progress: Progress,
) -> ScoreTable:
    """Rows of all outputs; with a run directory, every chunk is on disk before the next is begun."""
    done = ScoreTable() if run is None else run.done()
    complete = _complete(done, scorer, outputs)
    todo = [output for output in outputs if output.sample_id not in complete]
    tables = [ScoreTable(done.frame[done.frame["sample"].isin(complete)])]
    by_id = {sample.id: sample for sample in samples}
    scored = 0
    for piece in group_chunks(todo, CHUNK, whole=needs_whole(scorer), grow=True):
        progress("scoring", scored, len(todo))
        part = scorer.score(batch_of(by_id, piece))
        if run is not None:
            run.append(part)
        tables.append(part)
        scorer.bank.settle()
        scored += len(piece)
    progress("scoring", len(todo), len(todo))
    return ScoreTable.concat(tables)


def _complete(done: ScoreTable, scorer: Scorer, outputs: Sequence[Output]) -> set[str]:
    """Samples all of whose outputs every component has scored: a verifier of groups must see a group whole."""
    if not len(done):
        return set()
    wanted = Counter(output.sample_id for output in outputs)
    rows = done.frame.groupby("sample").size().to_dict()
    return {name for name, count in wanted.items() if rows.get(name, 0) >= count * len(scorer.verifiers)}


def summarise(
    protocol: Protocol, verifiers: Mapping[str, Any], table: ScoreTable, samples: Sequence[Sample], bank: FeatureBank
) -> dict[str, Any]:
    """The part of ``summary.json`` that follows from the table."""
    single = first_candidates(table)
    candidates = int(table.frame.groupby("group")["candidate"].nunique().max()) if len(table) else 0
    summary: dict[str, Any] = {
        "protocol": protocol.name,
        "n": len(samples),
        "n_scenes": len({sample.scene for sample in samples}),
        "metrics": metrics_of(protocol, verifiers, single if candidates == 1 else table, bank),
        "slices": slices_of(protocol, verifiers, single if candidates == 1 else table, bank),
        "status": status_counts(table),
        "nothing_valid": nothing_valid(table),
    }
    if candidates > 1:
        first = next(label for label, verifier in verifiers.items() if verifier.rewarding)
        summary["candidates"] = {
            "k": candidates,
            "metrics_are": f"mean@{candidates}",
            "value_component": first,
            **best_of(table, first, candidates),
        }
    return summary


def image_warnings(samples: Sequence[Sample]) -> list[str]:
    """How many image files of samples are not there, and what to do; the report cannot show them."""
    files = dict.fromkeys(image.path for sample in samples for image in sample.every_image if image.path is not None)
    gone = [file for file in files if not file.is_file()]
    if not gone:
        return []
    return [
        f"{len(gone)} of {len(files)} images of the samples are not there, such as {gone[0]}, and the report cannot show them: name the"
        " folder that the samples' paths begin in with --root (roots=[...])"
    ]


def contradiction_warnings(table: ScoreTable) -> list[str]:
    """How many predicted pairs of maps call pixels changed at one date only, which count as wrong; none where no pair does."""
    pixels = table.raw("contradictions")
    pairs = int((pixels > 0).sum())
    if not pairs:
        return []
    return [
        f"{pairs} of {int(np.isfinite(pixels).sum())} predicted pairs of maps contradict each other: {int(np.nansum(pixels)):,} pixels are changed"
        " at one date only, and count as wrong; give both maps 0 where nothing changed"
    ]


def failure_warnings(status: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for every component whose scores failed for some outputs, which its numbers then leave out."""
    found = []
    for label, counts in status.items():
        failed, scored = counts["error"] + counts["timeout"], counts["ok"] + counts["invalid_output"]
        if failed and scored:
            found.append(
                f"{label} failed on {failed} of {failed + scored} outputs, which its numbers leave out: mend the cause and go on"
                f" with --resume before comparing them"
            )
    return found


def count_problems(problems: Iterable[Problem]) -> dict[str, Any]:
    """Problems by kind, with the first ten of them in words."""
    listed = list(problems)
    kinds: dict[str, int] = {}
    for problem in listed:
        kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
    return {"counts": kinds, "first": [str(problem) for problem in listed[:10]]}
