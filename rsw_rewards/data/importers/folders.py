"""A folder of images as outputs: masks, maps or forecasts of another model, one file each."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from rsw_rewards.core.image_ref import image
from rsw_rewards.core.records import Sample, as_task
from rsw_rewards.data.importers.codings import check_codings
from rsw_rewards.data.importers.file_names import Named, image_fields, read_names
from rsw_rewards.data.importers.imported import Imported
from rsw_rewards.errors import ConfigError, InputError, did_you_mean
from rsw_rewards.io.pairing import Problem, coverage, pair, read_output

DECLARED = ("levels", "threshold", "palette", "nodata", "bands", "stretch")
"""What may be said of the numbers in all files, as in an entry of a predictions file."""
_OPTIONS = ("files", "task", *DECLARED)
_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".pgm", ".ppm", ".npy", ".npz"}
)
_LOSSY = frozenset({".jpg", ".jpeg"})


def read_folder(folder: Path, samples: Sequence[Sample], **options: Any) -> Imported:
    """The images below a folder as outputs of the samples that their names tell (see :func:`read_names`).

    Args:
        folder: holds the images, also in folders of its own. Hidden files, files that are no images and links out of it are left out.
        samples: what was asked; those that a text answers are left alone.
        options: ``files``, a pattern of the paths to read, such as ``*_pred.png``; ``task``, of the samples that they are for, else they
            are for those that they name; and :data:`DECLARED`.

    Raises:
        InputError: no file names a sample, or no image can be read as it is; with the setting that reads them.
        ConfigError: an unknown option.
    """
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ConfigError(f"a folder of images takes no option {unknown[0]!r}; {did_you_mean(unknown[0], _OPTIONS)}")
    pattern = options.pop("files", None)
    task = None if (chosen := options.pop("task", None)) is None else as_task(chosen)
    asked = [sample for sample in samples if image_fields(sample) and task in (None, sample.task)]
    if not asked:
        have = ", ".join(sorted({str(sample.task) for sample in samples}))
        wanted = "a task that images answer" if task is None else f"the task {task}"
        raise InputError(f"{folder} is a folder of images, and no sample ({have}) is of {wanted}")
    files, notes = _images_in(folder, None if pattern is None else str(pattern))
    named, problems, made = read_names(files, asked)
    if made:
        notes.append(
            f"the names of the files are made as {made!r}, where '*' is the id of the sample{_WHERE_NUMBER[made.count('#')]}"
        )
    elif any(one.number for one in named):
        notes.append("the numbers that name folders are those of the candidates")
    named, double = _single(named)
    problems += double
    if not named and double:
        raise InputError(
            f"no file in {folder} stands alone for its output ({double[0]}), or give one of the folders in it"
        )
    if not named:
        why = problems[0] if problems else "it holds no images"
        raise InputError(
            f"no file of {len(files)} in {folder} is the prediction of a sample ({why}); name the files by the ids of the samples,"
            f" which are such as {asked[0].id!r}"
        )
    tasks = {one.sample.task for one in named}
    if others := Counter(str(sample.task) for sample in asked if sample.task not in tasks):
        counts = ", ".join(f"{count} of {name}" for name, count in others.items())
        notes.append(f"samples of tasks that no file is for are left out: {counts}")
    asked = [sample for sample in asked if sample.task in tasks]
    outputs, other = pair(_records(folder, named, options), asked, read_output, str(folder), "drop")
    notes += check_codings(folder, outputs, asked)
    lossy = sum(PurePosixPath(one.file).suffix.lower() in _LOSSY and one.field == "image" for one in named)
    if lossy:
        notes.append(
            f"{lossy} of {len(named)} forecasts are JPEG, which loses detail that counts against the model; PNG keeps it"
        )
    problems += other
    if problems:
        notes.append(coverage(problems, len(asked)))
    return Imported(outputs, problems, notes, folder)


_WHERE_NUMBER = ("", " and '#' the number of the candidate")


def _images_in(folder: Path, pattern: str | None) -> tuple[list[str], list[str]]:
    """The images below a folder, as paths with slashes, and what was left out, a sentence each."""
    real = folder.resolve()
    found: list[str] = []
    left: Counter[str] = Counter()
    for place, folders, names in os.walk(folder, onerror=_raise):
        hidden = [name for name in folders if _is_hidden(name)]
        left["hidden"] += len(hidden)
        folders[:] = sorted(set(folders) - set(hidden))
        left["links"] += sum(Path(place, name).is_symlink() for name in folders)
        for path in (Path(place, name) for name in sorted(names)):
            file, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
            if _is_hidden(path.name):
                left["hidden"] += 1
            elif suffix not in _SUFFIXES:
                left[f"*{suffix}" if suffix else "without a suffix"] += 1
            elif path.is_symlink() and not path.resolve().is_relative_to(real):
                left["links"] += 1
            elif pattern is not None and not (fnmatch(file, pattern) or fnmatch(path.name, pattern)):
                left[f"other than {pattern}"] += 1
            else:
                found.append(file)
    told = [f"{count} {_LEFT.get(what, what)}" for what, count in left.items() if count]
    return found, [f"left out in {folder}: {', '.join(told)}"] if told else []


_LEFT = {"hidden": "hidden", "links": "links that leave the folder or to folders"}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def _single(named: Iterable[Named]) -> tuple[list[Named], list[Problem]]:
    """The files that alone stand for their image of an output; which of several is meant is not guessed."""
    groups: dict[tuple[str, int | None, str], list[Named]] = defaultdict(list)
    for one in named:
        groups[one.sample.id, one.number, one.field].append(one)
    problems = [
        Problem(
            "duplicate",
            one.file,
            f"{len(group)} files may be the {one.field} of {one.sample.id!r}, also"
            f" {next(other.file for other in group if other is not one)}; say which are meant by files=PATTERN",
        )
        for group in groups.values()
        if len(group) > 1
        for one in group
    ]
    return [group[0] for group in groups.values() if len(group) == 1], problems


def _records(folder: Path, named: Iterable[Named], declared: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A record for every output, with the file that it begins with."""
    records: dict[tuple[str, int | None], tuple[str, dict[str, Any]]] = {}
    for one in named:
        fresh = (one.file, {"id": one.sample.id, "candidate": one.number})
        _, record = records.setdefault((one.sample.id, one.number), fresh)
        record[one.field] = image(folder / one.file, **declared)
    return list(records.values())
