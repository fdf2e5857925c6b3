"""One output that a program made: the answer itself, a record with its fields, or a chat message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from os.path import isfile
from typing import Any

import numpy as np

from rsw_rewards.core.fields import text_of
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.image_values import describe, holds_pixels, is_instance
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.errors import InputError, did_you_mean
from rsw_rewards.io.images import is_binary, values_of
from rsw_rewards.io.pairing import MISSING, RECORD_FIELDS, lacking, name_of, read_output

_IMAGE_SOURCES = frozenset({"path", "bytes", "array"})
"""Keys of a mapping that is an image."""
_OF_TEXT = frozenset(task for task, names in OUTPUT_FIELDS.items() if names == ("text",))
_RASTER_FILES = frozenset({".tif", ".tiff", ".npy", ".npz"})


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
    if is_record(value):
        if isinstance(value, Mapping):
            check_fields(value, sample)
        output = of_record(value, sample)
    else:
        output = _on_scale(Output(sample.id, **_answer(value, sample)), sample)
    if sample.task not in _OF_TEXT:
        _check_files(output, sample)
    return output


def of_record(record: Any, sample: Sample) -> Output:
    """The output of a record that holds the fields of one: an Output or a mapping. Raises :class:`InputError`."""
    if isinstance(record, Output):
        _check_name(record.sample_id, sample)
        output = record if record.sample_id else replace(record, sample_id=sample.id)
        why = lacking(output, sample.task)
        return _on_scale(output if why is None else replace(output, invalid=why), sample)
    if (name := name_of(record)) is not None:
        _check_name(text_of(name, "id"), sample)
    return _on_scale(read_output(record, sample), sample)


def check_fields(record: Mapping[Any, Any], sample: Sample) -> None:
    """Refuse a record that answers by a field that no output has. Raises :class:`InputError`."""
    names = OUTPUT_FIELDS[sample.task]
    if any(record.get(name) is not None for name in (*names, "invalid")):
        return
    for key, held in record.items():
        if key not in RECORD_FIELDS and held is not None:
            near = did_you_mean(str(key), names)
            raise InputError(f"{str(key)!r} is no field of a {sample.task} output; {near}")


def _check_files(output: Output, sample: Sample) -> None:
    """Refuse images of an output that no file is named as: a text where none is asked for. Raises :class:`InputError`."""
    for name, image in _images_of(output, sample.task):
        if image.path is not None and not isfile(image.path):
            boxes = "boxes as a list, or " if sample.task is Task.GROUNDING else ""
            raise InputError(
                f"{name!r}: there is no file {describe(str(image.path))}; a {sample.task} output is no text: give {boxes}an"
                " image as a path or pixels, or None where there is none"
            )


def _images_of(output: Output, task: Task) -> Iterator[tuple[str, ImageRef]]:
    """The images by which an output answers a task, each with the name of its field."""
    for name in OUTPUT_FIELDS[task]:
        held = getattr(output, name)
        for image in held if isinstance(held, tuple) else (held,):
            if isinstance(image, ImageRef):
                yield name, image


def _spoken(value: Any) -> Any:
    """The text of a chat message, or of the last one of a list as trainers keep a completion; any other value as it is."""
    messages = value if isinstance(value, list | tuple) else [value]
    if not messages or not all(map(is_message, messages)):
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
    for name, image in _images_of(output, sample.task):
        if image.array is not None:
            check = _check_picture if name in ("image", "images") else _check_mask
            check(name, image, image.array, sample)
    return output


def _check_picture(name: str, image: ImageRef, array: np.ndarray, sample: Sample) -> None:
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


def _check_mask(name: str, image: ImageRef, array: np.ndarray, sample: Sample) -> None:
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


def is_record(value: Any) -> bool:
    """Whether a value has the fields of an output, and is not the answer itself."""
    if isinstance(value, Mapping):
        return not (_IMAGE_SOURCES & value.keys() or is_message(value))
    return isinstance(value, Output)


def is_message(value: Any) -> bool:
    """Whether a value is a message of a chat."""
    return isinstance(value, Mapping) and "role" in value and "content" in value
