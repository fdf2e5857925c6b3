"""Answers that other tools wrote, turned into a predictions file: ``rsw predictions from NAME FILE``.

An answer is never guessed to belong to a sample: ids that are unknown or may mean several samples are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsw_rewards.core.records import Sample
from rsw_rewards.core.registry import Registry
from rsw_rewards.data.importers.matching import Answer, match
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.pairing import Problem
from rsw_rewards.io.records_io import output_to_json, write_jsonl

IMPORTERS: Registry[Callable[..., Iterable[Answer]]] = Registry(
    "importer of predictions",
    "importers",
    {
        name: f"rsw_rewards.data.importers.{place}"
        for name, place in (
            ("lmms-eval", "harnesses:read_lmms_eval"),
            ("vlmevalkit", "harnesses:read_vlmevalkit"),
            ("inspect", "inspect_logs:read_inspect"),
            ("csv", "plain:read_csv"),
            ("json", "plain:read_json"),
            ("coco-captions", "plain:read_coco_captions"),
        )
    },
)
"""Functions ``(file, *, id, text)`` that give the answers in a file of another tool."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote, for the command to print."""

    predictions: int
    samples: int
    """Samples that have at least one prediction."""
    file: Path
    problems: list[Problem]
    """Answers that could not be used, and samples without an answer."""
    notes: list[str] = field(default_factory=list)


def import_predictions(
    name: str | Any,
    file: Path,
    samples: Sequence[Sample],
    out: Path,
    *,
    by: str = "id",
    id: str | None = None,
    text: str | None = None,
) -> Imported:
    """Write the answers in ``file`` as a predictions file for ``samples``.

    Args:
        name: a name or an object of :data:`IMPORTERS`.
        file: what the other tool wrote.
        samples: what was asked, in the order of their file.
        out: the JSON Lines file to write; it appears whole or not at all.
        by: ``"id"``, or ``"order"`` where the file's order is that of the samples.
        id, text: the column or key (with dots for nested ones) that holds the id and the answer, where the usual ones do not.

    Raises:
        ConfigError: no importer of that name, or an option of an unknown value.
        InputError: the file is not of that kind, or none of its answers belongs to a sample.
    """
    read = IMPORTERS.find(name)
    if by not in ("id", "order"):
        raise ConfigError(f"'by' must be id or order, not {by!r}")
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file} is not a file; give the one that {name} wrote")
    answers = list(read(file, id=None if id is None else str(id), text=None if text is None else str(text)))
    if by == "id" and answers and all(answer.id is None and answer.problem is None for answer in answers):
        raise InputError(
            f"{file} names no ids of its own; if its order is that of the samples use --set by=order, or name the field that holds the id with --set id=FIELD"
        )
    outputs, problems, notes = match(answers, samples, by)
    if not outputs:
        first = next((problem for problem in problems if problem.kind != "missing"), None)
        why = f"the first reason of {len(answers)}: {first}" if first else "it holds no answers"
        raise InputError(f"no answer in {file} belongs to a sample ({why})")
    out = Path(out)
    try:
        write_jsonl(out, (output_to_json(output, out.parent) for output in outputs))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    answered = len({output.sample_id for output in outputs})
    return Imported(len(outputs), answered, out, problems, notes)
