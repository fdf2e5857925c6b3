"""Scoring commands: ``rsw evaluate``, ``evaluate-encoder``, ``suite``, ``score``, ``compare``, ``validate`` and ``reweight``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import rsw_rewards as rsw
from rsw_rewards.cli.display import (
    print_differences,
    print_evaluation,
    print_json,
    print_nothing_valid,
    print_reasons,
    print_rows,
    print_validation,
    warn,
)
from rsw_rewards.cli.options import (
    Address,
    Device,
    Json,
    Limit,
    Missing,
    Out,
    Roots,
    Samples,
    Settings,
    Workers,
    assignments,
    join_cluster,
    progress_bar,
    weights_in,
)


def evaluate(
    protocol: Annotated[str, typer.Argument(help="Protocol, or several separated by commas; see 'rsw protocols'.")],
    samples: Samples,
    out: Out,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Predictions file (JSON Lines), or a folder of masks or forecasts.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="Run a policy instead: its name, the folder of a training (its trained policy is used), or a YAML file that describes it.",
            show_default=False,
        ),
    ] = None,
    root: Roots = None,
    limit: Limit = None,
    on_missing: Missing = "invalid",
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Outputs per sample, with --policy.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="With --policy; 0 is greedy.")] = 0.0,
    actors: Annotated[
        int, typer.Option("--actors", min=0, help="Ray actors that run the policy; with 0, this process does.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the policy.")] = 0,
    workers: Workers = 0,
    device: Device = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out: compute only what is missing or failed.")
    ] = False,
    settings: Settings = None,
    ray_address: Address = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model's predictions, or a policy, by the protocol of a benchmark. Writes summary.json, scores.parquet and report.html."""
    join_cluster(ray_address)
    results = rsw.evaluate(
        [name.strip() for name in protocol.split(",")], samples, predictions, out,
        policy=policy, candidates=candidates, temperature=temperature, seed=seed, actors=actors,
        settings=assignments(settings), roots=root or [], limit=limit, on_missing=on_missing, resume=resume,
        workers=workers, device=device, progress=progress_bar(as_json),
    )  # fmt: skip
    if as_json:
        print_json({result.protocol.name: result.summary for result in results})
    else:
        for result in results:
            print_evaluation(result, out if len(results) == 1 else out / result.protocol.name)
    if any(result.summary["nothing_valid"] for result in results):
        raise typer.Exit(1)


def evaluate_encoder(
    encoder: Annotated[
        str, typer.Argument(help="Encoder of images and texts, such as clip:/path/to/weights or scene-clip.")
    ],
    samples: Samples,
    out: Out,
    reading: Annotated[
        str,
        typer.Option(
            "--reading",
            help="How captions are queries: remoteclip (each one), or skyscript (equal texts are one query).",
        ),
    ] = "remoteclip",
    template: Annotated[
        list[str] | None,
        typer.Option("--template", help="Text with {} for the name of a class (repeatable).", show_default=False),
    ] = None,
    root: Roots = None,
    limit: Limit = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Evaluate an encoder: retrieval (R@1, 5, 10) on samples with captions, or zero-shot accuracy on samples with classes."""
    found = rsw.evaluate_encoder(
        encoder, samples, out, reading=reading, templates=template or [], roots=root or [], limit=limit, device=device
    )
    if as_json:
        print_json(found)
        return
    print_rows(
        ("number", found["encoder"], "chance"),
        [
            (key, f"{value:.4f}", f"{found['chance'][key]:.4f}" if key in found["chance"] else "-")
            for key, value in found["metrics"].items()
        ],
    )
    typer.echo(f"{found['n_images']} images, {found['n_texts']} texts: {out / 'encoder.json'}")


def suite(
    config: Annotated[Path, typer.Argument(help="Suite (YAML), such as configs/suites/first.yaml.")],
    out: Out,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Folder that has for every part a file PART.jsonl or a folder PART.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Run a policy instead, as 'rsw evaluate' does.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Name of the model in the table.", show_default=False)] = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Compute only this part (repeatable).", show_default=False)
    ] = None,
    actors: Annotated[
        int, typer.Option("--actors", min=0, help="Ray actors that run the policy; with 0, this process does.")
    ] = 0,
    workers: Workers = 0,
    device: Device = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out: compute only what is missing or failed.")
    ] = False,
    ray_address: Address = None,
    as_json: Json = False,
) -> None:
    """Evaluate several protocols on several data sets. Writes one page, and one row for a table."""
    join_cluster(ray_address)
    found = rsw.suite(
        config, out, policy=policy, predictions=predictions, model=model, only=only or [], resume=resume, actors=actors,
        workers=workers, device=device, progress=progress_bar(as_json),
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(found.to_text())
        typer.echo(f"page: {out / 'suite.html'}   row: {out / 'row.md'}")
    if found.failed:
        raise typer.Exit(1)


def score(
    rubric: Annotated[Path, typer.Argument(help="Rubric (YAML), or a training configuration that holds one.")],
    samples: Samples,
    predictions: Annotated[
        Path, typer.Option("--predictions", help="Predictions file, also of a dump (saved outputs of a training).")
    ],
    out: Out,
    root: Roots = None,
    limit: Limit = None,
    on_missing: Missing = "invalid",
    workers: Workers = 0,
    ray_address: Address = None,
    as_json: Json = False,
) -> None:
    """Compute rewards for a predictions file or a dump, exactly as a training does."""
    from rsw_rewards.engine.monitor import component_stats
    from rsw_rewards.evaluation.summary import nothing_valid

    join_cluster(ray_address)
    found = rsw.rewards(
        rubric, samples, predictions, out,
        roots=root or [], limit=limit, on_missing=on_missing, workers=workers, progress=progress_bar(as_json),
    )  # fmt: skip
    mean = found.mean
    paid = [component.label for component in found.rubric.components if component.weight > 0]
    invalid = nothing_valid(found.table, paid)
    result = {
        "outputs": len(found.records),
        "without_reward": sum(record["reward"] is None for record in found.records),
        "mean_reward": mean,
        "nothing_valid": invalid,
    }
    stats = component_stats(found.table, found.rubric)
    if as_json:
        print_json({**result, "components": {key: None if value != value else value for key, value in stats.items()}})
        raise typer.Exit(1 if invalid or mean is None else 0)
    warn(found.problems)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"{len(found.records)} outputs, mean reward {'-' if mean is None else f'{mean:.4f}'}")
    for column in ("component", "mean", "std in group", "groups without spread", "errors", "invalid"):
        shown.add_column(column, justify="left" if column == "component" else "right")
    for component in found.rubric.components:
        keys = ("mean", "std", "frac_zero_std", "error_rate", "invalid_rate")
        numbers = (stats[f"reward/{component.label}/{key}"] for key in keys)
        shown.add_row(component.label, *("-" if number != number else f"{number:.4f}" for number in numbers))
    Console().print(shown)
    print_reasons(found.table)
    typer.echo(f"rewards: {out / 'rewards.jsonl'}   scores: {out / 'scores.parquet'}")
    print_nothing_valid(invalid)
    if mean is None:
        typer.echo("rsw: no output has a reward", err=True)
    if invalid or mean is None:
        raise typer.Exit(1)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of two or more runs of one protocol. Differences are to the first.")
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Compare only this metric (repeatable).", show_default=False)
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Name of a run, in the order of the runs (repeatable).", show_default=False),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="The protocol of the runs, if it is your own: file.py:NAME.", show_default=False
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the leaderboard as a Markdown table.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the leaderboard as a LaTeX table (booktabs).")] = False,
    percent: Annotated[bool, typer.Option("--percent", help="With --latex: fractions times 100.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write a page with metrics, differences and samples side by side.", show_default=False
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Write figures to this folder, SVG and PDF.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs on their common samples: paired differences with p-values (Holm), and a leaderboard of three or more runs."""
    from rsw_rewards.errors import ConfigError

    if markdown + latex + as_json > 1:
        raise ConfigError("give only one of --markdown, --latex and --json")
    if percent and not latex:
        raise ConfigError("--percent needs --latex")
    board = rsw.compare(*runs, metrics=metric, names=name, protocol=protocol, html=html, figures=figures)
    if as_json:
        print_json(board.differences())
    elif markdown or latex:
        typer.echo(board.to_latex(percent) if latex else board.to_markdown(), nl=False)
    else:
        typer.echo(board.to_text())
        if len(runs) == 2:
            print_differences(board.differences())
        for what, where in (("page", html), ("figures", figures)):
            if where is not None:
                typer.echo(f"{what}: {where}")


def validate(
    protocol: Annotated[str, typer.Argument(help="Protocol, or several separated by commas; see 'rsw protocols'.")],
    samples: Samples,
    root: Roots = None,
    limit: Limit = None,
    settings: Settings = None,
    rubric: Annotated[
        Path | None,
        typer.Option(
            "--rubric", help="Attack this rubric (YAML) as well, in the short form of 'rsw attack'.", show_default=False
        ),
    ] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Check a samples file: the reference must get 1, and baselines that ignore the images must score low."""
    found = rsw.validate(
        [name.strip() for name in protocol.split(",")], samples,
        settings=assignments(settings), roots=root or [], limit=limit, device=device, progress=progress_bar(as_json), rubric=rubric,
    )  # fmt: skip
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        for one in found:
            print_validation(one)
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def reweight(
    folder: Annotated[
        Path, typer.Argument(help="Folder that 'rsw score' wrote, a dump, or the folder of a training with dumps.")
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights", help="component=weight,... (repeatable). Other components get weight 0.", show_default=False
        ),
    ] = None,
    rubric: Annotated[
        Path | None, typer.Option("--rubric", help="Rubric (YAML), if the folder has none.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute rewards from stored scores with other weights, and show how rankings within groups and advantages would change."""
    from rsw_rewards.evaluation.numbers import number

    rows = [asdict(one) for one in rsw.reweight(folder, [weights_in(text) for text in weights or []], rubric)]
    if as_json:
        print_json(rows)
        return
    columns = (
        "mean_reward",
        "flat_groups",
        "rank_agreement",
        "best_changed",
        "advantage_correlation",
        "advantage_change",
    )
    heads = (
        "weights", "mean reward", "groups without differences", "rank agreement", "best answer changed", "correlation of advantages",
        "change of advantages",
    )  # fmt: skip
    print_rows(heads, [(row["name"], *(number(row[column]) for column in columns)) for row in rows])
