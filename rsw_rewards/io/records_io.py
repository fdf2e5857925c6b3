"""Samples and outputs in JSON Lines files, one object a line.

Paths in a file are relative to a root, the file's own folder or one that
the user names, and may not leave it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsw_rewards.core.records import OUTPUT_FIELDS, ImageRef, Output, Sample, Task
from rsw_rewards.errors import InputError
from rsw_rewards.io.image_entries import image_from_json
from rsw_rewards.io.paths import Roots

_ONE_OF = frozenset({Task.FORECAST, Task.GROUNDING})
_IMAGE_KEYS = frozenset({"mask", "valid", "clouds", "map_before", "map_after", "buildings", "damage", "image"})
_REFERENCE_TYPES: Mapping[str, type] = {
    "answers": list,
    "captions": list,
    "vocabulary": list,
    "labels": list,
    "boxes": list,
    "images": list,
    "classes": list,
    "changes": list,
    "unit": str,
    "text": str,
    "label": str,
    "changed": bool,
    "no_change": list,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one record of a predictions file, which did not stop the others from being read."""

    kind: str
    """``malformed``, ``unknown_id``, ``duplicate``, ``missing`` or ``wrong_field``."""
    where: str
    """``file:line``, or the sample's id where there is no line."""
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """The lines of a JSON Lines file as (line number from 1, value or the ``ValueError`` that reading it gave); blank lines are skipped."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                    if (
                        b"\\u" in line
                    ):  # half of a surrogate pair can be escaped, but is no text: nothing could write it down
                        json.dumps(value, ensure_ascii=False).encode()
                    yield number, value
                except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
                    yield number, ValueError(str(error))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _typed(record: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = record.get(key, default)
    if value is not default and value is not None and not isinstance(value, kind):
        raise InputError(f"{key!r} must be a {kind.__name__}, not {type(value).__name__}")
    return default if value is None else value


def _reference(record: Mapping[str, Any], roots: Roots) -> dict[str, Any]:
    reference = dict(record)
    for key, kind in _REFERENCE_TYPES.items():
        if key in reference and not isinstance(reference[key], kind):
            raise InputError(f"'reference.{key}' must be a {kind.__name__}, not {type(reference[key]).__name__}")
    for key in _IMAGE_KEYS & reference.keys():
        reference[key] = image_from_json(reference[key], roots.resolve)
    if "images" in reference:
        reference["images"] = [image_from_json(entry, roots.resolve) for entry in reference["images"]]
    return reference


def sample_from_json(record: Any, roots: Roots) -> Sample:
    """A Sample from its JSON object. Raises :class:`InputError` naming the key that is wrong."""
    if not isinstance(record, Mapping):
        raise InputError(f"a sample must be a JSON object, not {type(record).__name__}")
    if not isinstance(record.get("id"), str) or not record["id"]:
        raise InputError("a sample needs an 'id' (a string that is not empty)")
    try:
        task = Task(record["task"])
    except (KeyError, ValueError):
        raise InputError(f"'task' is {record.get('task')!r}; it must be one of {', '.join(Task)}") from None
    return Sample(
        id=record["id"],
        task=task,
        images=tuple(roots.image(entry) for entry in _typed(record, "images", list, [])),
        prompt=_typed(record, "prompt", str, ""),
        reference=_reference(_typed(record, "reference", dict, {}), roots),
        scene=_typed(record, "scene", str, "") or record["id"],
        kind=_typed(record, "kind", str, None),
        metadata=_typed(record, "metadata", dict, {}),
    )


def load_samples(path: Path, roots: Sequence[Path] = (), limit: int | None = None) -> list[Sample]:
    """Read a samples file.

    Args:
        path: the JSON Lines file.
        roots: further folders that its paths may point into.
        limit: stop after this many samples.

    Raises:
        InputError: with file and line, at the first record that cannot be used or whose id was seen before; a benchmark with
            holes is not the benchmark. Also when the file is missing or empty.
    """
    path = Path(path)
    where = Roots(path.parent, roots)
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for number, record in read_jsonl(path):
        if isinstance(record, ValueError):
            raise InputError(f"{path}:{number}: not valid JSON ({record})")
        try:
            sample = sample_from_json(record, where)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if sample.id in seen:
            raise InputError(f"{path}:{number}: the id {sample.id!r} stands already in line {seen[sample.id]}")
        seen[sample.id] = number
        samples.append(sample)
        if limit is not None and len(samples) >= limit:
            break
    if not samples:
        raise InputError(f"{path} holds no samples")
    return samples


def _boxes(value: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(box, list) and len(box) in (4, 8) for box in value):
        raise InputError("'boxes' must be a list of boxes of 4 or 8 numbers")
    return tuple(tuple(float(number) for number in box) for box in value)


_PLAIN_FIELDS: Mapping[str, type] = {
    "seed": int, "policy_version": int, "finish_reason": str, "invalid": str, "lost": str,
}  # fmt: skip
"""Fields of any output beside its answer, and their types."""
_LARGEST = (1 << 63) - 1
_BARE = frozenset({"id", "candidate", "text"})


def output_from_json(record: Mapping[str, Any], task: Task, roots: Roots) -> Output:
    """An Output from its JSON object, keeping the fields of ``task``.

    A field of the wrong kind, or a missing one, makes the output invalid with its reason; it does not raise.
    """
    if record.keys() <= _BARE and OUTPUT_FIELDS[task] == ("text",) and isinstance(record.get("text"), str):
        return Output(record["id"], record.get("candidate", 0), text=record["text"])  # as most lines of most files
    for key, kind in _PLAIN_FIELDS.items():
        value = record.get(key)
        large = isinstance(value, int) and (isinstance(value, bool) or abs(value) > _LARGEST)
        if value is not None and (large or not isinstance(value, kind)):
            return Output(record["id"], record.get("candidate", 0), invalid=f"{key!r} must be a {kind.__name__}")
    candidate = record.get("candidate", 0)
    known = {
        "sample_id": record["id"],
        "candidate": candidate,
        "seed": record.get("seed"),
        "finish_reason": record.get("finish_reason"),
        "policy_version": record.get("policy_version"),
        "invalid": record.get("invalid"),
        "lost": record.get("lost"),
    }
    values: dict[str, Any] = {}
    if known["invalid"] or known["lost"]:
        return Output(**known)
    try:
        for key in OUTPUT_FIELDS[task]:
            value = record.get(key)
            if value is None:
                continue
            if key == "text":
                if not isinstance(value, str):
                    raise InputError(f"'text' must be a string, not {type(value).__name__}")
                values[key] = value
            elif key == "boxes":
                values[key] = _boxes(value)
            elif key == "images":
                if not isinstance(value, list) or not value:
                    raise InputError("'images' must be a list of images that is not empty")
                values[key] = tuple(image_from_json(entry, roots.resolve) for entry in value)
            else:
                values[key] = image_from_json(value, roots.resolve)
        missing = [key for key in OUTPUT_FIELDS[task] if key not in values]
        if missing and (task not in _ONE_OF or not values):
            raise InputError(
                f"a {task} prediction needs {' or '.join(missing) if task in _ONE_OF else ' and '.join(missing)}"
            )
    except (InputError, TypeError, ValueError, OverflowError) as error:
        return Output(**{**known, "invalid": str(error)})
    return Output(**known, **values)


def load_outputs(
    path: Path, samples: Sequence[Sample], roots: Sequence[Path] = (), on_missing: str = "invalid", own: bool = False
) -> tuple[list[Output], list[Problem]]:
    """Read a predictions file against the samples it answers.

    Args:
        path: the JSON Lines file.
        samples: what was asked; the outputs come back in their order, candidates of a sample together and in order.
        roots: further folders that its paths may point into.
        on_missing: ``"invalid"`` gives a sample without a prediction an invalid output, ``"drop"`` leaves it out.
        own: the file was written by this project, which may say of an output that it was ``lost`` through our fault. In anybody
            else's file such an output is invalid, or it could leave the benchmark by saying so.

    Returns:
        The outputs, and every problem met with file and line. Records with a problem never cost the others.

    Raises:
        InputError: the file cannot be read or holds no usable record at all.
    """
    path = Path(path)
    where = Roots(path.parent, roots)
    tasks = {sample.id: sample.task for sample in samples}
    found: dict[str, dict[int, Output]] = {}
    problems: list[Problem] = []
    lines = 0
    for number, record in read_jsonl(path):
        lines += 1
        place = f"{path}:{number}"
        if isinstance(record, ValueError):
            problems.append(Problem("malformed", place, f"not valid JSON ({record})"))
            continue
        if not isinstance(record, Mapping) or not isinstance(record.get("id"), str):
            problems.append(Problem("malformed", place, "a prediction must be an object with a string 'id'"))
            continue
        if record["id"] not in tasks:
            problems.append(Problem("unknown_id", place, f"the id {record['id']!r} is not among the samples"))
            continue
        candidate = record.get("candidate", 0)
        if not isinstance(candidate, int) or isinstance(candidate, bool) or not 0 <= candidate < 1 << 31:
            problems.append(
                Problem("malformed", place, f"'candidate' must be a whole number from 0, not {candidate!r}")
            )
            continue
        candidates = found.setdefault(record["id"], {})
        if candidate in candidates:
            problems.append(
                Problem(
                    "duplicate",
                    place,
                    f"a second prediction for {record['id']!r} candidate {candidate}; the first is kept",
                )
            )
            continue
        output = output_from_json(record, tasks[record["id"]], where)
        if output.lost is not None and not own:
            output = Output(
                output.sample_id,
                candidate,
                invalid="'lost' is not for predictions: an output that is missing is invalid",
            )
            record = {**record, "invalid": None}
        if output.invalid and not record.get("invalid"):
            problems.append(Problem("wrong_field", place, output.invalid))
        candidates[candidate] = output
    if not found:
        why = str(problems[0]) if problems else "it is empty"
        raise InputError(f"{path} holds no prediction that can be used ({lines} lines read; {why})")
    outputs: list[Output] = []
    for sample in samples:
        candidates = found.get(sample.id, {})
        outputs.extend(candidates[key] for key in sorted(candidates))
        if not candidates:
            problems.append(Problem("missing", sample.id, "no prediction for this sample"))
            if on_missing != "drop":
                outputs.append(Output(sample.id, invalid="no prediction for this sample"))
    return outputs, problems


def _image_to_json(image: ImageRef, base: Path) -> Any:
    if image.path is None:
        raise ValueError("an image without a file cannot be written to a record; write its pixels first")
    path = os.path.relpath(os.path.realpath(image.path), os.path.realpath(base))
    extra = {
        "date": image.date,
        "role": image.role,
        "bands": list(image.bands) if image.bands else None,
        "stretch": [list(limits) for limits in image.stretch] if image.stretch else None,
        "nodata": image.nodata,
        "palette": [list(colour) for colour in image.palette] if image.palette else None,
    }
    extra = {key: value for key, value in extra.items() if value is not None}
    return {"path": path, **extra} if extra else path


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


def output_to_json(output: Output, base: Path) -> dict[str, Any]:
    """The JSON object of an output, its paths relative to ``base``; fields that are not set are left out. Tokens are not written."""
    record: dict[str, Any] = {"id": output.sample_id, "candidate": output.candidate}
    for key in (
        "text",
        "image",
        "images",
        "mask",
        "map_before",
        "map_after",
        "buildings",
        "damage",
        "boxes",
        "invalid",
        "lost",
    ):
        if (value := getattr(output, key)) is not None:
            record[key] = _plain(value, base)
    for key in ("seed", "finish_reason", "policy_version"):
        if (value := getattr(output, key)) is not None:
            record[key] = value
    return record


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records one a line; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    partial.replace(path)
