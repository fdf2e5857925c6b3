"""A dumped generation as groups of candidates with their images, scores, rewards and advantages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.evaluation.pages import Key, score, score_rows, shortened, truth_of
from rsw_rewards.evaluation.pictures import pictures
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.training.report.findings import Dumped, counted
from rsw_rewards.training.report.run_files import RunFiles


@dataclass(frozen=True)
class Dump:
    """One dumped generation."""

    step: int
    """Steps that were done before it."""
    samples: list[Sample]
    outputs: list[Output]
    rows: Mapping[Key, list[dict[Any, Any]]]
    """Scores by output."""
    rewards: Mapping[Key, float | None]
    advantages: Mapping[Key, float] = field(default_factory=dict)
    """Empty where they are not a function of the rewards alone."""

    @property
    def counts(self) -> Dumped:
        """What the list of findings needs to know."""
        invalid = [
            (key, str(row["reason"] or "no reason is noted"))
            for key, rows in self.rows.items()
            for row in rows
            if row["status"] == Status.INVALID_OUTPUT
        ]
        return counted(self.step, self.outputs, invalid)


def read_dump(folder: Path, run: RunFiles) -> Dump:
    """One dumped generation. Raises :class:`InputError` for files that cannot be read."""
    samples = load_samples(folder / "samples.jsonl")
    outputs, _ = load_outputs(folder / "predictions.jsonl", samples, own=True)
    columns = ["sample", "candidate", "verifier", "value", "status", "reason"]
    rows = score_rows(ScoreTable.read(folder / "scores.parquet").frame[columns])
    given = [json.loads(line) for line in (folder / "rewards.jsonl").read_text(encoding="utf-8").splitlines()]
    rewards = {(row["id"], row["candidate"]): row["reward"] for row in given}
    step = int(folder.name.removeprefix("step_"))
    return Dump(step, samples, outputs, rows, rewards, advantages(run, samples, rewards))


def advantages(run: RunFiles, samples: Sequence[Sample], rewards: Mapping[Key, float | None]) -> dict[Key, float]:
    """What each rollout teaches under GRPO and Flow-GRPO, from the rewards that the trainer was given. Empty for other methods,
    for groups that are not whole, and where PyTorch is not installed."""
    group = run.settings.get("group")
    if run.method not in ("grpo", "flow_grpo") or not isinstance(group, int) or len(rewards) != group * len(samples):
        return {}
    try:
        import torch

        from rsw_rewards.training.advantages import group_advantages, grpo_advantages
    except ImportError:
        return {}
    tasks = {sample.id: str(sample.task) for sample in samples}
    names, kinds = list(tasks), sorted(set(tasks.values()))
    value = torch.tensor([torch.nan if one is None else one for one in rewards.values()], dtype=torch.float64)
    groups = torch.tensor([names.index(sample) for sample, _ in rewards])
    numbers = torch.tensor([kinds.index(tasks[sample]) for sample, _ in rewards])
    each = run.config.get("rubric", {}).get("combine") == "normalize_each"
    scale: Any = run.settings.get("scale_rewards") or ("batch" if each else "group")
    twice = (run.settings.get("trl") or {}).get("multi_objective_aggregation") == "normalize_then_sum"
    if run.method == "flow_grpo":
        limit = float(run.settings["advantage_clip"])
        found = group_advantages(value, groups, scale).clamp(-limit, limit)
    else:
        found = grpo_advantages(value, groups, numbers, scale, twice)
    return dict(zip(rewards, found.tolist(), strict=True))


def groups(dump: Dump, most: int | None = None) -> list[dict[str, Any]]:
    """The groups of a dump as cards, in the order in which they were asked for; the first ``most`` of them."""
    outputs: dict[str, list[Output]] = {}
    for output in dump.outputs:
        outputs.setdefault(output.sample_id, []).append(output)
    return [_group(dump, sample, outputs.get(sample.id, [])) for sample in dump.samples[:most]]


def _group(dump: Dump, sample: Sample, outputs: Sequence[Output]) -> dict[str, Any]:
    """A card: the prompt with its images, and its candidates beside each other."""
    sides = [_candidate(dump, sample, output) for output in outputs]
    known = [one["reward"] for one in sides if one["reward"] is not None]
    apart = []
    for one in sides:
        values = [score["value"] for score in one["scores"] if score["value"] is not None]
        apart.append(max(values) - min(values) if len(values) > 1 else 0.0)
    return {
        "id": sample.id,
        "task": str(sample.task),
        "kind": sample.kind or "",
        "prompt": shortened(sample.prompt),
        "truth": shortened(truth_of(sample)),
        "pictures": pictures(sample, Output(sample.id, invalid="none"), ("input", "truth")),
        "sides": sides,
        "numbers": {
            "reward": sum(known) / len(known) if known else None,
            "spread": max(known) - min(known) if known else 0.0,
            # How far components are apart on a candidate: the largest value less the smallest, averaged over candidates.
            "disagreement": sum(apart) / len(apart) if apart else 0.0,
        },
    }


def _candidate(dump: Dump, sample: Sample, output: Output) -> dict[str, Any]:
    key = (output.sample_id, output.candidate)
    problem = output.invalid or output.lost or ""
    return {
        "name": f"#{output.candidate}",
        "pictures": [] if problem else pictures(sample, output, ("made", "both")),
        "answer": shortened(output.text) if output.text is not None else "",
        "problem": problem,
        "reward": dump.rewards.get(key),
        "advantage": dump.advantages.get(key),
        "scores": [score(row) for row in dump.rows.get(key, ()) if row["status"] != Status.NOT_APPLICABLE],
    }
