"""``rsw train``: reads the configuration, prepares the run directory and hands over to the method."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rsw_rewards.config import ExperimentConfig, load_config
from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need
from rsw_rewards.training.processes import check_one_process, join, launched
from rsw_rewards.training.run_folder import run_folder
from rsw_rewards.training.teaching import TeachingConfig

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
"""Every method takes its own configuration model; those that keep checkpoints also whether to go on, those that train with rewards
also the processes."""


def train(
    config: Path, changes: Mapping[str, Any] | None = None, resume: Path | None = None, smoke: bool = False
) -> Path:
    """Train by a configuration file.

    Args:
        config: the YAML file.
        changes: of the configuration, ``a.b`` -> value.
        resume: a run directory to go on with; the configuration must be the one it was started with.
        smoke: apply the file's ``smoke`` section: a few tiny steps.

    Returns:
        The run directory.

    Raises:
        RswError: a configuration, data or directory that cannot be used, or a run that stopped itself.
    """
    need("a training", "trl")
    if resume is not None:
        changes = {**(changes or {}), "out": str(resume)}
    run = load_config(Path(config), changes, smoke)
    out, method = Path(getattr(run, "out")), str(getattr(run, "method"))  # noqa: B009  (every method's model has them)
    if isinstance(run, ExperimentConfig):
        run.check_processes(launched())
        processes = join(run.generation.on_cpu)
        with run_folder(out, run, resume is not None) if processes.first else nullcontext():
            processes.share()
            resolve_object(TRAINERS[method], "trainer")(run, resume is not None, processes)
    else:
        check_one_process(f"the method {method!r}")
        again = isinstance(run, TeachingConfig)
        if resume is not None and not again:
            raise ConfigError(
                f"--resume: runs of the method {method!r} cannot be taken up again; start it in another directory"
            )
        with run_folder(out, run, resume is not None):
            resolve_object(TRAINERS[method], "trainer")(run, *([resume is not None] if again else []))
    return out
