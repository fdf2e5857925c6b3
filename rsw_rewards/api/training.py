"""Training policies, and finding out which reward did what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.api.common import File

if TYPE_CHECKING:
    from rsw_rewards.training.ablation.effects import Ablation
    from rsw_rewards.training.dry_run import DryRun
    from rsw_rewards.training.finished import Run


def init(task: str, out: File | None = None) -> Path:
    """Write a configuration with comments, for a training on samples of your own.

    Args:
        task: such as ``"change_qa"`` or ``"forecast"``.
        out: the file; ``TASK.yaml`` where left out.

    Returns:
        The file.

    Raises:
        ConfigError: there is no such task, or the file exists or cannot be written.

    >>> rsw.init("change_qa").read_text().splitlines()[0]
    '# A training on samples of your own of the task change_qa. In this order:'
    """
    from rsw_rewards.errors import ConfigError
    from rsw_rewards.training.new_config import new_config

    text, file = new_config(task), Path(f"{task}.yaml" if out is None else out)
    if file.exists():
        raise ConfigError(f"{file} exists; name another file with --out (in Python: out=...)")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: {error.strerror}; name another file with --out (in Python: out=...)"
        ) from error
    return file


def dry_run(
    config: File,
    *,
    steps: int | None = None,
    out: File | None = None,
    settings: Mapping[str, Any] | None = None,
    smoke: bool = False,
) -> DryRun:
    """List what a training needs and what is missing. Nothing is started, loaded or written.

    Args:
        config, steps, out, settings, smoke: as for :func:`train`.

    Returns:
        ``lines`` says what is there, and ``missing`` are the lines of what is not.

    Raises:
        ConfigError: the configuration cannot be read.

    >>> needed = rsw.dry_run(rsw.init("change_qa"), smoke=True)
    >>> [line.missing for line in needed.missing if line.what == "train"]
    ['train.jsonl cannot be read: No such file or directory']
    """
    from rsw_rewards.config import load_config
    from rsw_rewards.training.dry_run import DryRun

    return DryRun(load_config(Path(config), _changes(Path(config), steps, out, settings), smoke))


def train(
    config: File,
    *,
    steps: int | None = None,
    out: File | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: File | None = None,
    smoke: bool = False,
) -> Run:
    """Train a policy with verifiable rewards by a configuration file, and measure it before and after on held-out samples.

    Args:
        config: the YAML file; see ``configs/``.
        steps: training steps, instead of those of the file.
        out: the run's folder, instead of that of the file.
        settings: other keys to change: ``{"grpo.learning_rate": 1e-4}``.
        resume: go on with the run in this folder.
        smoke: apply the file's ``smoke`` section: a few tiny steps, to see that everything works.

    Returns:
        The run: its log, held-out numbers and trained policy.

    Raises:
        ConfigError: the configuration cannot be used.
        RunStopped: the run stopped itself.

    >>> run = rsw.train("configs/quickstart.yaml", steps=20)  # doctest: +SKIP
    >>> run.log["reward"].mean(), run.heldout["changes"]  # doctest: +SKIP
    """
    from rsw_rewards.training.finished import Run
    from rsw_rewards.training.run import train as run

    changes = _changes(Path(config), steps, out, settings)
    return Run(run(Path(config), changes, None if resume is None else Path(resume), smoke))


def ablate(
    config: File,
    out: File,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    kinds: Sequence[str] = ("leave-one-out",),
    weights: Sequence[Mapping[str, float]] = (),
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    parallel: int = 1,
    smoke: bool = False,
    ray_address: str | None = None,
    say: Any = print,
) -> Ablation:
    """Show the effect of each reward, by trainings with each one left out, alone or with other weights. Finished runs are kept.

    Args:
        config: the YAML file of a training with rewards.
        out: a folder for the runs and the page ``ablation.html``.
        seeds: of the runs; differences are paired by seed.
        kinds: ``"leave-one-out"``, ``"single"``, both or none.
        weights: other weightings: component -> weight.
        steps, settings, smoke: see :func:`train`.
        parallel: runs at a time; 0 for as many as the cores have room for.
        ray_address: a running Ray cluster for all runs to join; each starts one of its own where left out.
        say: told of every run that begins or ends.

    Raises:
        ConfigError: the configuration cannot be ablated, or ``out`` holds another ablation.

    >>> found = rsw.ablate("configs/quickstart.yaml", "runs/ablation", seeds=[1, 2])  # doctest: +SKIP
    >>> [effect for effect in found.effects if effect.metric == "accuracy"]  # doctest: +SKIP
    """
    from rsw_rewards.training.ablation.run import ablate as run

    return run(
        Path(config), out=Path(out), seeds=seeds, kinds=kinds, weightings=weights,
        changes=_changes(Path(config), steps, None, settings), parallel=parallel, smoke=smoke,
        ray_address=ray_address, say=say,
    )  # fmt: skip


def _changes(config: Path, steps: int | None, out: File | None, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keys of a configuration that are changed."""
    from rsw_rewards.core.yaml_text import read_yaml
    from rsw_rewards.methods import key_of_steps

    return {
        **(settings or {}),
        **({} if steps is None else {key_of_steps(read_yaml(config)): steps}),
        **({} if out is None else {"out": str(out)}),
    }
