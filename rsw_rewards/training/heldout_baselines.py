"""What needs no training: the numbers of baselines on the held-out samples, to read a policy's numbers by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rsw_rewards.core.files import write_json
from rsw_rewards.core.records import OUTPUT_FIELDS, Sample, Task
from rsw_rewards.core.verifier import Batch, named_metrics
from rsw_rewards.errors import RswError
from rsw_rewards.evaluation.statistics import estimates
from rsw_rewards.rollouts.baselines import make_baseline
from rsw_rewards.rollouts.policy import Request, outputs_of, set_up
from rsw_rewards.training.heldout import Heldout


def baseline_of(task: Task) -> str | None:
    """The baseline beside which numbers of a task are shown: the most common answer, the most common caption, the newest input."""
    if task is Task.FORECAST:
        return "copy_before"
    if OUTPUT_FIELDS[task] != ("text",):
        return None
    return "constant" if task is Task.CHANGE_CAPTION else "majority"


def write_baselines(path: Path, heldout: Heldout) -> None:
    """Write each baseline's value of every measured metric that has one; nothing where the file is there already.

    A baseline that cannot be made of the samples is left out.
    """
    if path.exists():
        return
    by_task: dict[Task, list[Sample]] = {}
    for sample in heldout.samples:
        by_task.setdefault(sample.task, []).append(sample)
    found: dict[str, dict[str, float]] = {}
    for task, samples in by_task.items():
        if (name := baseline_of(task)) is not None:
            found[name] = {**_numbers(heldout, name, samples), **found.get(name, {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)


def _numbers(heldout: Heldout, name: str, samples: list[Sample]) -> Mapping[str, float]:
    try:
        policy = make_baseline(name, samples)
        set_up(policy)
        outputs = outputs_of(policy, [Request(sample) for sample in samples])
    except RswError:
        return {}
    table = heldout.scorer.score(Batch.of(samples, outputs))
    found: dict[str, float] = {}
    for label, metric, names in named_metrics(heldout.scorer.by_name):
        if len(rows := table.verifier(label)):
            known = estimates(metric, rows, heldout.scorer.bank, intervals=False)
            found |= {names[key]: float(one.value) for key, one in known.items() if one.value is not None}
    return found
