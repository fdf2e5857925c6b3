"""The rows that every table is printed beside: what tricks and the truth get on the same samples, by the same scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsw_rewards.core.plugins import named
from rsw_rewards.core.records import OUTPUT_FIELDS, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import CHUNK, Scorer, batches, needs_whole
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.progress import Progress
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.summary import metrics_of
from rsw_rewards.rollouts.policy import Request, outputs_of, set_up
from rsw_rewards.verifiers.answers import chance_corrected
from rsw_rewards.verifiers.boxes import box_scale, written_in

BASELINE_SAMPLES = 1000
"""Samples that baselines which draw pictures are run on; the first of each evaluation, and said beside the numbers."""


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
        except (
            ConfigError
        ) as error:  # weights that are not there, or code of a user's that is wrong: the run keeps its own numbers
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
