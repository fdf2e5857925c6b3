"""Answers that other tools wrote, as outputs: ``rsw predictions from NAME FILE`` and :func:`rsw_rewards.predictions.read`.

An answer is never guessed to belong to a sample: ids that are unknown or may mean several samples are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_values import describe
from rsw_rewards.core.plugins import named, user_code
from rsw_rewards.core.records import Sample
from rsw_rewards.core.registry import Registry, a_function
from rsw_rewards.data.importers.cubes import read_cubes
from rsw_rewards.data.importers.fields import without_ids
from rsw_rewards.data.importers.folders import read_folder
from rsw_rewards.data.importers.imported import Imported
from rsw_rewards.data.importers.matching import Answer, match, unmatched
from rsw_rewards.errors import ConfigError, InputError

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
            ("folder", "folders:read_folder"),
            ("cubes", "cubes:read_cubes"),
        )
    },
    a_function,
)
"""Functions ``(file, *, id, text)`` that give the answers in a file of another tool; and the reader of a folder of images."""


def read_predictions(
    importer: str | Any,
    file: Path,
    samples: Sequence[Sample] | None = None,
    *,
    by: str = "id",
    id: str | None = None,
    text: str | None = None,
    **declared: Any,
) -> Imported:
    """The answers in a file as outputs; see :func:`rsw_rewards.predictions.read`."""
    read = IMPORTERS.find(importer)
    if read in (read_folder, read_cubes):
        return _of_folder(read, Path(file), samples, {"by": by, "id": id, "text": text}, declared)
    if declared:
        raise ConfigError(f"the importer {named(importer)!r} has no option {min(declared)!r}; it takes by, id and text")
    if by not in ("id", "order"):
        raise ConfigError(f"'by' must be id or order, not {by!r}")
    if by == "order" and samples is None:
        raise ConfigError("answers are matched by their order among the samples; give the samples too")
    file = Path(file)
    if not file.exists():
        raise InputError(f"{file} does not exist; give the path of the file with the answers")
    if not file.is_file():
        raise InputError(
            f"{file} is not a file; give the one that {named(importer)} wrote, or read a folder of images with the importer 'folder'"
        )
    with user_code(f"the importer {named(importer)!r} raised"):
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


def _of_folder(
    read: Callable[..., Any],
    folder: Path,
    samples: Sequence[Sample] | None,
    of_texts: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Imported:
    if given := [name for name, value in of_texts.items() if value not in (None, "id")]:
        raise ConfigError(
            f"a folder of images takes no option {given[0]!r}: its files are matched with samples by their names"
        )
    if samples is None:
        raise ConfigError("images are matched with samples by their names; give the samples too")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds the images")
    done: Imported = read(folder, samples, **options)
    return done
