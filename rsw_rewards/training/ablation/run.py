"""The runs of an ablation.

Every variant and seed is a run directory of its own, made by ``rsw train`` in a process of its own. A run that is finished is never
done again and one that was cut off is taken up, so the command may be stopped and repeated at any time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsw_rewards.config import ExperimentConfig, load_config
from rsw_rewards.core.files import write_json, write_text
from rsw_rewards.core.settings import validated
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need
from rsw_rewards.training.ablation.effects import Ablation, compare
from rsw_rewards.training.ablation.page import page, table
from rsw_rewards.training.ablation.variants import Job, Variant, configured, variants
from rsw_rewards.training.processes import check_one_process
from rsw_rewards.training.schedule import shares
from rsw_rewards.training.sources import load_source


def ablate(
    file: Path,
    *,
    out: Path,
    seeds: Sequence[int] = (1, 2, 3),
    kinds: Sequence[str] = ("leave-one-out",),
    weightings: Sequence[Mapping[str, float]] = (),
    changes: Mapping[str, Any] | None = None,
    parallel: int = 1,
    smoke: bool = False,
    ray_address: str | None = None,
    say: Callable[[str], None] = print,
) -> Ablation:
    """Run all variants of a training configuration with all seeds, and compare what they do to held-out numbers.

    Writes ``ablation.json``, ``ablation.md``, ``ablation.html`` and one run directory per variant and seed to ``out``.

    Args:
        file: configuration of ``rsw train`` with the method ``grpo``, ``ppo`` or ``flow_grpo`` and held-out samples.
        seeds: of the runs; differences are paired by seed.
        changes: of the configuration, ``a.b`` -> value.
        parallel: runs at a time; 0 for as many as the cores have room for.
        smoke: apply the file's ``smoke`` section.
        ray_address: a running Ray cluster for all runs to join; None starts one for each.
        say: told of every run that begins or ends.

    Raises:
        ConfigError: the configuration cannot be ablated, or ``out`` holds another ablation.
    """
    need("a training", "trl")
    check_one_process("an ablation")  # which starts its runs itself
    config = load_config(Path(file), {**(changes or {}), "out": str(out)}, smoke)
    if not isinstance(config, ExperimentConfig) or config.heldout is None:
        raise ConfigError(
            f"{file}: an ablation needs a method that learns from rewards (grpo, ppo, flow_grpo) and 'heldout' samples"
        )
    chosen = variants(config.rubric, kinds, weightings)
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
        if why := run_job(job, contents[job], ray_address):
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
    write_run_yaml(mark, content)


def fitting(config: ExperimentConfig) -> int:
    """Runs that this machine's cores have room for at a time, at least one."""
    learner = config.generation.threads or os.cpu_count() or 1
    return max(1, (os.cpu_count() or 1) // max(learner, config.rollouts.actors * config.rollouts.threads))


_TRAIN = (
    "import ctypes, signal; ctypes.CDLL(None).prctl(1, signal.SIGKILL);"  # PR_SET_PDEATHSIG: it ends when this process is killed
    "from rsw_rewards.cli import main; main()"
)


def run_job(job: Job, content: Mapping[str, Any], ray_address: str | None) -> str:
    """Train, in a process of its own; returns why it failed, empty where it did not. Its output is in ``log.txt``."""
    job.out.parent.mkdir(parents=True, exist_ok=True)
    file = job.out.with_suffix(".yaml")
    write_run_yaml(file, content)
    command = [sys.executable, "-c", _TRAIN, "train", str(file)]
    command += ["--resume", str(job.out)] if (job.out / "config.yaml").is_file() else []
    command += ["--ray-address", ray_address] if ray_address else []
    log = job.out.with_suffix(".log")
    with log.open("ab") as words:
        code = subprocess.run(
            command, stdout=words, stderr=subprocess.STDOUT, check=False, env=dict(os.environ)
        ).returncode
    if code == 0 and job.finished:
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1] if lines else 'it said nothing'} ({log})"


def write(found: Ablation, config: ExperimentConfig, chosen: Sequence[Variant]) -> None:
    """``ablation.json``, ``.md`` and ``.html`` of the runs that are finished."""
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
    write_json(found.out / "ablation.json", record)
    write_text(found.out / "ablation.md", table(found))
    write_text(found.out / "ablation.html", page(found))
