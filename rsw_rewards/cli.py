"""The ``rsw`` command. Every command imports what it needs when it runs, so that asking for help costs nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rsw_rewards.evaluation.run import Evaluation, Progress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Rewards and evaluation for remote-sensing world models: train with verifiable rewards, and score any model's outputs with the same verifiers.",
)
data = typer.Typer(no_args_is_help=True, help="Make samples: from the scene world, or from a data set on disk.")
make = typer.Typer(no_args_is_help=True, help="Make samples from a generator.")
app.add_typer(data, name="data")
data.add_typer(make, name="make")

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON and no progress.")]
Samples = Annotated[Path, typer.Option("--samples", help="Samples file (JSON Lines).", show_default=False)]
Roots = Annotated[
    list[Path] | None,
    typer.Option("--root", help="Folder that paths in the files may point into (repeatable).", show_default=False),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N samples.", show_default=False)]
Missing = Annotated[
    str,
    typer.Option(
        "--on-missing", help="A sample without a prediction is 'invalid' (counts as wrong) or 'drop' (left out)."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Directory for the results.", show_default=False)]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Ray actors that share the scoring; 0 scores in this process.")
]
Address = Annotated[
    str | None,
    typer.Option("--ray-address", help="Join a running Ray cluster (auto, or host:port).", show_default=False),
]


@app.callback()
def _everywhere(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error arose. Works after a command as well.")
    ] = False,
) -> None:
    # main() takes it out of the arguments, among which it may stand anywhere; here it is declared for the help alone.
    pass


def main() -> None:
    """Entry point: an error that is the user's to mend is one sentence and exit code 2; ``--debug`` shows where it arose."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    from rsw_rewards.errors import RswError

    try:
        app(arguments, prog_name="rsw")
    except RswError as error:
        if debug:
            raise
        typer.echo(f"rsw: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("rsw: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a folder that is a file, no permission, a full disk
        if debug or error.filename is None:
            raise
        typer.echo(f"rsw: {error.filename}: {error.strerror}", err=True)
        sys.exit(2)


def _progress(quiet: bool) -> Progress:
    """A progress bar on standard error, or silence."""
    if quiet or not sys.stderr.isatty():
        return lambda what, done, total: None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
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


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Configuration (YAML); see configs/.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set grpo.steps=50 (repeatable).", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this directory.", show_default=False)
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="A few tiny steps, to see that everything works.")] = False,
) -> None:
    """Train a policy with verifiable rewards, and measure it before and after on held-out samples."""
    from rsw_rewards.training.run import train as run

    run(config, overrides or [], resume, smoke)


@app.command()
def evaluate(
    protocol: Annotated[str, typer.Argument(help="Protocol, or several separated by commas; see 'rsw protocols'.")],
    samples: Samples,
    out: Out,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Predictions file (JSON Lines).", show_default=False)
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="Run a policy instead: its name, or a YAML file that describes it.", show_default=False
        ),
    ] = None,
    root: Roots = None,
    limit: Limit = None,
    on_missing: Missing = "invalid",
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Outputs per sample, with --policy.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="With --policy; 0 is greedy.")] = 0.0,
    actors: Annotated[int, typer.Option("--actors", min=0, help="Ray actors that run the policy; 0 runs it here.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the policy's sampling.")] = 0,
    workers: Workers = 0,
    device: Annotated[str, typer.Option("--device", help="Where encoders and the policy run (cpu, cuda).")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Redo only what is missing or failed in --out.")] = False,
    ray_address: Address = None,
    as_json: Json = False,
) -> None:
    """Score a model's outputs, from a file or live, by a benchmark's protocol: summary.json, scores.parquet, report.html."""
    from rsw_rewards.errors import ConfigError
    from rsw_rewards.evaluation.protocols import get_protocol
    from rsw_rewards.evaluation.run import evaluate_file, evaluate_policy

    if (predictions is None) == (policy is None):
        raise ConfigError("give either --predictions FILE or --policy CONFIG")
    _choice("--on-missing", on_missing, ("invalid", "drop"))
    _folders(root)
    _device(device)
    _join(ray_address)
    options: dict[str, Any] = {
        "roots": root or [], "limit": limit, "resume": resume, "workers": workers, "device": device,
        "progress": _progress(as_json),
    }  # fmt: skip
    protocols = [get_protocol(name.strip()) for name in protocol.split(",")]
    if predictions is not None:
        results = evaluate_file(protocols, samples, predictions, out, on_missing=on_missing, **options)
    else:
        assert policy is not None
        results = evaluate_policy(
            protocols,
            samples,
            policy,
            out,
            candidates=candidates,
            temperature=temperature,
            actors=actors,
            seed=seed,
            **options,
        )
    if as_json:
        _print_json({result.protocol.name: result.summary for result in results})
        return
    for result in results:
        _print_evaluation(result, out if len(results) == 1 else out / result.protocol.name)


@app.command()
def score(
    rubric: Annotated[Path, typer.Argument(help="Rubric (YAML), or a training configuration that holds one.")],
    samples: Samples,
    predictions: Annotated[Path, typer.Option("--predictions", help="Predictions file, or that of a rollout dump.")],
    out: Out,
    root: Roots = None,
    limit: Limit = None,
    on_missing: Missing = "invalid",
    workers: Workers = 0,
    ray_address: Address = None,
    as_json: Json = False,
) -> None:
    """Rewards for a predictions file or a rollout dump, exactly as training gives them."""
    from rsw_rewards.evaluation.rewards import score_file
    from rsw_rewards.rubric import component_stats, load_rubric

    _choice("--on-missing", on_missing, ("invalid", "drop"))
    _folders(root)
    _join(ray_address)
    loaded = load_rubric(rubric)
    table, records, problems = score_file(
        loaded, samples, predictions, out,
        roots=root or [], limit=limit, on_missing=on_missing, workers=workers, progress=_progress(as_json),
    )  # fmt: skip
    known = [record["reward"] for record in records if record["reward"] is not None]
    mean = sum(known) / len(known) if known else None
    result = {"outputs": len(records), "without_reward": len(records) - len(known), "mean_reward": mean}
    stats = component_stats(table, loaded)
    if as_json:
        _print_json({**result, "components": {key: None if value != value else value for key, value in stats.items()}})
        return
    _warn(problems)
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"{len(records)} outputs, mean reward {'-' if mean is None else f'{mean:.4f}'}")
    for column in ("component", "mean", "std in group", "groups without spread", "errors", "invalid"):
        shown.add_column(column, justify="left" if column == "component" else "right")
    for component in loaded.components:
        keys = ("mean", "std", "frac_zero_std", "error_rate", "invalid_rate")
        shown.add_row(component.label, *(f"{stats[f'reward/{component.label}/{key}']:.4f}" for key in keys))
    Console().print(shown)
    typer.echo(f"rewards: {out / 'rewards.jsonl'}   scores: {out / 'scores.parquet'}")


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Two or more run directories of one protocol; the first is the base.")
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Only this key (repeatable).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Paired differences of runs over the scenes they share, with 95 % intervals."""
    from rsw_rewards.evaluation.comparison import compare_runs

    rows = compare_runs(runs, metric)
    if as_json:
        _print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    from rsw_rewards.evaluation.report import number

    shown = Table(title=f"differences to {runs[0]}")
    for column in ("run", "metric", "base", "run's", "difference", "95 % interval", "scenes"):
        words = column in ("run", "metric")
        shown.add_column(column, justify="left" if words else "right", no_wrap=column != "run", overflow="fold")
    for row in rows:
        interval = "-" if row["ci95"] is None else f"{row['ci95'][0]:+.4f} to {row['ci95'][1]:+.4f}"
        difference = "-" if row["difference"] is None else f"{row['difference']:+.4f}"
        shown.add_row(
            row["run"],
            row["metric"],
            number(row["base"]),
            number(row["value"]),
            difference,
            interval,
            str(row["n_scenes"]),
        )
    Console().print(shown)


@app.command()
def verifiers(
    name: Annotated[str | None, typer.Argument(help="Show the card of this one.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the verifiers, or show the card of one: what it reads, its range and transform, how it can be gamed."""
    import dataclasses

    from rsw_rewards.contracts import resolve, verifier_names

    if name is None:
        listed = {known: resolve(known) for known in verifier_names()}
        if as_json:
            _print_json(
                {known: {"tasks": sorted(cls.tasks), "summary": cls.card.summary} for known, cls in listed.items()}
            )
            return
        _print_rows(
            ("verifier", "tasks", "what it says"),
            [(k, ", ".join(sorted(c.tasks)), c.card.summary) for k, c in listed.items()],
        )
        return
    found = resolve(name)
    fields = {
        name: (item.annotation, item.default, item.description or "")
        for name, item in found.Config.model_fields.items()
    }
    card = {
        **dataclasses.asdict(found.card),
        "tasks": sorted(found.tasks),
        "scope": found.scope,
        "reads": sorted(found.needs),
        "gives a reward": found.rewarding,
        "configuration": {key: f"{item[2]} (default: {item[1]!r})" for key, item in fields.items()},
    }
    if as_json:
        _print_json({found.name: card})
        return
    rows = [(key, str(value)) for key, value in card.items() if key != "configuration"]
    rows += [(f"config: {key}", value) for key, value in card["configuration"].items()]
    _print_rows((found.name, ""), rows)


@app.command()
def protocols(
    name: Annotated[str | None, typer.Argument(help="Show the definition of this one.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the protocols, or show the definition of one."""
    import dataclasses

    from rsw_rewards.evaluation.protocols import PROTOCOLS, get_protocol

    if name is not None:
        definition = dataclasses.asdict(get_protocol(name))
        if as_json:
            _print_json(definition)
        else:
            _print_rows(
                (name, ""), [(key, _words(value)) for key, value in definition.items() if value not in ((), None)]
            )
    elif as_json:
        _print_json({known: dataclasses.asdict(protocol) for known, protocol in PROTOCOLS.items()})
    else:
        _print_rows(("protocol", "task", "title"), [(p.name, str(p.task), p.title) for p in PROTOCOLS.values()])


@make.command("scene-world")
def make_scene_world(
    out: Out,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples to make; half questions, half forecasts.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Number of the data set within its split.")] = 0,
    split: Annotated[str, typer.Option("--split", help="Part of the world that scenes are drawn from.")] = "test",
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks, separated by commas.")] = "change_qa,forecast",
) -> None:
    """Make samples from the scene world: procedural pairs of images with exact truth."""
    from rsw_rewards.data.scene_world.write import write_scene_world
    from rsw_rewards.errors import ConfigError

    try:
        path = write_scene_world(out, n, seed, split=split, tasks=[task.strip() for task in tasks.split(",")])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    typer.echo(f"{n} samples: {path}")


@data.command("from")
def data_from(
    adapter: Annotated[str, typer.Argument(help="cdvqa, levir-cd, raster-pairs, or module:function.")],
    path: Annotated[Path, typer.Argument(help="The data set's own folder.")],
    out: Out,
    split: Annotated[str | None, typer.Option("--split", help="Part of the data set.", show_default=False)] = None,
    limit: Limit = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the adapter, key=value in YAML (repeatable).", show_default=False),
    ] = None,
) -> None:
    """Write samples.jsonl from a data set in its own layout; imagery stays where it is."""
    from rsw_rewards.data.adapter import resolve_adapter
    from rsw_rewards.errors import ConfigError

    try:
        conversion = resolve_adapter(adapter)(path, out, split=split, limit=limit, **_assignments(options or []))
    except TypeError as error:
        raise ConfigError(f"the adapter {adapter!r} does not take these options: {error}") from error
    for note in conversion.notes:
        typer.echo(f"note: {note}")
    roots = " ".join(f"--root {root}" for root in conversion.roots)
    typer.echo(f"{conversion.samples} samples: {conversion.file}" + (f"   use it with {roots}" if roots else ""))


def _assignments(options: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs, values read as YAML."""
    import yaml

    from rsw_rewards.errors import ConfigError

    found = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            raise ConfigError(f"--set {option}: write key=value")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {option}: the value is not valid YAML") from error
    return found


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    from rsw_rewards.errors import ConfigError

    if value not in allowed:
        raise ConfigError(f"{option} must be {' or '.join(allowed)}, not {value!r}")


def _folders(roots: list[Path] | None) -> None:
    from rsw_rewards.errors import InputError

    for folder in roots or []:
        if not folder.is_dir():
            raise InputError(f"--root {folder}: there is no such folder")


def _device(name: str) -> None:
    """Refuse a device that is not there before anything is scored."""
    from rsw_rewards.errors import ConfigError

    if name == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


def _join(address: str | None) -> None:
    if address is not None:
        from rsw_rewards.cluster import ensure_ray

        ensure_ray(address)


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def _warn(problems: list[Any]) -> None:
    for problem in problems[:5]:
        typer.echo(f"{problem.kind}: {problem}", err=True)
    if len(problems) > 5:
        typer.echo(f"... and {len(problems) - 5} more problems", err=True)


def _print_evaluation(result: Evaluation, out: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rsw_rewards.evaluation.report import number

    _warn(result.problems)
    summary = result.summary
    shown = Table(
        title=f"{result.protocol.name}: {summary['n']} samples, {summary['n_scenes']} scenes", box=box.SIMPLE_HEAD
    )
    shown.add_column("metric")
    shown.add_column("value", justify="right")
    shown.add_column("95 % interval", justify="right")
    for name in summary["baselines"]:
        shown.add_column(name, justify="right", style="dim")
    for key, entry in summary["metrics"].items():
        interval = f"{number(entry['ci95'][0])} .. {number(entry['ci95'][1])}" if entry["ci95"] else "-"
        beside = [number((row["metrics"].get(key) or {}).get("value")) for row in summary["baselines"].values()]
        shown.add_row(key, number(entry["value"]), interval, *beside)
    console = Console()
    if not console.is_terminal:  # a log file has room
        console.width = max(console.width, 60 + 16 * len(summary["baselines"]))
    console.print(shown)
    for key, entry in summary["metrics"].items():
        if "chance_corrected" in entry:
            typer.echo(
                f"{key} above chance (0: the commonest answer of every kind, 1: perfect): {number(entry['chance_corrected'])}"
            )
    for reason in dict.fromkeys(entry["reason"] for entry in summary["metrics"].values() if "reason" in entry):
        keys = ", ".join(key for key, entry in summary["metrics"].items() if entry.get("reason") == reason)
        typer.echo(f"{keys}: {reason}")
    for label, counts in summary["status"].items():
        bad = {status: count for status, count in counts.items() if status != "ok" and count}
        if bad:
            typer.echo(f"{label}: " + ", ".join(f"{count} {status}" for status, count in bad.items()))
    typer.echo(f"report: {out / 'report.html'}")
