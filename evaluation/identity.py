"""What the scores of a run belong to: digests of every sample, its truth and its outputs, so that no run goes on over others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

from rsw_rewards.core.files import digest_of, read_table, write_table
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample

FIELDS = {
    "scene": "another scene",
    "kind": "another kind",
    "prompt": "another prompt",
    "metadata": "other metadata",
    "reference": "another truth (its reference, or pixels of an image in it)",
    "images": "other images (which, how they are read, or their pixels)",
    "outputs": "other outputs",
}
"""What a sample is told by -> how it is said that this differs."""
DIGITS = 12
LOST = "lost"
"""In place of a digest of outputs of which one was lost through our fault: made again, they may be any."""

Identity = tuple[str, ...]
"""A digest for each of :data:`FIELDS`."""


def identities(samples: Sequence[Sample], outputs: Sequence[Output]) -> dict[str, Identity]:
    """Digests by sample. Image files count by their bytes, images in memory by their pixels."""
    known: dict[int, str] = {}  # many samples share an image, and its reference
    answered: dict[str, list[str]] = {}
    lost = {output.sample_id for output in outputs if output.lost is not None}

    def told(images: Iterable[ImageRef]) -> list[str]:
        return [known.get(id(image)) or known.setdefault(id(image), _told(image)) for image in images]

    for output in outputs:
        answer = (output.candidate, output.text, output.boxes, output.invalid, output.lost, told(output.every_image))
        answered.setdefault(output.sample_id, []).append(repr(answer))
    found = {}
    for sample in samples:
        truth = sample.every_image[len(sample.images) :]
        parts = (
            sample.scene, sample.kind, sample.prompt,
            repr(sorted(sample.metadata.items(), key=itemgetter(0)) if sample.metadata else ()),
            repr((sorted(sample.reference.items(), key=itemgetter(0)), told(truth))),
            repr(told(sample.images)),
            repr(answered.get(sample.id)),
        )  # fmt: skip
        digests = tuple(_digest(repr(part)) for part in parts)
        found[sample.id] = (*digests[:-1], LOST) if sample.id in lost else digests
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _told(image: ImageRef) -> str:
    """How an image is read, and the bytes of its file, wherever it lies; its place where it is not there."""
    content = ""
    if image.path is not None:
        try:
            content = digest_of(image.path)
        except OSError:
            return repr((image, "not there"))
        image = replace(image, path=Path(image.path.suffix))
    return repr((image, content))


def hash_of(found: Mapping[str, Identity]) -> str:
    """Twelve hexadecimal digits that change with a sample, a truth or an output."""
    return _digest(repr(list(found.items())))


def difference(old: Mapping[str, Identity], new: Mapping[str, Identity], shared: bool = False) -> str:
    """The first sample in which two differ, as a clause; empty where none does, but for outputs that were lost before.

    Args:
        shared: look only at samples that both have.

    >>> from rsw_rewards.evaluation.identity import difference
    >>> difference({"q1": ("a",) * 7}, {"q1": ("a", "b", *"aaaaa")})
    "the sample 'q1' has another kind"
    """
    for name, parts in new.items():
        if name not in old:
            if not shared:
                return f"the sample {name!r} is not among them"
            continue
        for words, before, after in zip(FIELDS.values(), old[name], parts, strict=True):
            if before != after and before != LOST:
                return f"the sample {name!r} has {words}"
    if not shared and (gone := next((name for name in old if name not in new), None)) is not None:
        return f"the sample {gone!r} is missing"
    return "" if shared or list(old) == list(new) else "the samples stand in another order"


def write_identities(path: Path, found: Mapping[str, Identity]) -> None:
    """Write digests as Parquet: a column ``sample`` and one for each of :data:`FIELDS`."""
    import pyarrow as pa

    columns = zip(*found.values(), strict=True) if found else ((),) * len(FIELDS)
    table = {"sample": list(found), **dict(zip(FIELDS, map(list, columns), strict=True))}
    write_table(path, pa.table({name: pa.array(column, pa.string()) for name, column in table.items()}))


def read_identities(path: Path) -> dict[str, Identity]:
    """What :func:`write_identities` wrote. Raises :class:`InputError` for a file that is damaged or holds something else."""
    columns = [column.to_pylist() for column in read_table(path, ["sample", *FIELDS]).columns]
    return {name: tuple(parts) for name, *parts in zip(*columns, strict=True)}
