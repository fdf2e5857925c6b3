"""Answers that other tools wrote, as outputs: ``rsw predictions from NAME FILE`` and :func:`rsw_rewards.predictions.read`.

An answer is never guessed to belong to a sample: ids that are unknown or may mean several samples are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_values import describe
from rsw_rewards.core.plugins import guarded, named
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.registry import Registry, a_function
from rsw_rewards.data.importers.fields import without_ids
from rsw_rewards.data.importers.matching import Answer, match, unmatched
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
    a_function,
)
"""Functions ``(file, *, id, text)`` that give the answers in a file of another tool."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Answers of another tool as outputs; :func:`rsw_rewards.evaluate` takes it in place of a list."""

    outputs: list[Output]
    problems: list[Problem]
    """Answers that could not be used, and samples without an answer."""
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Output]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def answered(self) -> int:
        """Samples that have at least one output."""
        return len({output.sample_id for output in self.outputs})

    def save(self, file: str | PathLike[str]) -> Path:
        """Write a predictions file (JSON Lines), which appears whole or not at all, and return its path."""
        out = Path(file)
        try:
            write_jsonl(out, (output_to_json(output, out.parent) for output in self.outputs))
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror}") from error
        return out


def read_predictions(
    importer: str | Any,
    file: Path,
    samples: Sequence[Sample] | None = None,
    *,
    by: str = "id",
    id: str | None = None,
    text: str | None = None,
) -> Imported:
    """The answers in a file as outputs; see :func:`rsw_rewards.predictions.read`."""
    read = IMPORTERS.find(importer)
    if by not in ("id", "order"):
        raise ConfigError(f"'by' must be id or order, not {by!r}")
    if by == "order" and samples is None:
        raise ConfigError("answers are matched by their order among the samples; give the samples too")
    file = Path(file)
    if not file.exists():
        raise InputError(f"{file} does not exist; give the file that {named(importer)} wrote")
    if not file.is_file():
        raise InputError(f"{file} is not a file; give the one that {named(importer)} wrote")
    with guarded(f"the importer {named(importer)!r}"):
        answers = list(read(file, id=None if id is None else str(id), text=None if text is None else str(text)))
    for answer in answers:
        if not isinstance(answer, Answer):
            raise ConfigError(f"the importer {named(importer)!r} must give Answers, not {describe(answer)}")
    if by == "id" and answers and all(answer.id is None and answer.problem is None for answer in answers):
        raise InputError(without_ids(answers[0].fields, file))
    outputs, problems, notes = unmatched(answers) if samples is None else match(answers, samples, by)
    if not outputs:
        first = next((problem for problem in problems if problem.kind != "missing"), None)
        why = f"the first reason of {len(answers)}: {first}" if first else "it holds no answers"
        raise InputError(f"no answer in {file} {'can be used' if samples is None else 'belongs to a sample'} ({why})")
    return Imported(outputs, problems, notes)
