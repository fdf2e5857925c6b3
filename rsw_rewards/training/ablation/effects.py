"""What the variants did: every held-out number beside that of the full rubric, over seeds and scenes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import named_metrics
from rsw_rewards.evaluation.numbers import sign
from rsw_rewards.evaluation.statistics import Estimate, paired_difference
from rsw_rewards.training.ablation.variants import FULL, Job, Variant
from rsw_rewards.training.heldout import measured_rubric, rewarded_labels
from rsw_rewards.training.report.run_files import read_heldout


@dataclass(frozen=True, slots=True)
class Effect:
    """One held-out number of a variant beside that of the full rubric."""

    variant: str
    component: str
    mode: str
    metric: str
    rewarded: bool
    """Whether the full rubric rewards its verifier."""
    value: float | None
    full: float | None
    difference: float | None
    """Variant less full, mean over seeds."""
    ci95: tuple[float, float] | None
    per_seed: tuple[float | None, ...]
    change: float | None
    """What training with this variant did to the number: after less before, mean over seeds."""
    change_ci95: tuple[float, float] | None
    verdict: str
    """Of the reward left out: ``useful`` (the number is worse without it), ``harmful`` (better without it), ``no effect seen``, or
    ``one seed``, which says nothing of another training."""


@dataclass
class Ablation:
    """What an ablation found, so far."""

    out: Path
    seeds: tuple[int, ...]
    effects: list[Effect] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Run -> why it has no numbers."""
    alarms: dict[str, list[str]] = field(default_factory=dict)
    """Variant -> seeds and words of the alarms at the end of its runs."""


@dataclass(frozen=True, slots=True)
class Trained:
    """One held-out number of one run."""

    after: float | None
    change: Estimate
    """After training less before, paired over scenes."""


def compare(found: Ablation, config: ExperimentConfig, chosen: Sequence[Variant]) -> list[Effect]:
    """Every held-out number of every variant against the full rubric, over the seeds that both have finished."""
    measured = measured_rubric(config.measure, config.rubric)
    trained = rewarded_labels(measured, config.rubric)
    built = {component.label: component.build() for component in measured.components}
    wanted = config.measure.metrics
    full, effects = chosen[0], []
    for variant in chosen:
        done = [
            seed for seed in found.seeds
            if all(Job(one, seed, found.out / one.folder / f"seed_{seed}").finished for one in (full, variant))
        ]  # fmt: skip
        records = {seed: _heldout(found.out / variant.folder, seed) for seed in done}
        bases = {seed: _heldout(found.out / full.folder, seed) for seed in done}
        for mode in sorted({mode for record in records.values() for mode in record}):
            pairs = {
                label: [
                    (_table(found.out / full.folder, seed, mode, label), _table(found.out / variant.folder, seed, mode, label))
                    for seed in done
                ]
                for label in built
            }  # fmt: skip
            for label, metric, names in named_metrics(built):
                told = {
                    key: name
                    for key, name in names.items()
                    if name in bases[done[0]][mode] and (wanted is None or name in wanted)
                }
                if not told:
                    continue
                by_seed = [_paired(metric, *pair) for pair in pairs[label]]
                for key, name in told.items():
                    differences = [one[key] for one in by_seed]
                    if any(
                        one.value is None for one in differences
                    ):  # features of images are not kept: take the numbers
                        differences = [
                            _plain(bases[seed][mode][name].after, records[seed][mode][name].after) for seed in done
                        ]
                    effects.append(
                        effect_of(
                            variant, mode, name, label in trained, differences,
                            [records[seed][mode][name] for seed in done], [bases[seed][mode][name] for seed in done],
                        )
                    )  # fmt: skip
        if said := _alarms(found.out / variant.folder, done):
            found.alarms[variant.name] = said
    return effects


def _heldout(folder: Path, seed: int) -> dict[str, dict[str, Trained]]:
    """Decoding -> metric -> what a run did to it."""
    content = read_heldout(folder / f"seed_{seed}")
    return {
        mode: {key: Trained(entry["after"]["value"], _estimate(entry["difference"])) for key, entry in changes.items()}
        for mode, changes in content["changes"].items()
    }


def _estimate(record: Mapping[str, Any]) -> Estimate:
    between = record["ci95"]
    return Estimate(record["value"], None if between is None else (between[0], between[1]), record["n_scenes"])


def _alarms(folder: Path, seeds: Sequence[int]) -> list[str]:
    """What the runs of a variant were warned of when they ended."""
    said = []
    for seed in seeds:
        content = read_heldout(folder / f"seed_{seed}")
        last = [alarm for alarm in content.get("alarms", ()) if alarm["step"] == content["steps"]]
        said += [f"seed {seed}: {alarm['words']}" for alarm in last]
    return said


def _table(folder: Path, seed: int, mode: str, label: str) -> ScoreTable:
    return ScoreTable.read(folder / f"seed_{seed}" / "heldout" / f"after_{mode}.parquet").verifier(label)


def _paired(metric: Any, base: ScoreTable, other: ScoreTable) -> dict[str, Estimate]:
    try:
        return paired_difference(metric, base, other)
    except KeyError:  # a set-level number, whose features were not kept
        return {key: Estimate(None, None, 0) for key in metric.keys}


def _plain(base: float | None, other: float | None) -> Estimate:
    return Estimate(None if base is None or other is None else other - base, None, 0)


def effect_of(
    variant: Variant,
    mode: str,
    key: str,
    rewarded: bool,
    differences: Sequence[Estimate],
    runs: Sequence[Trained],
    bases: Sequence[Trained],
) -> Effect:
    known = [one for one in differences if one.value is not None]
    mean = float(np.mean([one.value for one in known])) if known else None  # type: ignore[misc]
    interval = None if variant.name == FULL else over_seeds(known)
    verdict = ""
    wanted = sign(key)  # 0 for a bias or a length, of which neither direction is better: no verdict
    if variant.component and interval is not None and wanted and len(known) < 2:
        verdict = "one seed"  # another training might say the opposite
    elif variant.component and interval is not None and wanted:
        falls = interval[1] < 0 if wanted > 0 else interval[0] > 0
        rises = interval[0] > 0 if wanted > 0 else interval[1] < 0
        verdict = "useful" if falls else "harmful" if rises else "no effect seen"
    changes = [run.change for run in runs if run.change.value is not None]
    return Effect(
        variant.name, variant.component, mode, key, rewarded, _mean(run.after for run in runs), _mean(run.after for run in bases),
        mean, interval, tuple(one.value for one in differences), _mean(one.value for one in changes), over_seeds(changes), verdict,
    )  # fmt: skip


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def over_seeds(differences: Sequence[Estimate]) -> tuple[float, float] | None:
    """95 % interval of the mean of paired differences over seeds; None where neither scenes nor seeds say how sure it is.

    The variance is that over scenes (the mean over seeds, as the seeds share their scenes) plus that over seeds; Student's t with
    the degrees of freedom of Satterthwaite 1946. One seed leaves the scenes' part alone, which says nothing of another training.
    """
    from scipy.special import stdtrit

    values = np.array([one.value for one in differences], dtype=np.float64)
    if not len(values):
        return None
    parts = []
    widths = [(one.ci95[1] - one.ci95[0]) / 2 for one in differences if one.ci95 is not None]
    if len(widths) == len(values):
        scenes = max(1, min(one.n_scenes for one in differences) - 1)
        parts.append((float(np.mean(widths) / stdtrit(scenes, 0.975)) ** 2, scenes))
    if len(values) > 1:
        parts.append((float(values.var(ddof=1) / len(values)), len(values) - 1))
    variance = sum(part for part, _ in parts)
    if not parts or not variance > 0:
        return None
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
    return float(values.mean()) - half, float(values.mean()) + half
