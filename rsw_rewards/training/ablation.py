"""``rsw ablate``: the same training with each reward left out, alone, or weighted otherwise, and what that does to held-out numbers.

Every variant and seed is a run directory of its own, made by ``rsw train`` in a process of its own. A run that is finished is never
done again and one that was cut off is taken up, so the command may be stopped and repeated at any time.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rsw_rewards.config import ExperimentConfig, load_config, read_yaml, validated
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.leaderboard import sign
from rsw_rewards.evaluation.reweighting import parse_weights
from rsw_rewards.evaluation.statistics import Estimate, paired_difference
from rsw_rewards.rubric import Rubric, component_tasks, parse_rubric
from rsw_rewards.scores import ScoreTable
from rsw_rewards.training.processes import check_one_process
from rsw_rewards.training.schedule import shares
from rsw_rewards.training.sources import load_source

FULL = "all rewards"
KINDS = ("leave-one-out", "single")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to weigh the rewards."""

    name: str
    weights: Mapping[str, float] = field(hash=False)
    component: str = ""
    """The reward that it leaves out; empty for other variants."""

    @property
    def folder(self) -> str:
        """A name for its run directories."""
        return re.sub(r"[^\w.=-]+", "-", self.name).strip("-")


def variants(rubric: Rubric, kinds: Sequence[str], weightings: Sequence[str] = ()) -> list[Variant]:
    """The full rubric and its variations.

    Args:
        rubric: what is trained with.
        kinds: of :data:`KINDS`: each reward left out, each reward alone.
        weightings: ``component=weight,...`` each; what is not named weighs 0.

    Raises:
        ConfigError: an unknown kind, weights that do not fit, or a rubric of one reward where one is to be left out.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ConfigError(f"no kind of ablation is named {min(unknown)!r}; known are {', '.join(KINDS)}")
    own = {component.label: component.weight for component in rubric.components}
    rewarding = [label for label, weight in own.items() if weight > 0]
    if len(rewarding) < 2 and kinds:
        raise ConfigError(
            "the rubric has one reward; there is nothing to leave out (give --weights to try other weights)"
        )
    found = [Variant(FULL, own)]
    if "leave-one-out" in kinds:
        found += [Variant(f"without {label}", {**own, label: 0.0}, label) for label in rewarding]
    if "single" in kinds:
        found += [Variant(f"only {label}", {**dict.fromkeys(own, 0.0), label: own[label]}) for label in rewarding]
    for text in weightings:
        weights = parse_weights(text, rubric)
        found.append(Variant(", ".join(f"{label}={weight:g}" for label, weight in weights.items()), weights))
    return list({variant.folder: variant for variant in found}.values())


def configured(
    config: ExperimentConfig, variant: Variant, seed: int, out: Path, tasks: Sequence[str]
) -> dict[str, Any]:
    """The configuration of one run, as plain data.

    A task that the variant has no reward for is not trained on: its prompts go to the other tasks in equal shares.

    Args:
        config: the run as its file has it.
        tasks: those of the training samples.
    """
    rubric = parse_rubric(config.rubric, "rubric")
    parts = [part.model_copy(update={"weight": variant.weights[part.label]}) for part in rubric.components]
    content = config.model_dump(mode="json")
    content |= {"seed": seed, "out": str(out), "rubric": rubric.model_copy(update={"components": tuple(parts)}).dump()}
    rewarded = {task for part in parts if part.weight > 0 for task in component_tasks(part, part.build())}
    kept = sorted(task for task in tasks if task in rewarded)
    if not kept:
        raise ConfigError(f"{variant.name!r} rewards none of the tasks {', '.join(tasks)}")
    if len(kept) < len(tasks):
        prompts, section = config.generation.prompts, method(config)
        mix = {task: prompts // len(kept) + (place < prompts % len(kept)) for place, task in enumerate(kept)}
        content[section] = {**content[section], "mix": mix}
    return content


def method(config: ExperimentConfig) -> str:
    """The method's name, which is also that of its section."""
    return str(getattr(config, "method"))  # noqa: B009  (every method's model has it)


def fitting(config: ExperimentConfig) -> int:
    """Runs that this machine's cores have room for at a time, at least one."""
    learner = config.generation.threads or os.cpu_count() or 1
    return max(1, (os.cpu_count() or 1) // max(learner, config.rollouts.actors * config.rollouts.threads))


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a variant with a seed."""

    variant: Variant
    seed: int
    out: Path

    @property
    def finished(self) -> bool:
        """Whether its held-out numbers are written, which is the last thing a run does."""
        return (self.out / "heldout.json").is_file()


def run_job(job: Job, content: Mapping[str, Any]) -> str:
    """Train, in a process of its own; returns why it failed, empty where it did not. Its output is in ``log.txt``."""
    job.out.parent.mkdir(parents=True, exist_ok=True)
    file = job.out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-c", "from rsw_rewards.cli import main; main()", "train", str(file)]
    command += ["--resume", str(job.out)] if (job.out / "config.yaml").is_file() else []
    log = job.out.with_suffix(".log")
    with log.open("ab") as words:
        code = subprocess.run(
            command, stdout=words, stderr=subprocess.STDOUT, check=False, env=dict(os.environ)
        ).returncode
    if code == 0 and job.finished:
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1] if lines else 'it said nothing'} ({log})"


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


def ablate(
    file: Path,
    *,
    out: Path,
    seeds: Sequence[int] = (1, 2, 3),
    kinds: Sequence[str] = ("leave-one-out",),
    weightings: Sequence[str] = (),
    overrides: Sequence[str] = (),
    parallel: int = 1,
    smoke: bool = False,
    say: Callable[[str], None] = print,
) -> Ablation:
    """Run all variants of a training configuration with all seeds, and compare what they do to held-out numbers.

    Writes ``ablation.json``, ``ablation.md``, ``ablation.html`` and one run directory per variant and seed to ``out``.

    Args:
        file: configuration of ``rsw train`` with the method ``grpo``, ``ppo`` or ``flow_grpo`` and held-out samples.
        seeds: of the runs; differences are paired by seed.
        parallel: runs at a time; 0 for as many as the cores have room for.
        smoke: apply the file's ``smoke`` section.
        say: told of every run that begins or ends.

    Raises:
        ConfigError: the configuration cannot be ablated, or ``out`` holds another ablation.
    """
    check_one_process("an ablation")  # which starts its runs itself
    config = load_config(Path(file), [*overrides, f"out={out}"], smoke)
    if not isinstance(config, ExperimentConfig) or config.heldout is None:
        raise ConfigError(
            f"{file}: an ablation needs a method that learns from rewards (grpo, ppo, flow_grpo) and 'heldout' samples"
        )
    rubric = parse_rubric(config.rubric, "rubric")
    chosen = variants(rubric, kinds, weightings)
    samples = load_source(config.train, config.seed, "train")
    tasks = sorted(shares(samples, config.generation.prompts, config.generation.mix))
    jobs = [Job(variant, seed, out / variant.folder / f"seed_{seed}") for seed in seeds for variant in chosen]
    contents = {job: configured(config, job.variant, job.seed, job.out, tasks) for job in jobs}
    _claim(out, config)
    found = Ablation(out, tuple(seeds))
    todo = [job for job in jobs if not job.finished]
    say(
        f"{len(jobs)} runs ({len(chosen)} variants, {len(seeds)} seeds), {len(jobs) - len(todo)} of them finished already"
    )

    def work(job: Job) -> None:
        _share_start(job, jobs)
        say(f"training {job.variant.name}, seed {job.seed}")
        if why := run_job(job, contents[job]):
            found.failed[f"{job.variant.name}, seed {job.seed}"] = why
            say(f"{job.variant.name}, seed {job.seed} failed: {why}")
        write(found, config, chosen)

    with ThreadPoolExecutor(parallel or fitting(config)) as pool:
        list(pool.map(work, todo))
    write(found, config, chosen)
    return found


def _share_start(job: Job, jobs: Sequence[Job]) -> None:
    """Give a run the held-out scores of another from before training: all start from the same weights."""
    known = next((other.out / "heldout" for other in jobs if other.finished), None)
    if known is None or (job.out / "heldout").exists():
        return
    partial = job.out / ".heldout"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in known.glob("before_*.parquet"):
        shutil.copyfile(file, partial / file.name)
    partial.rename(job.out / "heldout")


def _claim(out: Path, config: ExperimentConfig) -> None:
    """Refuse a folder of another ablation, whose finished runs would be taken for this one's."""
    mark = out / "ablation.yaml"
    content = config.model_dump(mode="json", exclude={"out", "seed"})
    if mark.is_file():
        # Through the model, so that keys that are newer than the ablation do not make it another one.
        known = validated(type(config), {**read_yaml(mark), "out": out}, str(mark))
        if known.model_dump(mode="json", exclude={"out", "seed"}) != content:
            raise ConfigError(f"{out} holds an ablation of another configuration; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Trained:
    """One held-out number of one run."""

    after: float | None
    change: Estimate
    """After training less before, paired over scenes."""


def compare(found: Ablation, config: ExperimentConfig, chosen: Sequence[Variant]) -> list[Effect]:
    """Every held-out number of every variant against the full rubric, over the seeds that both have finished."""
    from rsw_rewards.training.heldout import measured_rubric, rewarded_labels

    rubric = parse_rubric(config.rubric, "rubric")
    measured = measured_rubric(config.measure, rubric)
    trained = rewarded_labels(measured, rubric)
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
            for component in measured.components:
                pairs = [
                    (_table(found.out / full.folder, seed, mode, component.label), _table(found.out / variant.folder, seed, mode, component.label))
                    for seed in done
                ]  # fmt: skip
                for metric in component.build().metrics():
                    keys = [
                        key for key in metric.keys if key in bases[done[0]][mode] and (wanted is None or key in wanted)
                    ]
                    if not keys:
                        continue
                    by_seed = [_paired(metric, *pair) for pair in pairs]
                    for key in keys:
                        differences = [one[key] for one in by_seed]
                        if any(
                            one.value is None for one in differences
                        ):  # features of images are not kept: take the numbers
                            differences = [
                                _plain(bases[seed][mode][key].after, records[seed][mode][key].after) for seed in done
                            ]
                        effects.append(
                            _effect(
                                variant, mode, key, component.label in trained, differences,
                                [records[seed][mode][key] for seed in done], [bases[seed][mode][key] for seed in done],
                            )
                        )  # fmt: skip
        if said := _alarms(found.out / variant.folder, done):
            found.alarms[variant.name] = said
    return effects


def _heldout(folder: Path, seed: int) -> dict[str, dict[str, Trained]]:
    """Decoding -> metric -> what a run did to it."""
    content = json.loads((folder / f"seed_{seed}" / "heldout.json").read_text(encoding="utf-8"))
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
        content = json.loads((folder / f"seed_{seed}" / "heldout.json").read_text(encoding="utf-8"))
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


def _effect(
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


def write(found: Ablation, config: ExperimentConfig, chosen: Sequence[Variant]) -> None:
    """``ablation.json``, ``.md`` and ``.html`` of the runs that are finished."""
    from rsw_rewards.evaluation.results import write_text
    from rsw_rewards.training.ablation_page import page, table

    if not any(Job(chosen[0], seed, found.out / chosen[0].folder / f"seed_{seed}").finished for seed in found.seeds):
        return
    found.alarms = {}
    found.effects = compare(found, config, chosen)
    record = {
        "seeds": list(found.seeds),
        "failed": found.failed,
        "alarms": found.alarms,
        "effects": [asdict(effect) for effect in found.effects],
    }
    write_text(found.out / "ablation.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(found.out / "ablation.md", table(found))
    write_text(found.out / "ablation.html", page(found))
