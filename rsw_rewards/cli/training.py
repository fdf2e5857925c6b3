"""Training commands: ``rsw train``, ``rsw init``, ``rsw report``, ``rsw export`` and ``rsw ablate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

import rsw_rewards as rsw
from rsw_rewards.cli.display import print_json, print_rows
from rsw_rewards.cli.options import Address, Json, Out, assignments, join_cluster, weights_in


def train(
    config: Annotated[Path, typer.Argument(help="Configuration (YAML); see configs/.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set grpo.steps=50 (repeatable).", show_default=False),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.", show_default=False)] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Train a few steps with a tiny model, to see that everything works.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Start nothing: list what the training needs, and what is missing.")
    ] = False,
    ray_address: Address = None,
) -> None:
    """Train a policy with verifiable rewards, and measure it before and after on held-out samples."""
    join_cluster(ray_address)
    if dry_run and resume is not None:
        from rsw_rewards.errors import ConfigError

        raise ConfigError("--dry-run is for a run that has not begun; leave --resume or --dry-run out")
    if dry_run:
        _dry_run(config, overrides or [], smoke)
        return
    rsw.train(config, settings=assignments(overrides), resume=resume, smoke=smoke)


def init(
    task: Annotated[str, typer.Argument(help="Such as change_qa or forecast; see docs/design.md.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; the default is TASK.yaml.", show_default=False)
    ] = None,
) -> None:
    """Write a configuration with comments, for a training on samples of your own."""
    file = rsw.init(task, out)
    typer.echo(f"{file}: edit it, then see what is missing with: rsw train {file} --dry-run")


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a training, finished or not.", show_default=False)],
) -> None:
    """Write the report of a training again: findings, curves, rollouts, held-out metrics before and after."""
    from rsw_rewards.training.report.page import write_report

    typer.echo(f"report: {write_report(run)}")


def _dry_run(config: Path, overrides: list[str], smoke: bool) -> None:
    from rsw_rewards.errors import ConfigError

    looked = rsw.dry_run(config, settings=assignments(overrides), smoke=smoke)
    print_rows(["", "found"], [[line.what, line.found or "missing"] for line in looked.lines])
    for line in looked.missing:
        typer.echo(f"{line.what}: {line.missing}")
    if looked.missing:
        raise ConfigError(
            f"{config}: not ready, for the {len(looked.missing)} reasons above; 'Train' in docs/training.md explains each part"
        )
    changed = [part for option in overrides for part in ("--set", option)]
    command = shlex.join(["rsw", "train", str(config), *(["--smoke"] if smoke else []), *changed])
    typer.echo(f"nothing is missing; start it with: {command}")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training.", show_default=False)],
    to: Annotated[
        Path, typer.Option("--to", help="Folder for the model; it must be empty or not exist.", show_default=False)
    ],
) -> None:
    """Write the trained policy as a model folder, with LoRA adapters merged and a model card."""
    rsw.Run(run).export(to)
    typer.echo(f"model: {to}   card: {to / 'README.md'}")


def ablate(
    config: Annotated[
        Path,
        typer.Argument(
            help="Configuration of a training with rewards: grpo, ppo or flow_grpo (YAML).", show_default=False
        ),
    ],
    out: Out,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Seeds, separated by commas; differences are paired by seed.")
    ] = "1,2,3",
    kinds: Annotated[
        str, typer.Option("--kinds", help="leave-one-out, single, or both separated by a comma; empty for none.")
    ] = "leave-one-out",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            help="Another variant with these weights, component=weight,... (repeatable).",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set grpo.steps=50 (repeatable).", show_default=False),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=0, help="Trainings at a time; 0 for as many as there are cores for.")
    ] = 1,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A few tiny steps each, to see that everything works.")
    ] = False,
    ray_address: Address = None,
    as_json: Json = False,
) -> None:
    """Train with each reward left out, alone or with other weights, and show the effect of each reward. Finished runs are kept."""
    import signal
    from dataclasses import asdict

    from rsw_rewards.errors import ConfigError
    from rsw_rewards.training.ablation.page import table

    signal.signal(
        signal.SIGTERM, signal.SIG_DFL
    )  # its runs are processes that end with this one; it waits for none of them

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {seeds!r}: write whole numbers, separated by commas") from None
    found = rsw.ablate(
        config, out,
        seeds=numbers, kinds=[kind.strip() for kind in kinds.split(",") if kind.strip()],
        weights=[weights_in(text) for text in weights or []], settings=assignments(overrides),
        parallel=parallel, smoke=smoke, ray_address=ray_address, say=lambda words: typer.echo(words, err=True),
    )  # fmt: skip
    if as_json:
        print_json(
            {"failed": found.failed, "alarms": found.alarms, "effects": [asdict(effect) for effect in found.effects]}
        )
        return
    typer.echo(table(found))
    typer.echo(f"page: {out / 'ablation.html'}")
    if found.failed:
        raise typer.Exit(1)
