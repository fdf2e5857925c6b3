"""What commands print: tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rsw_rewards.evaluation.progress import wide_console

if TYPE_CHECKING:
    from rsw_rewards.core.scores import ScoreTable
    from rsw_rewards.evaluation.evaluation import Evaluation
    from rsw_rewards.evaluation.validation import Validation
    from rsw_rewards.io.pairing import Problem


EVERY = 6
"""Tasks from which a verifier counts as one for every task in a list."""


def words(value: Any) -> str:
    """A value of a setting as people write it.

    >>> words([{"use": "cmmd", "config": {"encoder": "scene-clip"}}, {"use": "ssim"}]), words(None), words(True), words({"a": 1})
    ('cmmd (encoder: scene-clip), ssim', 'none', 'yes', 'a: 1')
    """
    if value is None or (isinstance(value, (Mapping, Collection)) and not len(value)):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        if "use" not in value:
            return ", ".join(f"{key}: {words(one)}" for key, one in value.items())
        settings = {**value, **(value.get("config") or {})}
        told = {key: one for key, one in settings.items() if key not in ("use", "config")}
        return str(value["use"]) + (f" ({words(told)})" if told else "")
    if isinstance(value, (list, tuple, set, frozenset)):
        said = [words(one) for one in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
        return (" " if all(one.endswith(".") for one in said) else ", ").join(said)
    return str(value)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], whole: Collection[int] = (0,)) -> None:
    """A table.

    Args:
        columns: their heads.
        rows: of words.
        whole: numbers of the columns whose words are never parted.
    """
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=number in whole)
    for row in rows:
        shown.add_row(*row)
    wide_console().print(shown)


def print_families(listed: Mapping[str, tuple[Sequence[str], str]]) -> None:
    """Names with their tasks and a sentence, one line each, under the tasks that they share; long sentences end in an ellipsis."""
    width = wide_console().width
    pad = max(map(len, listed), default=0) + 2
    families: dict[str, list[str]] = {}
    for name, (tasks, _) in listed.items():
        families.setdefault(", ".join(tasks) if len(tasks) < EVERY else "every task", []).append(name)
    for family, names in sorted(families.items(), key=lambda item: (-len(item[1]), item[0])):
        typer.secho(family, bold=True)
        for name in names:
            said = " ".join(listed[name][1].split())
            room = max(width - pad - 2, 20)
            typer.echo(f"  {name:{pad}}" + (said if len(said) <= room else said[: room - 1].rstrip() + "…"))
        typer.echo()


def warn(problems: Sequence[Problem]) -> None:
    """Say on standard error what is wrong with records; samples without one are counted elsewhere."""
    found = [problem for problem in problems if problem.kind != "missing"]
    for problem in found[:5]:
        typer.echo(f"{problem.kind}: {problem}", err=True)
    if len(found) > 5:
        typer.echo(f"... and {len(found) - 5} more problems", err=True)


def print_evaluation(result: Evaluation, out: Path) -> None:
    from rich import box
    from rich.table import Table

    from rsw_rewards.evaluation.numbers import number
    from rsw_rewards.evaluation.report import best_baseline

    summary = result.summary
    warn(result.problems)
    if others := summary["left_out"]["samples_of_other_tasks"]:
        typer.echo(f"{others} samples of other tasks than {result.protocol.task} were left out", err=True)
    if lacking := summary["left_out"].get("samples_without_output"):
        typer.echo(f"{lacking} samples without an output were left out", err=True)
    for warning in summary.get("warnings", ()):
        typer.echo(f"warning: {warning}", err=True)
    shown = Table(
        title=f"{result.protocol.name}: {summary['n']} samples, {summary['n_scenes']} scenes", box=box.SIMPLE_HEAD
    )
    shown.add_column("metric")
    shown.add_column("value", justify="right")
    shown.add_column("95 % interval", justify="right")
    partly = any("valid_rate" in entry for entry in summary["metrics"].values())
    if partly:  # baselines stand for all samples, a distance for the valid ones
        shown.add_column("valid", justify="right")
    shown.add_column("best baseline", justify="right", style="dim")
    shown.add_column("truth", justify="right", style="dim")
    ended = False
    for key, entry in summary["metrics"].items():
        if entry.get("diagnostic") and not ended:
            shown.add_section()
            shown.add_row("diagnostic", style="dim")
            ended = True
        interval = f"{number(entry['ci95'][0])} .. {number(entry['ci95'][1])}" if entry["ci95"] else "-"
        name, best, truth = best_baseline(key, summary["baselines"])
        beside = [f"{name} {number(best)}" if name else "-", number(truth)]
        rate = [f"{entry.get('valid_rate', 1.0):.1%}"] if partly else []
        shown.add_row(key, number(entry["value"]), interval, *rate, *beside, style="dim" if ended else None)
    wide_console().print(shown)
    for key, entry in summary["metrics"].items():
        if "chance_corrected" in entry:
            typer.echo(
                f"{key} above chance (0 = always the most common answer per question type, 1 = perfect): {number(entry['chance_corrected'])}"
            )
    for reason in dict.fromkeys(entry["reason"] for entry in summary["metrics"].values() if "reason" in entry):
        keys = ", ".join(key for key, entry in summary["metrics"].items() if entry.get("reason") == reason)
        typer.echo(f"{keys}: {reason}")
    for label, counts in summary["status"].items():
        bad = {status: count for status, count in counts.items() if status != "ok" and count}
        if bad:
            typer.echo(f"{label}: " + ", ".join(f"{count} {status}" for status, count in bad.items()))
    print_nothing_valid(summary["nothing_valid"])
    typer.echo(f"report: {out / 'report.html'}")


def print_nothing_valid(found: Sequence[Mapping[str, Any]]) -> None:
    """Say in red, on standard error, that nothing valid was scored, and why; nothing where ``found`` is empty."""
    from rsw_rewards.evaluation.summary import in_words

    for record in found:
        for line in in_words(record):
            typer.secho(line, fg="red", bold=True, err=True)


def print_reasons(table: ScoreTable) -> None:
    """Per component and status but ok: how many outputs, and the first reason."""
    frame = table.frame[table.frame["status"] != "ok"]
    for (label, status), rows in frame.groupby(["verifier", "status"], sort=False):
        reason = next((str(reason) for reason in rows["reason"] if reason), "")
        typer.echo(f"{label}: {len(rows)} {status}" + (f", first: {reason}" if reason else ""))


def print_validation(found: Validation) -> None:
    """What a validation found: failures in words, everything else in a table."""
    from rsw_rewards.evaluation.numbers import number

    rows = [
        (
            row.policy,
            row.what,
            number(row.value),
            f"{row.relation} {number(row.bound)}",
            "-" if row.value is None or row.bound is None else "yes" if row.ok else "NO",
        )
        for row in found.rows
    ]
    print_rows((f"{found.protocol}: policy", "number", "value", "must be", "ok"), rows)
    for note in found.notes:
        typer.echo(f"note: {note}")
    for problem in [*found.problems, *map(str, found.failed)]:
        typer.echo(f"problem: {problem}", err=True)
    typer.echo(f"{found.protocol}: {found.n} samples, {'sound' if found.ok else 'NOT sound'}")


def print_differences(rows: Sequence[Mapping[str, Any]]) -> None:
    """Paired differences of two runs, second less first; headline metrics first, diagnostics below them."""
    from rsw_rewards.evaluation.numbers import number, signed

    names = (rows[0]["base_run"], rows[0]["run"]) if rows else ("first", "second")
    print_rows(
        ("metric", *(name if len(name) <= 16 else name[:7] + "…" + name[-8:] for name in names), "difference, 95 %", "p (Holm)", "scenes"),
        [
            (
                ("  " if row["diagnostic"] else "") + row["metric"],
                number(row["base"]),
                number(row["value"]),
                signed(row["difference"])
                + ("" if row["ci95"] is None else f" [{signed(row['ci95'][0])}, {signed(row['ci95'][1])}]"),
                "-" if row["p_holm"] is None else f"{row['p_holm']:.4f}",
                str(row["n_scenes"]),
            )
            for row in sorted(rows, key=lambda row: row["diagnostic"])
        ],
        whole=range(1, 6),
    )  # fmt: skip
    if any(row["diagnostic"] for row in rows):
        typer.echo("set back: diagnostic")
