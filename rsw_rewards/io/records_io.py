"""Samples and outputs in JSON files, which are written as JSON Lines: one object a line.

Paths in a file are relative to a root, the file's own folder or one that
the user names, and may not leave it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rsw_rewards.core.fields import limit_of
from rsw_rewards.core.files import atomic
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import OUTPUT_FIELDS, REFERENCE_FIELDS, Output, Sample
from rsw_rewards.errors import InputError
from rsw_rewards.io.pairing import Problem, pair, read_output
from rsw_rewards.io.paths import Roots
from rsw_rewards.io.text_files import TABLES, read_records, suffix_of

_IN_WORDS = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}
SAMPLE_FIELDS: Mapping[str, type] = {
    "images": list,
    "prompt": str,
    "reference": dict,
    "scene": str,
    "kind": str,
    "metadata": dict,
}
"""What a record may say of a sample beside its id and its task, and the types in a file."""
_KINDS: Mapping[str, Any] = {key: known.kind for key, known in REFERENCE_FIELDS.items()}


def sample_from_json(record: Any, roots: Roots) -> Sample:
    """A Sample from its JSON object. Raises :class:`InputError` naming the key that is wrong."""
    if not isinstance(record, Mapping):
        raise InputError(f"a sample must be a JSON object, not {type(record).__name__}")
    if not isinstance(record.get("id"), str) or not record["id"]:
        raise InputError("a sample needs an 'id' (a string that is not empty)")
    given: dict[str, Any] = {}
    for key, kind in SAMPLE_FIELDS.items():
        value = record.get(key)
        if value is not None:
            if not isinstance(value, kind):
                raise InputError(f"{key!r} must be {_IN_WORDS[kind]}, not {describe(value)}")
            given[key] = value
    given["images"] = tuple(_images(given.get("images", ()), "images", roots))
    reference = given["reference"] = dict(given.get("reference", ()))
    for key, value in reference.items():
        kind = _KINDS.get(key, object)
        if kind is ImageRef:
            try:
                reference[key] = roots.image(value)
            except InputError as error:
                raise InputError(f"'reference.{key}': {error}") from error
        elif not isinstance(value, kind):
            raise InputError(f"'reference.{key}' must be {_IN_WORDS[kind]}, not {describe(value)}")
        elif key == "images":
            reference[key] = _images(value, "reference.images", roots)
    return Sample(record["id"], record.get("task"), **given)  # type: ignore[arg-type]  # the Sample reads its name


def _images(entries: Iterable[Any], name: str, roots: Roots) -> list[ImageRef]:
    found: list[ImageRef] = []
    try:
        for entry in entries:
            found.append(roots.image(entry))
    except InputError as error:
        raise InputError(f"'{name}[{len(found)}]': {error}") from error
    return found


def load_samples(path: Path, roots: Sequence[Path] = (), limit: int | None = None) -> list[Sample]:
    """Read a samples file.

    Args:
        path: JSON Lines, or another form that :func:`read_records` reads.
        roots: further folders that its paths may point into.
        limit: stop after this many samples.

    Raises:
        InputError: with file and line, at the first record that cannot be used or whose id was seen before. Also when the file is missing or empty.
    """
    path, limit = Path(path), limit_of(limit)
    where = Roots(path.parent, roots)
    samples: list[Sample] = []
    seen: dict[str, str] = {}
    for place, record in read_records(path):
        if isinstance(record, ValueError):
            raise InputError(f"{place}: not valid JSON ({record})")
        try:
            sample = sample_from_json(record, where)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        if sample.id in seen:
            raise InputError(f"{place}: the id {sample.id!r} stands already at {seen[sample.id]}")
        seen[sample.id] = place
        samples.append(sample)
        if limit is not None and len(samples) >= limit:
            break
    if not samples:
        raise InputError(f"{path} holds no samples")
    return samples


_BARE = frozenset({"id", "candidate", "text"})


def output_from_json(record: Mapping[str, Any], sample: Sample, roots: Roots, own: bool = False) -> Output:
    """The Output of a JSON object, with the fields of the sample's task; ``own`` as in :func:`load_outputs`.

    A field of the wrong kind, or a missing one, makes the output invalid with its reason; it does not raise.
    """
    if record.keys() <= _BARE and OUTPUT_FIELDS[sample.task] == ("text",) and isinstance(record.get("text"), str):
        return Output(sample.id, record.get("candidate", 0), text=record["text"])  # as most lines of most files
    try:
        return read_output(record, sample, roots.image, own)
    except InputError as error:
        return Output(sample.id, record.get("candidate", 0), invalid=str(error))


def load_outputs(
    path: Path, samples: Sequence[Sample], roots: Sequence[Path] = (), on_missing: str = "invalid", own: bool = False
) -> tuple[list[Output], list[Problem]]:
    """Read a predictions file against the samples it answers.

    Args:
        path: JSON Lines, or another form that :func:`read_records` reads.
        samples: what was asked; the outputs come back in their order, candidates of a sample together and in order.
        roots: further folders that its paths may point into.
        on_missing: ``"invalid"`` gives a sample without a prediction an invalid output, ``"drop"`` leaves it out.
        own: the file was written by this project, which may say of an output that it was ``lost`` through our fault. In anybody
            else's file there is no such field: an output could leave the benchmark by it.

    Returns:
        The outputs, and every problem met with file and line. Records with a problem never cost the others.

    Raises:
        InputError: the file cannot be read or holds no usable record at all.
    """
    path = Path(path)
    if suffix_of(path) in TABLES:
        raise InputError(
            f"{path} is a table; make a predictions file of it with: rsw predictions from csv {path} --samples SAMPLES --out FILE.jsonl"
        )
    read = partial(output_from_json, roots=Roots(path.parent, roots), own=own)
    return pair(read_records(path), samples, read, str(path), on_missing)


def _image_to_json(image: ImageRef, base: Path) -> Any:
    if image.path is None:
        raise ValueError("an image without a file cannot be written to a record; write its pixels first")
    path = os.path.relpath(os.path.realpath(image.path), os.path.realpath(base))
    declared = {key: _plain(value, base) for key in _DECLARED if (value := getattr(image, key)) is not None}
    return {"path": path, **declared} if declared else path


_DECLARED = ("date", "role", "bands", "stretch", "nodata", "palette", "levels", "threshold")
"""What an entry says of an image, in the order in which it is written."""


def _plain(value: Any, base: Path) -> Any:
    if isinstance(value, ImageRef):
        return _image_to_json(value, base)
    if isinstance(value, Mapping):
        return {key: _plain(item, base) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, base) for item in value]
    return value


def sample_to_json(sample: Sample, base: Path) -> dict[str, Any]:
    """The JSON object of a sample, its paths relative to ``base``."""
    return {
        "id": sample.id,
        "task": str(sample.task),
        "scene": sample.scene,
        "kind": sample.kind,
        "images": _plain(sample.images, base),
        "prompt": sample.prompt,
        "reference": _plain(sample.reference, base),
        "metadata": dict(sample.metadata),
    }


_WRITTEN = (
    "text", "image", "images", "mask", "map_before", "map_after", "buildings", "damage", "boxes", "invalid", "lost", "seed", "finish_reason", "policy_version",
)  # fmt: skip
"""Fields of an output in the order in which they are written."""


def output_to_json(output: Output, base: Path) -> dict[str, Any]:
    """The JSON object of an output, its paths relative to ``base``; fields that are not set are left out. Tokens are not written."""
    record: dict[str, Any] = {"id": output.sample_id, "candidate": output.candidate}
    for key in _WRITTEN:
        if (value := getattr(output, key)) is not None:
            record[key] = _plain(value, base)
    return record


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records one a line; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial, partial.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
