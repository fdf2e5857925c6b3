"""Options that several commands share, and the checks of what users give for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rsw_rewards.evaluation.progress import Progress, silent


def check_folders(roots: list[Path] | None) -> list[Path] | None:
    """The folders, where all of them are there."""
    from rsw_rewards.errors import InputError

    for folder in roots or []:
        if not folder.is_dir():
            raise InputError(f"--root {folder}: there is no such folder")
    return roots


Json = Annotated[bool, typer.Option("--json", help="Print JSON, and no progress.")]
Samples = Annotated[Path, typer.Option("--samples", help="Samples file (JSON Lines).", show_default=False)]
Roots = Annotated[
    list[Path] | None,
    typer.Option(
        "--root",
        help="Folder in which the paths of the files begin (repeatable).",
        show_default=False,
        callback=check_folders,
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N samples.", show_default=False)]
Missing = Annotated[
    str,
    typer.Option(
        "--on-missing", help="A sample without a prediction is 'invalid' (counts as wrong) or 'drop' (left out)."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Directory for the results.", show_default=False)]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Ray actors that score; with 0, this process scores.")]
Device = Annotated[str, typer.Option("--device", help="Where encoders and policies run (cpu, cuda).")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Configure a verifier of the protocol: component.key=value in YAML (repeatable); see 'rsw verifiers NAME'.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="Join a running Ray cluster (auto, or host:port); by default the command starts its own.",
        show_default=False,
    ),
]


def progress_bar(quiet: bool) -> Progress:
    """A progress bar on standard error, or silence."""
    if quiet or not sys.stderr.isatty():
        return silent
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bar.start()
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)
        if done >= total:
            bar.refresh()
            bar.stop()

    return update


def assignments(options: Sequence[str] | None) -> dict[str, Any]:
    """``key=value`` pairs, values read as YAML."""
    from rsw_rewards.core.yaml_text import parse_yaml
    from rsw_rewards.errors import ConfigError

    found = {}
    for option in options or ():
        key, separator, value = option.partition("=")
        if not separator:
            raise ConfigError(f"--set {option}: write key=value")
        found[key] = parse_yaml(value, f"--set {key}")
    return found


def weights_in(text: str) -> dict[str, float]:
    """``component=weight`` pairs, separated by commas."""
    from rsw_rewards.errors import ConfigError

    found = {}
    for pair in text.split(","):
        label, _, number = (part.strip() for part in pair.partition("="))
        try:
            found[label] = float(number)
        except ValueError:
            raise ConfigError(
                f"--weights {text}: {pair.strip()!r} is not component=weight; write component=weight,..."
            ) from None
    return found


def join_cluster(address: str | None) -> None:
    if address is not None:
        from rsw_rewards.engine.cluster import ensure_ray

        ensure_ray(address)
