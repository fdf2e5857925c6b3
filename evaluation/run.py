"""An evaluation from its inputs to its files: check, score, summarise, run the baselines, warn, save. The scorer is the one that training uses."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import checksum
from rsw_rewards.core.plugins import named
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import CHUNK, Scorer, batches, needs_whole
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.inputs import Inputs, seldom_collecting
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.published import comparable
from rsw_rewards.evaluation.report import write_report
from rsw_rewards.evaluation.run_directory import (
    DIGITS,
    FEATURES,
    Identity,
    RunDirectory,
    hash_of,
    identities,
    versions,
)
from rsw_rewards.evaluation.summary import metrics_of, summarise
from rsw_rewards.evaluation.warnings import Evidence, taken_off, warnings_of
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.rollouts.policy import Request, outputs_of, set_up
from rsw_rewards.verifiers.answers import chance_corrected
from rsw_rewards.verifiers.boxes import box_scale, written_in

BASELINE_SAMPLES = 1000
"""Samples that baselines which draw pictures are run on; the first of each evaluation, and said beside the numbers."""


def select(samples: Sequence[Sample], protocol: Protocol) -> list[Sample]:
    """The samples of the protocol's task. Raises :class:`InputError` when there is none."""
    chosen = [sample for sample in samples if sample.task is protocol.task]
    if not chosen:
        have = ", ".join(sorted({str(sample.task) for sample in samples}))
        raise InputError(f"the protocol {protocol.name!r} needs samples of the task {protocol.task}; these are {have}")
    return chosen


@seldom_collecting()
def run_protocol(
    protocol: Protocol,
    given: Inputs,
    *,
    out: Path | None = None,
    resume: bool = False,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Evaluation:
    """Score outputs by a protocol, and save what was found where a folder is named.

    Args:
        protocol: what to measure.
        given: samples of other tasks, and those without any output, are left out of all numbers and baselines.
        out: a run directory in which scores and features are kept as they come, so that an interrupted evaluation can be resumed, and
            then the result as :meth:`Evaluation.save` writes it.
        resume: do only what an earlier attempt in ``out`` left undone or what failed.
        workers: Ray actors that share the scoring; 0 scores here.
        device: where encoders run.
        progress: told how far the work is.

    Raises:
        InputError: no sample fits, or ``out`` holds another run.
    """
    of_task = given.only(select(given.samples, protocol))
    answered = {output.sample_id for output in of_task.outputs}
    # Where there is no output at all, it is said of every sample that nothing is valid.
    asked = replace(of_task, samples=[one for one in of_task.samples if one.id in answered or not answered])
    left_out = {
        "samples_of_other_tasks": len(given.samples) - len(of_task.samples),
        "samples_without_output": len(of_task.samples) - len(asked.samples),
    }
    bank = _bank(device, out, workers)
    # No scorer.check: a training stops where a sample lacks what a verifier reads, and here the rows of that sample alone are errors.
    with Scorer(protocol.rubric, device=device, bank=bank, workers=workers, strict=False) as scorer:
        # Before the folder is made, since it may find that these samples cannot be scored.
        scorer.prepare(asked.samples)
        digests = identities(asked.samples, asked.outputs)
        config = _configuration(protocol, scorer, asked, digests)
        run = None if out is None else RunDirectory(out, config, digests, resume)
        table = _score(scorer, asked, run, progress)
        summary = _summary(protocol, scorer, table, asked, left_out, progress) | {
            **{key: config[key] for key in ("config_hash", "inputs_hash", "versions")},
            "encoders": scorer.weights(),
            "features": bank.report(),
            "about": config["about"],
        }
    if run is not None:  # the bank keeps its features there already, which Evaluation.save would copy
        run.finish(table, summary)
        write_report(run.report, protocol, summary, table, asked.samples, asked.outputs, progress)
    return Evaluation(protocol, asked.samples, asked.outputs, table, summary, asked.problems, config, digests, bank)


def _configuration(
    protocol: Protocol, scorer: Scorer, asked: Inputs, digests: Mapping[str, Identity]
) -> dict[str, Any]:
    """What ``config.yaml`` holds. ``config_hash`` changes with the protocol, its verifiers or the set of samples."""
    hashes = json.dumps([protocol.name, [component.hash for component in scorer.components]])
    ids = "".join(f"{sample.id}\0" for sample in asked.samples)
    return {
        "protocol": protocol.name,
        "components": protocol.written(),
        "about": dict(asked.about),
        "versions": versions(),
        "config_hash": checksum(hashes + ids)[:DIGITS],
        "inputs_hash": hash_of(digests),
    }


def _summary(
    protocol: Protocol,
    scorer: Scorer,
    table: ScoreTable,
    asked: Inputs,
    left_out: Mapping[str, int],
    progress: Progress,
) -> dict[str, Any]:
    """The metrics, what they stand beside (for which the baselines are run and scored), and what must be said of them."""
    summary = summarise(protocol, scorer.by_name, table, asked.samples, scorer.bank)
    summary["problems"] = {
        "counts": dict(Counter(problem.kind for problem in asked.problems)),
        "first": [str(problem) for problem in asked.problems[:10]],
    }
    summary["left_out"] = left_out
    summary["baselines"] = baseline_rows(protocol, asked.samples, scorer, progress)
    add_chance_corrected(summary)
    summary["published"] = comparable(protocol.name, asked.samples)
    summary["taken_off"] = taken_off(asked.outputs)
    evidence = Evidence(
        samples=asked.samples,
        lacking=left_out["samples_without_output"],
        outputs=asked.outputs,
        problems=asked.problems,
        told=asked.warnings,
        verifiers=scorer.by_name,
        table=table,
        summary=summary,
    )
    summary["warnings"] = [*asked.warnings, *warnings_of(evidence)]
    return summary


def _bank(device: str, out: Path | None, workers: int) -> FeatureBank:
    """Features kept in the run directory; without one in memory, or in a temporary folder where actors share the work."""
    if out is not None:
        return FeatureBank(device, out / FEATURES)
    if not workers:
        return FeatureBank(device)
    folder = tempfile.TemporaryDirectory(prefix="rsw_features_")
    bank = FeatureBank(device, Path(folder.name))
    weakref.finalize(bank, folder.cleanup)
    return bank


def _score(scorer: Scorer, asked: Inputs, run: RunDirectory | None, progress: Progress) -> ScoreTable:
    """Rows of all outputs; with a run directory, every chunk is on disk before the next is begun."""
    todo, tables, scored = asked.outputs, [], 0
    if run is not None and run.resumed:
        done = run.done({one.component.label: one.hash for one in scorer.components})
        complete = _complete(done, scorer, asked.outputs)
        todo = [output for output in asked.outputs if output.sample_id not in complete]
        tables = [done.where(done.frame["sample"].isin(complete))]
    for batch in batches(scorer, asked.samples, todo, CHUNK, grow=True):
        progress("scoring", scored, len(todo))
        part = scorer.score(batch)
        if run is not None:
            run.append(part)
        tables.append(part)
        scorer.bank.settle()
        scored += len(batch)
    progress("scoring", len(todo), len(todo))
    return ScoreTable.concat(tables)


def _complete(done: ScoreTable, scorer: Scorer, outputs: Sequence[Output]) -> set[str]:
    """Samples all of whose outputs every component has scored, and whose features are there: a verifier of groups must see a group whole."""
    if not len(done):
        return set()
    wanted = Counter(output.sample_id for output in outputs)
    rows = done.frame.groupby("sample").size().to_dict()
    lacking: set[str] = set()
    for label, verifier in scorer.by_name.items():
        own = done.verifier(label).frame
        for encoder in verifier.encoders():
            kept = own["content"].map(lambda content: list((content or {}).values())).explode().dropna()
            hashes = kept[kept.str.fullmatch("[0-9a-f]{64}").astype(bool)]
            there = scorer.bank.has_features(encoder, hashes.tolist())
            lacking |= set(own["sample"].loc[hashes.index[~there]])
    scored = {name for name, count in wanted.items() if rows.get(name, 0) >= count * len(scorer.verifiers)}
    return scored - lacking


def baseline_rows(
    protocol: Protocol,
    samples: Sequence[Sample],
    scorer: Scorer,
    progress: Progress,
) -> dict[str, Any]:
    """Metrics of the rows every table is printed beside, by the same scorer: marks to read a run by, so without intervals."""
    from rsw_rewards.rollouts.baselines import make_baseline

    rows: dict[str, Any] = {}
    draws = OUTPUT_FIELDS[protocol.task] != ("text",)
    part = list(samples[:BASELINE_SAMPLES]) if draws else list(samples)
    # Pictures are dropped once they are scored; texts are small, and looked at in larger parts.
    size = CHUNK if draws and not needs_whole(scorer) else len(part)
    by_id = {sample.id: sample for sample in part}
    scale = box_scale(scorer.by_name) if "boxes" in OUTPUT_FIELDS[protocol.task] else "pixels"
    for number, use in enumerate(protocol.baselines):
        progress("baselines", number, len(protocol.baselines))
        name = named(use)
        tables: list[ScoreTable] = []
        lost: list[str] = []
        try:
            policy = make_baseline(use, samples)
            set_up(policy)
            for start in range(0, len(part), size):
                made = outputs_of(policy, [Request(sample) for sample in part[start : start + size]])
                outputs = made if scale == "pixels" else [written_in(scale, one, by_id[one.sample_id]) for one in made]
                lost += [output.lost for output in outputs if output.lost is not None]
                for batch in batches(scorer, part, outputs, grow=True):
                    tables.append(scorer.score(batch))
                scorer.bank.settle()
        except ConfigError as error:
            # Weights that are not there, or code of a user's that is wrong: the run keeps its own numbers.
            rows[name] = {"metrics": {}, "reason": str(error)}
            continue
        metrics = metrics_of(protocol, scorer.by_name, ScoreTable.concat(tables), scorer.bank, intervals=False)
        rows[name] = {"metrics": metrics, "n": len(part) - len(lost)}
        if lost:
            rows[name]["reason"] = f"{len(lost)} samples do not fit it: {lost[0]}"
    progress("baselines", len(protocol.baselines), len(protocol.baselines))
    return rows


def add_chance_corrected(summary: dict[str, Any]) -> None:
    """Put ``chance_corrected`` beside every accuracy: 0 for answering the most common answer of every kind, 1 for perfect.

    Its interval is the accuracy's, rescaled: the guess counts as a fixed property of these samples.
    """
    majority = summary["baselines"].get("majority", {}).get("metrics", {})
    for key in ("accuracy", "oa", "aa"):
        entry, guess = summary["metrics"].get(key), (majority.get(key) or {}).get("value")
        if entry and entry["value"] is not None and guess is not None and guess < 1:
            entry["chance_corrected"] = chance_corrected(entry["value"], guess)
            if entry["ci95"]:
                entry["chance_corrected_ci95"] = [chance_corrected(end, guess) for end in entry["ci95"]]
