"""Outputs paired with the samples they answer, whether they come from a file or from memory, and the problems met on the way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rsw_rewards.core.answer import AT_LIMIT, TRUNCATED
from rsw_rewards.core.fields import candidate_of, text_of
from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.errors import InputError

MISSING = "no prediction for this sample"
_ONE_OF = frozenset({Task.FORECAST, Task.GROUNDING})
RECORD_FIELDS = frozenset({"id", *(known.name for known in dataclasses.fields(Output))}) - {"lost"}
"""Keys of a record that is an output. That one was lost through our fault is not for the records of others to say."""
_ABOUT = ("seed", "policy_version", "finish_reason", "invalid")
"""Fields of any output beside its answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one record of the predictions, which did not stop the others from being read."""

    kind: str
    """``malformed``, ``unknown_id``, ``duplicate``, ``missing``, ``wrong_field``, or ``surplus`` for candidates beyond those of others."""
    where: str
    """``file:line`` or the place in a list, or the sample's id where there is no record."""
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def coverage(problems: Sequence[Problem], samples: int) -> str:
    """How many samples have a prediction, which have none, and how many records belong to none or cannot be used.

    >>> coverage([Problem("missing", "q2", ""), Problem("unknown_id", "a.csv:9", "")], 3)
    "2 of 3 samples have a prediction; 1 has none: 'q2'; 1 prediction names no sample"
    """
    without = [problem.where for problem in problems if problem.kind == "missing"]
    parts = [f"{samples - len(without)} of {samples} samples have a prediction"]
    if without:
        more = ", ..." if len(without) > 3 else ""
        first = ", ".join(map(repr, without[:3]))
        parts.append(f"{len(without)} {'have' if len(without) > 1 else 'has'} none: {first}{more}")
    if unknown := sum(problem.kind == "unknown_id" for problem in problems):
        parts.append(f"{unknown} {'predictions name' if unknown > 1 else 'prediction names'} no sample")
    if others := len(problems) - len(without) - unknown:
        parts.append(f"{others} {'records' if others > 1 else 'record'} cannot be used")
    return "; ".join(parts)


def name_of(record: Mapping[str, Any]) -> Any:
    """What a record calls its sample: ``id``, or ``sample_id`` as an Output does; None where it names none.

    Raises:
        InputError: both are set, and differ.
    """
    name, other = record.get("id"), record.get("sample_id") or None
    if isinstance(name, str) and isinstance(other, str) and name != other:
        raise InputError(f"the output names two samples, {name!r} as 'id' and {other!r} as 'sample_id'")
    return other if name is None else name


def lacking(output: Output, task: Task) -> str | None:
    """What an output lacks to answer a task, as a sentence; None where it answers it or says itself why it does not.

    An output that was cut off lacks its end, as one of a policy that is run here does.
    """
    if output.invalid or output.lost:
        return None
    names = OUTPUT_FIELDS[task]
    missing = [name for name in names if getattr(output, name) is None]
    if not missing or (task in _ONE_OF and len(missing) < len(names)):
        return AT_LIMIT if output.finish_reason in TRUNCATED else None
    return f"a {task} prediction needs {(' or ' if task in _ONE_OF else ' and ').join(missing)}"


def read_output(
    record: Mapping[str, Any], sample: Sample, image: Callable[[Any], Any] = lambda entry: entry, own: bool = False
) -> Output:
    """The Output of a record for its sample, with the fields of the sample's task. One that lacks any of them is invalid.

    Args:
        record: ``candidate``, the fields of an output's answer, and what is known about it.
        sample: the one that it answers.
        image: reads an image entry of the record; as it is, it is read by the Output.
        own: the record was written by this project, which may say of an output that it was ``lost`` through our fault. In anybody
            else's there is no such field: an output could leave the benchmark by it.

    Raises:
        InputError: naming a field of the wrong kind.
    """
    candidate = record.get("candidate", 0)
    about = {key: record[key] for key in (*_ABOUT, *(("lost",) if own else ())) if record.get(key) is not None}
    known = Output(sample.id, candidate, **about)
    if known.invalid or known.lost:
        said = record.get("text")  # what was cut off, to be looked at
        return replace(known, text=said) if own and isinstance(said, str) else known
    answer = {key: record[key] for key in OUTPUT_FIELDS[sample.task] if record.get(key) is not None}
    for key, value in answer.items():
        if key == "text" and sample.task is Task.CLASSIFICATION and isinstance(value, list):
            answer[key] = json.dumps([text_of(label, key) for label in value], ensure_ascii=False)  # of several labels
        if key == "images" and not isinstance(value, list | tuple):
            raise InputError(f"'images' must be a list of images, not {describe(value)}")
        if key not in ("text", "boxes"):
            try:
                answer[key] = [image(entry) for entry in value] if key == "images" else image(value)
            except InputError as error:
                raise InputError(f"{key!r}: {error}") from error
    output = Output(sample.id, candidate, **about, **answer)
    why = lacking(output, sample.task)
    if why is None:
        return output
    if others := [str(key) for key in record if key not in RECORD_FIELDS and record[key] is not None]:
        why += f", and the record has {', '.join(map(repr, others[:3]))}"
    return replace(output, invalid=why)


def _claim(record: Any) -> tuple[str, int, Any]:
    """What a record says of itself: the sample, the candidate, and why it is invalid where it says so."""
    if isinstance(record, ValueError):
        raise InputError(f"not valid JSON ({record})")
    if isinstance(record, Output):
        return record.sample_id, candidate_of(record.candidate), record.invalid
    name = name_of(record) if isinstance(record, Mapping) else None
    if not isinstance(name, str):
        raise InputError("a prediction must be an object with a string 'id'")
    return name, candidate_of(record.get("candidate", 0)), record.get("invalid")


def pair(
    records: Iterable[tuple[str, Any]],
    samples: Sequence[Sample],
    read: Callable[[Any, Sample], Output],
    source: str,
    on_missing: str = "invalid",
) -> tuple[list[Output], list[Problem]]:
    """The outputs that records hold for samples, and every problem met. Records with a problem never cost the others.

    Args:
        records: every record with the words that say where it stands: an Output, a mapping with ``id`` (or ``sample_id``) and
            ``candidate``, a ``ValueError`` for what could not be read, or the Sample itself where its place holds no output.
        samples: what was asked; the outputs come back in their order, candidates of a sample together and in order.
        read: makes the output of a record for its sample; one that is invalid where the record does not say so is a problem. What
            it raises stops the pairing.
        source: what the records come from, for the error.
        on_missing: ``"invalid"`` gives a sample without a prediction an invalid output, ``"drop"`` leaves it out.

    Raises:
        InputError: there is no usable record at all, or ``read`` raised one.
    """
    asked = {sample.id: sample for sample in samples}
    found: dict[str, dict[int, Output]] = {}
    problems: list[Problem] = []
    count = 0
    for place, record in records:
        count += 1
        if isinstance(record, Sample):
            continue
        try:
            name, candidate, said = _claim(record)
        except InputError as error:
            problems.append(Problem("malformed", place, str(error)))
            continue
        if name not in asked:
            problems.append(Problem("unknown_id", place, f"the id {name!r} is not among the samples"))
            continue
        candidates = found.setdefault(name, {})
        if candidate in candidates:
            reason = f"a second prediction for {name!r} candidate {candidate}; the first is kept"
            problems.append(Problem("duplicate", place, reason))
            continue
        try:
            output = candidates[candidate] = read(record, asked[name])
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        if output.invalid not in (None, said, AT_LIMIT):
            problems.append(Problem("wrong_field", place, output.invalid))
    if not found and (len(problems) == count or on_missing == "drop"):
        why = str(problems[0]) if problems else "it is empty" if not count else "all outputs are missing"
        raise InputError(f"{source} holds no prediction that can be used ({count} records read; {why})")
    outputs: list[Output] = []
    for sample in samples:
        candidates = found.get(sample.id, {})
        outputs.extend(candidates[key] for key in sorted(candidates))
        if not candidates:
            problems.append(Problem("missing", sample.id, MISSING))
            if on_missing != "drop":
                outputs.append(Output(sample.id, invalid=MISSING))
    return outputs, problems
