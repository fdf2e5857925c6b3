"""Samples and outputs that a program holds: lists of records or values, a pandas DataFrame, a datasets.Dataset, or files.

What a file could hold is judged as in a file where records name their samples: a prediction of the wrong kind is an invalid output
and is counted. What only a program can make, such as a float image without a range, is the program's fault and raises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.fields import text_of
from rsw_rewards.core.image_values import HoldsArray, describe, holds_pixels, is_instance, pixels_of
from rsw_rewards.core.records import OUTPUT_FIELDS, ImageRef, Output, Sample, Task
from rsw_rewards.errors import InputError, did_you_mean
from rsw_rewards.io.images import is_binary, values_of
from rsw_rewards.io.pairing import MISSING, Problem, lacking, name_of, pair, read_output
from rsw_rewards.io.records_io import load_outputs, load_samples

_SAMPLE_FIELDS = ("images", "prompt", "reference", "scene", "kind", "metadata")
_IMAGE_SOURCES = frozenset({"path", "bytes", "array"})
"""Keys of a mapping that is an image."""
_OUTPUT_FIELDS = frozenset({"id", *(known.name for known in dataclasses.fields(Output))})
_OF_TEXT = frozenset(task for task, names in OUTPUT_FIELDS.items() if names == ("text",))
_RASTER_FILES = frozenset({".tif", ".tiff", ".npy", ".npz"})


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
    fields = {key: value[key] for key in _SAMPLE_FIELDS if value.get(key) is not None}
    name = value.get("id")
    return Sample(str(number) if name is None else name, task if named is None else named, **fields)  # type: ignore[arg-type]


def as_output(value: Any, sample: Sample) -> Output:
    """The Output that a value is for a sample.

    Args:
        value: an Output; a mapping with the fields of one; a chat message or a list of them; None for a missing output; else the
            answer itself: a text, an image or a list of images (of a forecast), a mask, or boxes.
        sample: the one that it answers.

    Returns:
        The output with the sample's id. One that lacks a field of the sample's task is invalid, as it is in a file.

    Raises:
        InputError: naming the field and the value: of the wrong kind, of another sample, on a scale that is not declared, or of a name
            that no field has, or the path of an image that is not there.

    >>> sample = Sample("a", "change_qa")
    >>> as_output("yes", sample).text
    'yes'
    >>> as_output(None, sample).invalid
    'no prediction for this sample'
    """
    if type(value) is not str:
        value = _spoken(value)
    if is_missing(value):
        return Output(sample.id, invalid=MISSING)
    if _is_record(value):
        if isinstance(value, Mapping):
            _check_fields(value, sample)
        output = _of_record(value, sample)
    else:
        output = _on_scale(Output(sample.id, **_answer(value, sample)), sample)
    if sample.task not in _OF_TEXT:
        _check_files(output, sample)
    return output


def _of_record(record: Any, sample: Sample) -> Output:
    """The output of a record that holds the fields of one: an Output or a mapping. Raises :class:`InputError`."""
    if isinstance(record, Output):
        _check_name(record.sample_id, sample)
        output = record if record.sample_id else replace(record, sample_id=sample.id)
        why = lacking(output, sample.task)
        return _on_scale(output if why is None else replace(output, invalid=why), sample)
    if (name := name_of(record)) is not None:
        _check_name(text_of(name, "id"), sample)
    return _on_scale(read_output(record, sample), sample)


def _check_fields(record: Mapping[Any, Any], sample: Sample) -> None:
    """Refuse a record that answers by a field that no output has. Raises :class:`InputError`."""
    names = OUTPUT_FIELDS[sample.task]
    if any(record.get(name) is not None for name in (*names, "invalid", "lost")):
        return
    for key, held in record.items():
        if key not in _OUTPUT_FIELDS and held is not None:
            near = did_you_mean(str(key), names)
            raise InputError(f"{str(key)!r} is no field of a {sample.task} output; {near}")


def _check_files(output: Output, sample: Sample) -> None:
    """Refuse images of an output that no file is named as: a text where none is asked for. Raises :class:`InputError`."""
    for name in OUTPUT_FIELDS[sample.task]:
        held = getattr(output, name)
        for image in held if isinstance(held, tuple) else (held,):
            if isinstance(image, ImageRef) and image.path is not None and not image.path.is_file():
                boxes = "boxes as a list, or " if sample.task is Task.GROUNDING else ""
                raise InputError(
                    f"{name!r}: there is no file {describe(str(image.path))}; a {sample.task} output is no text: give {boxes}an"
                    " image as a path or pixels, or None where there is none"
                )


def _spoken(value: Any) -> Any:
    """The text of a chat message, or of the last one of a list as trainers keep a completion; any other value as it is."""
    messages = value if isinstance(value, list | tuple) else [value]
    if not messages or not all(map(_is_message, messages)):
        return value
    role, content = messages[-1]["role"], messages[-1]["content"]
    if role != "assistant":
        raise InputError(
            f"'role' of the last message is {describe(role)}; an output ends with a message of the 'assistant'"
        )
    if isinstance(content, list | tuple):  # of parts, as those of which a prompt is made
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
            raise InputError(f"'content' of a message must be a text, or parts with a 'text', not {describe(content)}")
        return "".join(part["text"] for part in content)
    return content


def _check_name(name: str, sample: Sample) -> None:
    if name and name != sample.id:
        raise InputError(f"the output is of the sample {name!r}, not of {sample.id!r}")


def _answer(value: Any, sample: Sample) -> dict[str, Any]:
    """The field of an output that a bare value is."""
    names = OUTPUT_FIELDS[sample.task]
    if names == ("text",):
        return {"text": value}
    if sample.task is Task.FORECAST:
        return {"images" if isinstance(value, list | tuple) else "image": value}
    if sample.task is Task.GROUNDING:
        return {_grounding(value): value}
    if len(names) > 1:
        raise InputError(
            f"an output of the task {sample.task} has {len(names)} images; give a mapping with {' and '.join(names)}"
        )
    return {names[0]: value}


def _grounding(value: Any) -> str:
    """Whether a value is boxes or a mask."""
    if isinstance(value, list | tuple):
        return "boxes"
    dtype = str(getattr(value, "dtype", ""))
    if "float" in dtype:
        return "boxes"
    if "int" in dtype and holds_pixels(value) and np.shape(value)[-1:] in ((4,), (8,)):
        raise InputError(f"{describe(value)} may be boxes or a mask; give a mapping with 'boxes' or 'mask'")
    return "mask"


def _on_scale(output: Output, sample: Sample) -> Output:
    """The output, if its images in memory hold numbers that the sample declares. Raises :class:`InputError`."""
    for name in OUTPUT_FIELDS[sample.task]:
        held = getattr(output, name)
        for image in held if isinstance(held, tuple) else (held,):
            if not isinstance(image, ImageRef) or image.array is None:
                continue
            if name in ("image", "images"):
                _check_picture(name, image, sample)
            else:
                _check_mask(name, image, sample)
    return output


def _check_picture(name: str, image: ImageRef, sample: Sample) -> None:
    array = image.array
    assert array is not None
    if image.is_mapped or _holds_rasters(sample):
        return
    if array.dtype not in (np.uint8, bool):
        raise InputError(
            f"{name!r}: {describe(array)} has no declared range; make it by rsw.image(array, range=(low, high))"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        raise InputError(
            f"{name!r}: {describe(array)} has {array.shape[2]} bands, an image to look at 1 or 3; make it by rsw.image(array,"
            " layout='CHW') or rsw.image(array, bands=(red, green, blue))"
        )


def _check_mask(name: str, image: ImageRef, sample: Sample) -> None:
    array = image.array
    assert array is not None
    if array.dtype.kind not in "bui" and image.threshold is None:
        raise InputError(f"{name!r}: {describe(array)} is no mask; give bool or whole numbers")
    declared = (image.levels, image.palette, image.threshold, image.nodata) != (None,) * 4
    if name != "mask" or declared or (sample.task is Task.CHANGE_MASK and sample.reference.get("classes") is not None):
        return
    if not is_binary(array):
        raise InputError(
            f"{name!r}: {describe(array)} holds {values_of(array)}; give a mask as bool or as 0 and 255, or say what its values"
            " mean, as rsw.image(mask, threshold=0) for over 0"
        )


def _holds_rasters(sample: Sample) -> bool:
    """Whether the images of a sample may hold other numbers than grey levels, so that those of a forecast of it may, too."""
    if sample.metadata.get("bands"):
        return True
    return any(
        image.is_mapped
        or (image.path is not None and image.path.suffix.lower() in _RASTER_FILES)
        or (image.array is not None and image.array.dtype not in (np.uint8, bool))
        or image.ref is not None
        for image in (*sample.images, *(sample.reference.get("images") or ()))
    )


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: None, and what a DataFrame holds in its place (NaN, NA, NaT)."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return is_instance(value, "pandas._libs.missing", "NAType") or is_instance(
        value, "pandas._libs.tslibs.nattype", "NaTType"
    )


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
        for row in source:
            yield {key: value for key, value in row.items() if not is_missing(value)}
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


def _is_record(value: Any) -> bool:
    """Whether a value has the fields of an output, and is not the answer itself."""
    if isinstance(value, Mapping):
        return not (_IMAGE_SOURCES & value.keys() or _is_message(value))
    return isinstance(value, Output)


def _is_message(value: Any) -> bool:
    """Whether a value is a message of a chat."""
    return isinstance(value, Mapping) and "role" in value and "content" in value


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
            elif _is_record(value):
                _check_fields(value, sample)
                record = {**value, "id": sample.id}
            else:
                record = as_output(value, sample)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        yield place, record


def _judged(record: Any, sample: Sample) -> Output:
    """The output of a named record: invalid for a field of the wrong kind that a file could hold."""
    try:
        return _of_record(record, sample)
    except InputError as error:
        if isinstance(record, Output) or not all(map(_is_json, record.values())):
            raise
        return Output(sample.id, record.get("candidate", 0), invalid=str(error))


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, Mapping):
        return all(map(_is_json, value.values()))
    return value is None or isinstance(value, str | int | float | np.generic)
