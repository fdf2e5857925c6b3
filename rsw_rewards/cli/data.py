"""``rsw data``: samples from a generator or from a data set on disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import rsw_rewards as rsw
from rsw_rewards.cli.display import print_json, print_rows, warn
from rsw_rewards.cli.options import Json, Limit, Out, Roots, Samples, assignments


def make_scene_world(
    out: Out,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of samples; each task has an equal share.")] = 1000,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Random seed: another number gives other scenes of the split.")
    ] = 0,
    split: Annotated[str, typer.Option("--split", help="Split of the scene world.")] = "test",
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks, separated by commas.")] = "change_qa,forecast",
) -> None:
    """Make samples from the scene world: synthetic image pairs with exact references."""
    rsw.data.make_scene_world(out, n, seed, split=split, tasks=[task.strip() for task in tasks.split(",")])
    typer.echo(f"{n} samples: {out / 'samples.jsonl'}")


def data_from(
    adapter: Annotated[str, typer.Argument(help="Adapter; see 'rsw data adapters'. Also hf:NAME or module:function.")],
    path: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    out: Out,
    split: Annotated[str | None, typer.Option("--split", help="Part of the data set.", show_default=False)] = None,
    limit: Limit = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the adapter, key=value in YAML (repeatable).", show_default=False),
    ] = None,
) -> None:
    """Write samples.jsonl from a data set in the files of its authors. Images stay where they are."""
    conversion = rsw.data.convert(adapter, path, out, split=split, limit=limit, **assignments(options))
    for note in conversion.notes:
        typer.echo(f"note: {note}")
    roots = " ".join(f"--root {root}" for root in conversion.roots)
    typer.echo(f"{conversion.samples} samples: {conversion.file}" + (f"   use it with {roots}" if roots else ""))


def data_adapters(as_json: Json = False) -> None:
    """List the data sets that can be read in the files of their authors."""
    import inspect

    from rsw_rewards.data.registry import ADAPTERS

    rows = []
    for name, adapter in sorted(ADAPTERS.all().items()):
        words = (
            inspect.getdoc(
                adapter if getattr(adapter, "__name__", "convert") != "convert" else inspect.getmodule(adapter)
            )
            or ""
        )
        rows.append((name, words.partition("\n\n")[0].replace("\n", " ")))
    if as_json:
        print_json(dict(rows))
    else:
        print_rows(("adapter", "what it reads"), rows)


def predictions_from(
    importer: Annotated[
        str, typer.Argument(help="lmms-eval, vlmevalkit, inspect, csv, json, coco-captions, folder or cubes.")
    ],
    file: Annotated[
        Path, typer.Argument(help="The file that the other tool wrote, or a folder of images.", show_default=False)
    ],
    samples: Samples,
    out: Annotated[Path, typer.Option("--out", help="Predictions file to write (JSON Lines).", show_default=False)],
    root: Roots = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="by=order where the file has no ids; id=FIELD and text=FIELD for unusual columns; of a folder, levels, threshold,"
            " palette, nodata, bands, stretch, task and files=PATTERN; of cubes, frames=FOLDER (repeatable).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a predictions file from another tool's answers. Answers that match no sample are reported."""
    from rsw_rewards.io.records_io import load_samples

    asked = load_samples(samples, root or [])
    found = rsw.predictions.read(importer, file, asked, **assignments(options))
    written = found.save(out)
    if as_json:
        record = {
            "predictions": len(found), "samples": found.answered, "file": written, "problems": [asdict(p) for p in found.problems],
            "notes": found.notes, "roots": found.roots(written),
        }  # fmt: skip
        print_json(record)
        return
    warn(found.problems)
    for note in found.notes:
        typer.echo(f"note: {note}")
    folders = " ".join(f"--root {folder}" for folder in found.roots(written))
    typer.echo(
        f"{len(found)} predictions for {found.answered} of {len(asked)} samples: {written}"
        + (f"   use it with {folders}" if folders else "")
    )
