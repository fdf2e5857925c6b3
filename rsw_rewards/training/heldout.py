"""Held-out evaluation inside a training run: the same samples before and after, greedy and sampled, compared scene by scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rsw_rewards.config import HeldoutConfig
from rsw_rewards.core.files import write_json
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.core.rubric import Rubric, component_tasks, parse_rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch, named_metrics
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, RswError, did_you_mean
from rsw_rewards.evaluation.numbers import sign
from rsw_rewards.evaluation.progress import wide_console
from rsw_rewards.evaluation.statistics import Estimate, estimates, paired_difference
from rsw_rewards.evaluation.summary import in_words, nothing_valid
from rsw_rewards.rollouts.baselines import make_baseline
from rsw_rewards.rollouts.dumps import write_outputs
from rsw_rewards.rollouts.policy import Request, outputs_of, set_up
from rsw_rewards.rollouts.pool import RolloutPool

KEPT = 8
"""Held-out samples of each task whose outputs are kept."""


@dataclass(frozen=True, slots=True)
class Change:
    """One number before and after training."""

    mode: str
    """``greedy`` or ``sampled``."""
    verifier: str
    metric: str
    rewarded: bool
    """Whether its verifier has a weight in the rubric that was trained on."""
    before: Estimate
    after: Estimate
    difference: Estimate

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``changed`` for a metric of which neither direction is better (a bias, a length), or ``=`` where the
        interval of the difference touches zero."""
        if self.difference.ci95 is None or self.difference.ci95[0] <= 0 <= self.difference.ci95[1]:
            return "="
        wanted = sign(self.metric)
        up = self.difference.ci95[0] > 0
        return "changed" if wanted == 0 else "better" if up == (wanted > 0) else "worse"


def measured_rubric(config: HeldoutConfig, rubric: Rubric) -> Rubric:
    """What is measured on held-out samples: the components named for it, or those that are trained on."""
    if config.components is None:
        return rubric
    return parse_rubric({"components": [{"weight": 0.0, **part} for part in config.components]}, "measure")


def rewarded_labels(measured: Rubric, trained: Rubric) -> set[str]:
    """The measured components that are also rewards, under whatever name: the same verifier with the same configuration."""
    paid = [part for part in trained.components if part.weight > 0]
    return {
        part.label
        for part in measured.components
        if any(part.label == other.label or (part.use, part.config) == (other.use, other.config) for other in paid)
    }


class Heldout:
    """Measures a policy on samples that training never sees.

    Args:
        samples: the held-out samples.
        config: what is measured.
        rubric: what is trained on; its components are measured where the configuration names none.
        temperature: of the sampled measurement.

    Raises:
        ConfigError: a metric is to be shown that no component has, or the components cannot score the samples.
    """

    def __init__(self, samples: Sequence[Sample], config: HeldoutConfig, rubric: Rubric, temperature: float) -> None:
        self.samples = samples
        self.config = config
        self.temperature = temperature
        self.rubric = measured_rubric(config, rubric)
        self.trained = rewarded_labels(self.rubric, rubric)
        # In this process on the CPU, whatever the rewards use: measurements are few, and are compared over a whole run.
        self.scorer = Scorer(self.rubric, seed=config.seed)
        there = [name for named in named_metrics(self.scorer.by_name) for name in named.names.values()]
        if unknown := [name for name in config.metrics or () if name not in there]:
            raise ConfigError(
                f"measure.metrics: no measured component has the metric {unknown[0]!r}; {did_you_mean(unknown[0], there)}"
            )
        self.scorer.check(samples)
        self.scorer.prepare(samples)

    def measure(
        self,
        pool: RolloutPool,
        samples: Sequence[Sample] | None = None,
        modes: Sequence[str] | None = None,
        keep: Path | None = None,
    ) -> dict[str, ScoreTable]:
        """Scores of one output per sample, ``greedy`` and (unless switched off) ``sampled``.

        Seeds are the same at every call, so that a difference is the policy's.

        Args:
            pool: makes the outputs.
            samples: some of the held-out samples; all where left out.
            modes: some of the decodings; all where left out.
            keep: gets the greedy outputs of the first :data:`KEPT` samples of each task, to be looked at.
        """
        samples = self.samples if samples is None else samples
        tables = {}
        for mode in self.modes if modes is None else modes:
            groups = pool.generate(
                samples, 1, self.modes[mode], run_seed=self.config.seed, step=-1, chunk=self.config.chunk
            )
            made: dict[str, Output] = {}
            console = Console()
            for group in track(
                groups, f"held-out, {mode}", len(samples), console=console, disable=not console.is_terminal
            ):
                made[group[0].sample_id] = group[0]
            outputs = [made[sample.id] for sample in samples]
            tables[mode] = self.scorer.score(Batch.of(samples, outputs))
            if keep is not None and mode == "greedy":
                few = first_of_each_task(samples, KEPT)
                write_outputs(keep, few, [made[sample.id] for sample in few])
        return tables

    @staticmethod
    def said_of(tables: Mapping[str, ScoreTable]) -> list[str]:
        """What must be said of the tables of :meth:`measure`, by decoding: that no output of a task was valid, and why."""
        return [
            f"held-out, {mode}: {line}"
            for mode, table in tables.items()
            for found in nothing_valid(table)
            for line in in_words(found)
        ]

    def stored(self, folder: Path, when: str) -> dict[str, ScoreTable] | None:
        """What :meth:`measure` gave before, where it was written to ``folder`` as ``<when>_<mode>.parquet`` and nothing else is needed.

        Metrics of features need those of the very pictures, which are not kept: then it must be measured again.
        """
        if any(verifier.encoders() for verifier in self.scorer.verifiers):
            return None
        files = {mode: Path(folder) / f"{when}_{mode}.parquet" for mode in self.modes}
        if not all(file.is_file() for file in files.values()):
            return None
        tables = {mode: ScoreTable.read(file) for mode, file in files.items()}
        own = {sample.id for sample in self.samples}
        return tables if all(set(table.frame["sample"]) == own for table in tables.values()) else None

    @property
    def tasks(self) -> dict[str, set[str]]:
        """What each component measures, of the tasks of the held-out samples."""
        there = {str(sample.task) for sample in self.samples}
        pairs = zip(self.rubric.components, self.scorer.verifiers, strict=True)
        return {part.label: there & {str(task) for task in component_tasks(part, verifier)} for part, verifier in pairs}

    @property
    def modes(self) -> dict[str, float]:
        """Temperature by the name of the decoding."""
        return {"greedy": 0.0, **({"sampled": self.temperature} if self.config.sampled else {})}

    def compare(self, before: Mapping[str, ScoreTable], after: Mapping[str, ScoreTable]) -> list[Change]:
        """Every metric of every verifier, with intervals over scenes; differences are paired."""
        changes = []
        for mode in before:
            for label, metric, names in named_metrics(self.scorer.by_name):
                first, second = (side[mode].verifier(label) for side in (before, after))
                if not len(first):
                    continue
                known = estimates(metric, first, self.scorer.bank)
                new = estimates(metric, second, self.scorer.bank)
                difference = paired_difference(metric, first, second, self.scorer.bank, p_values=False)
                changes += [
                    Change(mode, label, name, label in self.trained, known[key], new[key], difference[key])
                    for key, name in names.items()
                ]
        return changes

    def shown(self, changes: Sequence[Change]) -> list[Change]:
        """Those of the metrics that the configuration wants to see; all where it names none."""
        wanted = self.config.metrics
        return [change for change in changes if wanted is None or change.metric in wanted]

    def close(self) -> None:
        """Release what the verifiers hold."""
        self.scorer.close()


def first_of_each_task(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """The first ``count`` samples of each task, in their order; all for None."""
    seen: dict[str, int] = {}
    kept = []
    for sample in samples:
        seen[sample.task] = seen.get(sample.task, 0) + 1
        if count is None or seen[sample.task] <= count:
            kept.append(sample)
    return kept


def print_changes(changes: Sequence[Change], about: str) -> None:
    """The before / after table."""
    table = Table(title=f"Held-out, before and after training ({about})", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("metric", "decoding", "rewarded"):
        table.add_column(name)
    for name in ("before", "after", "difference, 95 % interval"):
        table.add_column(name, justify="right")
    table.add_column("")
    for change in changes:
        interval = change.difference.ci95
        between = "" if interval is None else f" [{_digits(interval[0], '+')}, {_digits(interval[1], '+')}]"
        table.add_row(
            change.metric,
            change.mode,
            "yes" if change.rewarded else "never",
            _digits(change.before.value),
            _digits(change.after.value),
            _digits(change.difference.value, "+") + between,
            change.verdict,
            style={"better": "green", "worse": "red"}.get(change.verdict),
        )
    wide_console().print(table)


def write_changes(path: Path, changes: Sequence[Change], about: Mapping[str, Any]) -> None:
    """``heldout.json``: what was measured and every change, by decoding and metric."""
    write_json(Path(path), {**about, "changes": changes_record(changes)})


def changes_record(changes: Sequence[Change]) -> dict[str, Any]:
    """Changes as plain data, by decoding and metric."""
    modes: dict[str, Any] = {}
    for change in changes:
        modes.setdefault(change.mode, {})[change.metric] = {
            "verifier": change.verifier,
            "rewarded": change.rewarded,
            "before": change.before.to_json(),
            "after": change.after.to_json(),
            "difference": change.difference.to_json(),
            "verdict": change.verdict,
        }
    return modes


def _digits(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign}.1f}"


def counted(samples: Sequence[Sample]) -> str:
    """How many samples of each task, in words."""
    tasks = Counter(str(sample.task) for sample in samples)
    return ", ".join(f"{count} {task}" for task, count in sorted(tasks.items()))


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
