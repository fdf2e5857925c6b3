"""Samples and outputs that a program holds: lists of records or values, a pandas DataFrame, a datasets.Dataset, or files.

What a file could hold is judged as in a file where records name their samples: a prediction of the wrong kind is an invalid output
and is counted. What only a program can make, such as a float image without a range, is the program's fault and raises.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.image_values import HoldsArray, describe, is_instance, pixels_of
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import InputError
from rsw_rewards.io.dataset_rows import rows_of_dataset
from rsw_rewards.io.outputs import as_output, check_fields, is_missing, is_record, of_record
from rsw_rewards.io.pairing import Problem, name_of, pair
from rsw_rewards.io.records_io import SAMPLE_FIELDS, load_outputs, load_samples


def as_sample(value: Any, number: int, task: Task | str | None = None) -> Sample:
    """The Sample of a record made in Python.

    Args:
        value: a Sample, or a mapping as in a samples file, in which images may also be pixels in memory.
        number: the record's place, which is its id where it names none.
        task: of a record that names none.

    Raises:
        InputError: naming the field and the value that cannot be used.

    >>> as_sample({"task": "change_qa", "reference": {"answers": "yes"}}, 7).id
    '7'
    """
    if isinstance(value, Sample):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"a sample must be a Sample or a mapping with 'task' and 'reference', not {describe(value)}")
    named = value.get("task")
    if named is None and task is None:
        raise InputError(f"the sample has no 'task'; it is one of {', '.join(Task)}")
    fields = {key: value[key] for key in SAMPLE_FIELDS if value.get(key) is not None}
    name = value.get("id")
    return Sample(str(number) if name is None else name, task if named is None else named, **fields)  # type: ignore[arg-type]


def records_of(source: Any, what: str) -> Iterator[Any]:
    """The records of a collection, one by one; cells of a table that are missing are left out of theirs.

    Args:
        source: a list or another iterable of records, a pandas DataFrame, or a datasets.Dataset.
        what: what they are, for errors.

    Raises:
        InputError: it is no such collection.
    """
    if is_instance(source, "pandas", "DataFrame"):
        yield from _rows(source, what)
    elif is_instance(source, "datasets", "Dataset") or is_instance(source, "datasets", "IterableDataset"):
        yield from rows_of_dataset(source, what)
    elif is_instance(source, "datasets", "DatasetDict"):
        raise InputError(f"{what} must be one split of a data set; give that of {', '.join(map(repr, source))}")
    elif isinstance(source, str | bytes | Mapping | Sample | Output) or not isinstance(source, Iterable):
        raise InputError(f"{what} must be a list of records, a DataFrame, a Dataset or a file, not {describe(source)}")
    else:
        yield from source


def listed(values: Any, what: str) -> list[Any]:
    """The records of a collection. Raises :class:`InputError` for one text, record or sample in place of a list."""
    return list(values if isinstance(values, list | tuple) else records_of(values, what))


def keys_of(groups: Any) -> list[Hashable]:
    """The keys of groups; elements of arrays and tensors as plain values, since those of a tensor are never equal to each other.

    Raises:
        InputError: they are no list, or a key cannot be hashed.

    >>> keys_of(np.array([0, 1, 0]))
    [0, 1, 0]
    """
    keys = pixels_of(groups, colours=False).tolist() if isinstance(groups, HoldsArray) else listed(groups, "groups")
    if not isinstance(keys, list):
        raise InputError(f"'groups' must hold a key for every output, not {describe(keys)}")
    keys = [pixels_of(key, colours=False).tolist() if isinstance(key, HoldsArray) else key for key in keys]
    for key in keys:
        try:
            hash(key)
        except TypeError:
            raise InputError(f"'groups' must hold keys such as texts and whole numbers, not {describe(key)}") from None
    return keys


def check_ids(samples: Iterable[Sample]) -> None:
    """Raise :class:`InputError` where different samples have one id, whose outputs would be one group."""
    by_id: dict[str, Sample] = {}
    for sample in samples:
        first = by_id.setdefault(sample.id, sample)
        if first is not sample and not _same(first, sample):
            raise InputError(
                f"two different samples have the id {sample.id!r}; give each an id of its own, or name the groups of the outputs"
            )


def _same(one: Sample, other: Sample) -> bool:
    """Whether two records ask the same question and have the same truth."""
    try:
        return (one.task, one.images, one.prompt, one.reference) == (
            other.task,
            other.images,
            other.prompt,
            other.reference,
        )
    except ValueError:  # arrays, which say of each of their numbers whether it is equal
        return True


def _rows(frame: Any, what: str) -> Iterator[dict[str, Any]]:
    """The rows of a DataFrame without the cells that are missing. An index that names samples is a column."""
    if frame.index.name in ("id", "sample_id") and frame.index.name not in frame.columns:
        frame = frame.reset_index()
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise InputError(f"{what}: the DataFrame names a column twice: {describe(names)}")
    for cells in zip(*(_cells(frame[name]) for name in names), strict=True):
        yield {name: cell for name, cell in zip(names, cells, strict=True) if not is_missing(cell)}


def _cells(column: Any) -> list[Any]:
    """The cells of a column. Whole numbers between which some are missing are stored as floats, and become whole again."""
    cells: list[Any] = column.tolist()
    if column.dtype.kind == "f" and column.hasnans and all(cell.is_integer() or cell != cell for cell in cells):
        return [cell if cell != cell else int(cell) for cell in cells]
    return cells


def as_samples(source: Any, roots: Sequence[Path] = (), task: Task | str | None = None) -> list[Sample]:
    """The samples of a collection.

    Args:
        source: a list of Samples or mappings, a DataFrame or Dataset with a column per field, or the path of a samples file.
        roots: of a file, further folders that its paths may point into.
        task: of records that name none; not of a file's.

    Raises:
        InputError: naming the record, at the first that cannot be used or whose id was seen before; also when there is none.

    >>> [sample.id for sample in as_samples([{"task": "change_qa"}, {"task": "change_qa", "id": "b"}])]
    ['0', 'b']
    """
    if isinstance(source, str | PathLike):
        return load_samples(Path(source), roots)
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for number, record in enumerate(records_of(source, "samples")):
        try:
            sample = as_sample(record, number, task)
        except InputError as error:
            raise InputError(f"sample {number}: {error}") from error
        if sample.id in seen:
            raise InputError(f"sample {number}: the id {sample.id!r} is already that of sample {seen[sample.id]}")
        seen[sample.id] = number
        samples.append(sample)
    if not samples:
        raise InputError("there are no samples")
    return samples


def pair_outputs(
    samples: Sequence[Sample], outputs: Any, roots: Sequence[Path] = (), on_missing: str = "invalid"
) -> tuple[list[Output], list[Problem]]:
    """The outputs of a collection for the samples they answer, and every problem met, as :func:`load_outputs` counts them.

    Args:
        samples: what was asked; the outputs come back in their order, candidates of a sample together and in order.
        outputs: the path of a predictions file, or a list, DataFrame or Dataset. Records that name their samples (``id`` or
            ``sample_id``) are paired by name. Where none does, the place says it, and there is one for every sample:
            texts, images, records, None for a missing output.
        roots: of a file, further folders that its paths may point into.
        on_missing: ``"invalid"`` gives a sample without a prediction an invalid output, ``"drop"`` leaves it out.

    Raises:
        InputError: no record can be used, places and samples are not equally many, or a value that no file could hold is no output.

    >>> samples = as_samples([{"task": "change_qa"}] * 2)
    >>> outputs, problems = pair_outputs(samples, [{"id": "1", "text": "yes"}, {"id": "2", "text": "no"}])
    >>> [output.invalid or output.text for output in outputs], [problem.kind for problem in problems]
    (['no prediction for this sample', 'yes'], ['unknown_id', 'missing'])
    """
    if isinstance(outputs, str | PathLike):
        return load_outputs(Path(outputs), samples, roots, on_missing)
    records = list(records_of(outputs, "outputs"))
    places = [(f"output {number}", record) for number, record in enumerate(records)]
    names = [_is_named(record, place) for place, record in places]
    named = not records or any(names)
    if not named and len(records) != len(samples):
        raise InputError(
            f"{len(records)} outputs for {len(samples)} samples; outputs that name no sample ('id') stand one for each, in order"
        )
    return pair(places if named else _placed(places, samples), samples, _judged, "the list of outputs", on_missing)


def _is_named(value: Any, place: str) -> bool:
    if isinstance(value, Output):
        return bool(value.sample_id)
    try:
        return isinstance(value, Mapping) and name_of(value) is not None
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _placed(places: Iterable[tuple[str, Any]], samples: Sequence[Sample]) -> Iterator[tuple[str, Any]]:
    """Records that name no sample, with the name of the sample in their place; the sample itself for a missing one."""
    for (place, value), sample in zip(places, samples, strict=True):
        if is_missing(value):
            yield place, sample
            continue
        try:
            if isinstance(value, Output):
                record: Any = replace(value, sample_id=sample.id)
            elif is_record(value):
                check_fields(value, sample)
                record = {**value, "id": sample.id}
            else:
                record = as_output(value, sample)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        yield place, record


def _judged(record: Any, sample: Sample) -> Output:
    """The output of a named record: invalid for a field of the wrong kind that a file could hold."""
    try:
        return of_record(record, sample)
    except InputError as error:
        if isinstance(record, Output) or not all(map(_is_json, record.values())):
            raise
        return Output(sample.id, record.get("candidate", 0), invalid=str(error))


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, Mapping):
        return all(map(_is_json, value.values()))
    return value is None or isinstance(
        value, str | bytes | int | float | np.generic
    )  # bytes are those of an image file
