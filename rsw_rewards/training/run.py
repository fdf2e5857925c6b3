"""``rsw train``: reads the configuration, prepares the run directory and hands over to the method."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rsw_rewards.config import ExperimentConfig, TeachingConfig, load_config
from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need, quiet
from rsw_rewards.methods import METHODS
from rsw_rewards.training.processes import ALONE, check_one_process, join, launched
from rsw_rewards.training.report.page import LivePage
from rsw_rewards.training.run_folder import note_start, run_folder


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
    quiet()
    if resume is not None:
        changes = {**(changes or {}), "out": str(resume)}
    run = load_config(Path(config), changes, smoke)
    out, method = Path(getattr(run, "out")), str(getattr(run, "method"))  # noqa: B009  (every method's model has them)
    arguments: list[Any] = []
    processes = ALONE
    if isinstance(run, ExperimentConfig | TeachingConfig):
        run.check_processes(launched())
        learner = run.generation if isinstance(run, ExperimentConfig) else run
        processes = join(learner.on_cpu, learner.fsdp)
        arguments = [resume is not None, processes]
    else:
        check_one_process(f"the method {method!r}")
        if resume is not None:
            raise ConfigError(
                f"--resume: runs of the method {method!r} cannot be taken up again; start it in another directory"
            )
    with run_folder(out, run, resume is not None) if processes.first else nullcontext():
        processes.broadcast()  # nothing: the others wait until the first has the folder
        if processes.first:
            note_start(out)
        try:
            resolve_object(METHODS[method].train, "trainer")(run, *arguments)
        finally:  # what stopped a run can be looked at
            if processes.first:
                LivePage(out).refresh(now=True)
    return out
