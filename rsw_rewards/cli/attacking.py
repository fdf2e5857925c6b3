"""``rsw attack``: a red team for a rubric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rsw_rewards as rsw
from rsw_rewards.cli.display import print_json, print_rows
from rsw_rewards.cli.options import Device, Json, Limit, Out, Roots, Samples, progress_bar

SHOWN = 12
"""Attacks that are printed; the page has all of them."""


def attack(
    rubric: Annotated[Path, typer.Argument(help="Rubric (YAML), or a training configuration that holds one.")],
    samples: Samples,
    out: Out,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Compare with this model's outputs as well.", show_default=False),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="Compare with the outputs of this policy instead; see 'rsw evaluate'.", show_default=False
        ),
    ] = None,
    root: Roots = None,
    limit: Limit = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the attacks.")] = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Attack a rubric: compare the rewards of empty, hedged, negated, copied and optimised outputs with that of a mediocre output."""
    from rsw_rewards.evaluation.numbers import number

    found = rsw.attack(
        rubric, samples, predictions, out,
        policy=policy, roots=root or [], limit=limit, seed=seed, device=device, progress=progress_bar(as_json),
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
        raise typer.Exit(0 if found.ok else 1)
    for task in found.tasks:
        rows = [*(row for row in task.rows if row.role != "attack"), *task.attacks[:SHOWN]]
        typer.echo(f"{task.task}, {task.n} samples")
        print_rows(
            ("output", "reward", "mediocre there", *task.labels, ""),
            [
                (row.name, number(row.reward), number(row.mediocre), *(number(row.components[label][0]) for label in task.labels),
                 "wins" if row.wins else "")
                for row in rows
            ],
        )  # fmt: skip
        if winners := task.winners:
            typer.echo(f"{len(winners)} attacks get a higher reward than a mediocre output; see 'What to do when an attack wins' in docs/attacks.md")  # fmt: skip
    typer.echo(f"page: {out / 'attack.html'}   numbers: {out / 'attack.json'}")
    if not found.ok:
        raise typer.Exit(1)
