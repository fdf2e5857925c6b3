"""Whether the images of a folder can be read as predictions, and the setting that reads those which cannot."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.data.importers.file_names import image_fields
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.io.images import (
    OPAQUE,
    declared_bands,
    is_binary,
    read_class_map,
    read_marked,
    read_rgb,
    read_size,
    values_of,
)

MOST_VALUES = 6
"""Values or colours that a setting names one by one."""
MOST_KEPT = 256
"""Values or colours of a file that are kept, beside the last."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the file of an output cannot be used as it is."""

    sample: Sample
    file: Path
    sort: str
    """``unreadable``, ``shape``, ``coding`` or ``size``."""
    reason: str
    stored: np.ndarray | None = None
    """Of a coding that is not known: the values that occur, (n,), or the colours, (n, 3), the darkest first."""
    bands: int = 1


def check_codings(folder: Path, outputs: Sequence[Output], samples: Sequence[Sample]) -> list[str]:
    """What cannot be used of the images of outputs, a sentence for each field and sort of fault.

    Args:
        folder: holds them.
        outputs: with images in files.
        samples: those that they answer.

    Raises:
        InputError: all of them have the same fault. A mask that is 0 everywhere is of any coding and tells nothing.
    """
    by_id = {sample.id: sample for sample in samples}
    notes: list[str] = []
    for field in dict.fromkeys(field for sample in samples for field in image_fields(sample)):
        found = [
            _look(image, by_id[output.sample_id], field)
            for output in outputs
            if (image := getattr(output, field)) is not None
        ]
        faults = [one for one in found if isinstance(one, Fault)]
        for sort in dict.fromkeys(fault.sort for fault in faults):
            alike = [fault for fault in faults if fault.sort == sort]
            telling = len(found) - (sum(one == _EMPTY for one in found) if sort == "coding" else 0)
            told = f"{len(alike)} of {telling} files in {folder} {_in_words(alike, field, folder)}"
            if len(alike) == telling:
                raise InputError(told)
            notes.append(f"{told}; as they are they count as invalid")
    return notes


_EMPTY = "nothing is marked"


def _look(image: ImageRef, sample: Sample, field: str) -> Fault | str | None:
    """The fault of an image, :data:`_EMPTY` for a mask or map of zeros, None for another one that can be read."""
    assert image.path is not None
    try:
        size = None if (true := _truth_of(sample, field)) is None else read_size(true)
    except ImageError:  # whatever is wrong with the truth is said when it is scored
        size = None
    try:
        shown = _shown(image, sample, field)
    except ImageError as error:
        return _of_coding(image, sample, field, size, error)
    if size is None or shown.shape[:2] == size:
        return _EMPTY if field != "image" and not shown.any() else None
    stored = image.pixels()
    if stored.ndim == 3 and stored.shape[1:] == size:
        return Fault(sample, image.path, "shape", _shape_of(stored))
    sizes = f"{shown.shape[1]} x {shown.shape[0]} pixels beside {size[1]} x {size[0]}"
    return Fault(sample, image.path, "size", sizes)


def _shape_of(stored: np.ndarray) -> str:
    return f"the {stored.dtype} array of shape {stored.shape}"


def _shown(image: ImageRef, sample: Sample, field: str) -> np.ndarray:
    """What is scored of an image. Raises :class:`ImageError` for what cannot be."""
    if field == "image":
        future = _truth_of(sample, field)
        mapped = future is not None and future.is_mapped  # a forecast is then shown as the future is
        return image.pixels(bands=declared_bands(image)) if mapped else read_rgb(image)
    classes = sample.reference.get("classes")
    if field == "mask" and classes is None:
        return read_marked(image)[0]
    indices = read_class_map(image)[0]
    if classes is not None and not (
        (int(indices.max()) < len(classes) and int(indices.min()) >= 0) or is_binary(indices)
    ):
        raise ImageError(f"{image} holds other values than the indices of {len(classes)} classes")
    return indices


def _truth_of(sample: Sample, field: str) -> ImageRef | None:
    """The true image beside which one of an output must have the same size."""
    true = sample.reference.get(field)
    if field == "image":
        futures = sample.reference.get("images") or (None,)
        true = futures[-1] if sample.images else None  # one that is made from a text may have any size
    return true if isinstance(true, ImageRef) else None


def _of_coding(image: ImageRef, sample: Sample, field: str, size: tuple[int, int] | None, error: ImageError) -> Fault:
    assert image.path is not None
    try:
        pixels = image.pixels(colours=field == "image" or image.palette is not None, bands=declared_bands(image))
    except ImageError:
        return Fault(sample, image.path, "unreadable", str(error))
    if str(error).endswith(OPAQUE):
        return Fault(sample, image.path, "unreadable", str(error))
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    stored: np.ndarray | None = None
    if pixels.ndim == 2 or field == "image" or (pixels == pixels[..., :1]).all():
        stored = np.unique(pixels if field == "image" or pixels.ndim == 2 else pixels[..., 0])
    elif bands == 3 and pixels.dtype == np.uint8:
        stored = np.unique(pixels.reshape(-1, 3), axis=0)
    if stored is not None and stored.dtype.kind == "f":
        stored = stored[np.isfinite(stored)]
        if not stored.size:
            return Fault(sample, image.path, "unreadable", f"{image} holds no finite number")
    if stored is not None and len(stored) > MOST_KEPT:
        stored = np.concatenate([stored[:MOST_KEPT], stored[-1:]])
    if stored is None or (bands > 1 and pixels.shape[1:] == size):
        return Fault(sample, image.path, "shape", _shape_of(pixels))
    return Fault(sample, image.path, "coding", str(error), stored, bands)


def _in_words(faults: Sequence[Fault], field: str, folder: Path) -> str:
    """What is wrong with the files of faults of one sort, and what to do."""
    first = faults[0]
    such = f"such as {first.file.name}"
    if first.sort == "unreadable":
        return f"cannot be read, {such}: {first.reason}"
    if first.sort == "shape":
        shape = "(H, W, bands)" if field == "image" else "(H, W)"
        return f"have no shape of a {field}, {such}: {first.reason}; write them as {shape}"
    if first.sort == "size":
        how = "" if field == "image" else ", by nearest neighbour"
        return f"have another size than the truth, {such}: {first.reason}; write them at the size of the truth{how}"
    stored = [fault.stored for fault in faults if fault.stored is not None]
    if len({(values.shape[1:], fault.bands) for values, fault in zip(stored, faults, strict=True)}) > 1:
        return f"cannot be read as the {field} of an output, {such}: {first.reason}"
    values = np.unique(np.concatenate(stored), axis=0)
    if field == "image":
        setting = _of_forecast(values, first.bands, [fault.sample for fault in faults])
    else:
        setting = (_of_colours if values.ndim == 2 else _of_values)(values, first.sample, field)
    if not setting.settings:
        return f"hold {setting.held}, {such}: {setting.meaning}"
    options = " ".join(f"--set {shlex.quote(part)}" for part in setting.settings)
    return (
        f"hold {setting.held}, {such}: read them with {' and '.join(setting.settings)}, {setting.meaning}"
        f" (rsw predictions from folder {shlex.quote(str(folder))} {options} ...)"
    )


class Setting(NamedTuple):
    """What reads files whose coding is not known."""

    held: str
    """What they hold, in words."""
    settings: list[str]
    """``name=value``, as the option ``--set`` takes them; none where the files must be written anew."""
    meaning: str


def _is_classes(sample: Sample, field: str) -> bool:
    return field != "mask" or sample.reference.get("classes") is not None


def _of_colours(colours: np.ndarray, sample: Sample, field: str) -> Setting:
    """The setting that reads masks or maps in (n, 3) colours."""
    true = _truth_of(sample, field)
    if true is not None and true.palette is not None:
        palette = [list(colour) for colour in true.palette]
        return Setting(f"{len(colours)} colours", [f"palette={palette}"], "the colours of the true maps")
    first = "a colour for each class in order" if _is_classes(sample, field) else "the first for what is not marked"
    if len(colours) > MOST_VALUES:
        return Setting(
            f"{len(colours)} colours", [], "write them in one band, or without loss in a colour for each class"
        )
    held = f"the colours {' and '.join(str(tuple(colour)) for colour in colours.tolist())}"
    return Setting(held, [f"palette={colours.tolist()}"], first)


def _count(values: np.ndarray) -> str:
    return str(len(values)) if len(values) <= MOST_KEPT else "many"


def _of_values(values: np.ndarray, sample: Sample, field: str) -> Setting:
    """The setting that reads masks or maps of (n,) numbers."""
    known: list[int | float] = values.tolist()
    if values.dtype.kind in "bui" and len(known) <= MOST_VALUES:
        levels = sorted({0, *known}) if len(known) == 1 else known
        each = "a value for each class in order" if _is_classes(sample, field) else "the first for what is not marked"
        return Setting(values_of(values), [f"levels={levels}"], each)
    return Setting(
        f"{_count(values)} values from {known[0]:g} to {known[-1]:g}",
        [f"threshold={(known[0] + known[-1]) / 2:g}"],
        "or another number over which a pixel is marked",
    )


def _of_forecast(values: np.ndarray, bands: int, samples: Sequence[Sample]) -> Setting:
    """The settings that show forecasts for samples, of so many bands, which hold these numbers."""
    low, high, settings, meaning = float(values[0]), float(values[-1]), [], []
    if bands not in (1, 3):
        settings.append("bands=[0, 1, 2]")
        meaning.append("the bands of red, green and blue")
    if values.dtype != np.uint8:
        limits = _drawn_between(low, high, bands, samples) or _usual_range(values.dtype, low, high)
        if limits is None:
            settings.append(f"stretch=[{', '.join(['[LOW, HIGH]'] * bands)}]")
            meaning.append("in every band the numbers that are black and white in the true futures")
        else:
            settings.append(f"stretch={limits if isinstance(limits[0], list) else [limits] * bands}")
            meaning.append("the numbers of black and white in every band")
    held = f"{values.dtype} numbers from {low:g} to {high:g} in {bands} band{'s' if bands > 1 else ''}"
    return Setting(held, settings, " and ".join(meaning))


def _drawn_between(low: float, high: float, bands: int, samples: Sequence[Sample]) -> list[list[float]] | None:
    """The stretch of the true futures, if the samples name one of so many bands and numbers from low to high lie about there."""
    named: list[Any] = [sample.metadata.get("stretch") for sample in samples]
    if any(stretch != named[0] for stretch in named):
        return None
    try:
        ends = np.array([named[0][end][-1] for end in ("low", "high")], np.float64)
    except (KeyError, IndexError, TypeError, ValueError):  # metadata may hold anything
        return None
    if ends.shape != (2, bands):
        return None
    black, white = ends[0].min(), ends[1].max()
    return ends.T.tolist() if low < white and black < high < 2 * white else None


def _usual_range(dtype: np.dtype[Any], low: float, high: float) -> list[float] | None:
    """Black and white where numbers of a type, from low to high, tell them; None for such as reflectance times 10,000."""
    if dtype.kind == "f" and high <= 1:
        return [0, 1] if low >= 0 else [-1, 1] if low >= -1 else None
    if low >= 0 and high <= 255:
        return [0, 255]
    most = np.iinfo(dtype).max if dtype.kind == "u" else math.inf
    return [0, int(most)] if high > most / 2 else None
