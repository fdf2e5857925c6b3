"""Rows of a datasets.Dataset as plain records: classes by their names, images as their files, arrays as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rsw_rewards.core.image_values import is_instance
from rsw_rewards.errors import InputError

_AT_ONCE = 64
"""Rows that are held in memory at a time."""

Reader = Callable[[Any], Any]


def rows_of_dataset(data: Any, what: str) -> Iterator[dict[str, Any]]:
    """The rows of a Dataset or an IterableDataset, without the cells that are None.

    The number of a class is its name, also in lists; -1, which stands for no class, is None. A None in a list of texts or of classes
    is left out; elsewhere it stays, since places count there. Images are not decoded here, so that one broken file costs one row.
    A ``label`` or ``labels`` of a reference brings its classes as the ``vocabulary``, where the reference has none.

    Args:
        data: of any format; a transform that its owner has set is applied.
        what: what the rows are, for errors.

    Raises:
        InputError: a row cannot be read.
    """
    features = data.features or {}
    readers = {name: read for name, feature in features.items() if (read := _reader(feature)) is not None}
    classes = _classes_of(features.get("reference"))
    for row in _readable(data, what):
        record = {key: readers[key](value) if key in readers else value for key, value in row.items()}
        reference = record.get("reference")
        if classes and isinstance(reference, Mapping) and reference.get("vocabulary") is None:
            record["reference"] = {**reference, "vocabulary": classes}
        yield {key: value for key, value in record.items() if value is not None}


def _readable(data: Any, what: str) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        for row in _raw(data):
            yield row
            number += 1
    except Exception as error:  # whatever a broken file, a connection or somebody's function raises
        raise InputError(f"{what}: row {number} cannot be read: {type(error).__name__}: {error}") from error


def _raw(data: Any) -> Iterator[dict[str, Any]]:
    """The rows as they are stored; as their owner's transform makes them, where there is one."""
    if is_instance(data, "datasets", "IterableDataset"):
        data = data.with_format(None)
        yield from (data.decode(False) if data.features else data)
    elif data.format["type"] == "custom":
        yield from data
    else:
        for table in data.with_format("arrow").iter(_AT_ONCE):
            yield from table.to_pylist()


def _reader(feature: Any) -> Reader | None:
    """What makes a stored value of a feature one that records are made of; None where it is one already."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        return lambda value: names[value] if isinstance(value, int) and 0 <= value < len(names) else None
    if isinstance(feature, datasets.Image):
        return _converted(feature) if feature.mode else None
    if type(feature).__name__ in ("Array2D", "Array3D", "Array4D", "Array5D"):
        return lambda value: None if value is None else np.asarray(value, dtype=feature.dtype)
    if isinstance(feature, dict):
        readers = {key: read for key, part in feature.items() if (read := _reader(part)) is not None}
        return (lambda value: _each(value, readers)) if readers else None
    part = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if part is None:
        return None
    read = _reader(part)
    if isinstance(part, datasets.ClassLabel) or getattr(part, "dtype", "") in ("string", "large_string"):
        return lambda value: _present(value, read)
    if read is None:
        return None
    return lambda value: [read(item) for item in value] if isinstance(value, list) else value


def _each(value: Any, readers: Mapping[str, Reader]) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: readers[key](item) if key in readers else item for key, item in value.items()}


def _present(value: Any, read: Reader | None) -> Any:
    if not isinstance(value, list):
        return value
    items = value if read is None else map(read, value)
    return [item for item in items if item is not None]


def _converted(feature: Any) -> Reader:
    """Images that are declared to be shown in another mode than their file's."""

    def read(value: Any) -> Any:
        try:
            return feature.decode_example(value)
        except Exception:  # a file that is no image is refused where images are read
            return value

    return read


def _classes_of(reference: Any) -> list[str]:
    """The names of the classes that a reference's ``label`` or ``labels`` are of."""
    for key in ("label", "labels"):
        feature = reference.get(key) if isinstance(reference, dict) else None
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            return list(names)
    return []
