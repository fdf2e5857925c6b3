"""``rsw train``: reads the configuration, prepares the run directory and hands over to the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from rsw_rewards.config import ExperimentConfig, load_config, read_yaml
from rsw_rewards.errors import ConfigError
from rsw_rewards.plugins import resolve_object
from rsw_rewards.training.processes import check_one_process, join, launched

TRAINERS: Mapping[str, str] = {
    "grpo": "rsw_rewards.training.grpo:train_grpo",
    "ppo": "rsw_rewards.training.ppo:train_ppo",
    "flow_grpo": "rsw_rewards.training.diffusion:train",
    "diffusion_supervised": "rsw_rewards.training.diffusion_supervised:train",
    "supervised": "rsw_rewards.training.supervised:train",
    "vlm_supervised": "rsw_rewards.training.vision_language:train",
    "build_world_model": "rsw_rewards.training.build_world_model:train",
    "tokenizer": "rsw_rewards.training.tokenizer:train",
    "clip": "rsw_rewards.training.encoders:train_clip",
    "detector": "rsw_rewards.training.encoders:train_detector",
}
"""Every method takes its own configuration model; those that train with rewards also whether to go on, and the processes."""

MAY_CHANGE = frozenset({"out", "print_every", "tensorboard", "dump_every"})
"""What a resumed run may do differently without becoming another run."""


def train(config: Path, overrides: Sequence[str] = (), resume: Path | None = None, smoke: bool = False) -> Path:
    """Train by a configuration file.

    Args:
        config: the YAML file.
        overrides: ``a.b=c`` assignments.
        resume: a run directory to go on with; the configuration must be the one it was started with.
        smoke: apply the file's ``smoke`` section: a few tiny steps.

    Returns:
        The run directory.

    Raises:
        RswError: a configuration, data or directory that cannot be used, or a run that stopped itself.
    """
    if resume is not None:
        overrides = [*overrides, f"out={resume}"]
    run = load_config(Path(config), overrides, smoke)
    out, method = Path(getattr(run, "out")), str(getattr(run, "method"))  # noqa: B009  (every method's model has them)
    if isinstance(run, ExperimentConfig):
        run.check_processes(launched())
        processes = join(run.generation.on_cpu)
        if processes.first:
            _prepare(out, run, resume is not None)
        processes.share()
        resolve_object(TRAINERS[method], "trainer")(run, resume is not None, processes)
    else:
        check_one_process(f"the method {method!r}")
        _prepare(out, run, resume is not None)
        if resume is not None:
            raise ConfigError(f"--resume: runs of the method {method!r} cannot be taken up again")
        resolve_object(TRAINERS[method], "trainer")(run)
    return out


def _prepare(out: Path, run: BaseModel, resume: bool) -> None:
    """Make the run directory with the resolved configuration in it, or check that a run there is the one to go on with."""
    stored = out / "config.yaml"
    resolved = run.model_dump(mode="json")
    if resume:
        if not stored.exists():
            raise ConfigError(f"--resume: {out} is not the directory of a run (it has no config.yaml)")
        if changed := _difference(read_yaml(stored), resolved):
            raise ConfigError(
                f"--resume: {changed} differs from {stored}; a run can only go on with the configuration it was started with"
            )
        return
    if stored.exists() and len(list(out.iterdir())) > 1:  # a run that failed at its start leaves nothing to lose
        raise ConfigError(
            f"{out} holds a run already; give another directory (--set out=DIR) or go on with --resume {out}"
        )
    out.mkdir(parents=True, exist_ok=True)
    stored.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")


def _difference(old: Any, new: Any, key: str = "") -> str | None:
    """The first key in which two configurations differ, leaving aside what may change."""
    if key in MAY_CHANGE or old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for part in {**old, **new}:
            if found := _difference(old.get(part), new.get(part), f"{key}.{part}".lstrip(".")):
                return found
        return None
    return f"{key!r} ({new!r} instead of {old!r})"
