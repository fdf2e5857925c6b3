"""Which sample an answer made elsewhere belongs to: by its id, by the last part of its id, or by position where that is asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from rsw_rewards.core.fields import MAX_CANDIDATES
from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample
from rsw_rewards.errors import InputError
from rsw_rewards.io.pairing import Problem, coverage

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".npy", ".npz", ".txt", ".json"}
)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_BEFORE = re.compile(rf"({'|'.join(_SPLITS)})[_-]+(.+)", re.IGNORECASE)
_WHOLE = re.compile(r"(\d+)\.0+")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as another tool's file has it.

    >>> rsw.predictions.Answer("answers.txt:1", "q1", "yes").text
    'yes'
    """

    where: str
    """``file:line`` or the like, for messages."""
    id: str | None
    """What the file calls the question; None where it names none."""
    text: str | None = None
    candidate: int = 0
    position: int | None = None
    """Place of the question in its data set, from 0; None where the file has no order."""
    target: str | None = None
    """What the file says is true, where it does: a check of the order."""
    problem: str | None = None
    """Why the answer cannot be used."""
    finish_reason: str | None = None
    """Why the model stopped, where the file says it; an answer that was cut off is invalid."""
    fields: tuple[str, ...] = ()
    """Names of the fields that its record has, for the error where none of them holds an id."""


def key_of(name: str) -> tuple[str, ...]:
    """An id as its parts, without the suffix of a file; a split before the last part is a part of its own.

    >>> key_of("levir_cc/test_000004.png"), key_of(".\\\\images\\\\000004.png")
    (('levir_cc', 'test', '000004'), ('images', '000004'))
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    parts = tuple(part for part in path.parts if part not in ("/", "."))
    split = _BEFORE.fullmatch(parts[-1]) if parts else None
    return (*parts[:-1], split[1].lower(), split[2]) if split else parts


def last_of(name: str) -> str:
    """The last part of an id as it is written, without the suffix of a file.

    >>> last_of("levir_cd/test_000004.png")
    'test_000004'
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def splits_in(parts: Iterable[str]) -> set[str]:
    """The splits of a data set that are named among the parts: train, val, test."""
    return {_SPLITS[part.lower()] for part in parts if part.lower() in _SPLITS}


def _is_within(some: Iterable[str], every: Iterable[str]) -> bool:
    """Whether all of ``some`` stand in ``every`` in their order."""
    rest = iter(every)
    return all(part in rest for part in some)


class Ids:
    """The samples by id, and by the last part of their ids."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.known = {sample.id: sample for sample in samples}
        self._samples = samples

    @cached_property
    def _by_last(self) -> Mapping[str, list[tuple[tuple[str, ...], Sample]]]:
        """The samples and the parts of their ids by the last of these."""
        found = defaultdict(list)
        for sample in self._samples:
            if parts := key_of(sample.id):
                found[parts[-1]].append((parts, sample))
        return found

    @cached_property
    def _by_number(self) -> Mapping[str, str]:
        """The last parts that are numbers, by these without the zeros before them."""
        return {last.lstrip("0"): last for last in self._by_last if last.isdecimal()}

    @cached_property
    def _by_joined(self) -> Mapping[str, list[Sample]]:
        """The samples by the parts of their ids with ``_`` between them."""
        found = defaultdict(list)
        for sample in self._samples:
            found["_".join(key_of(sample.id))].append(sample)
        return found

    def find(self, name: str) -> Sample | str:
        """The only sample that ``name`` can mean, or why there is none.

        The whole id counts first, then its last part without suffix and split. Of several samples with that part, the one is
        meant whose other parts the name has, or that has the name's; of several such, the one that is written as the name is. A sample of another split than the name's never is. Else
        ``a_b_c`` means ``a/b/c``, and ``7.0``, as a table of floats has it, means ``7``.
        """
        if name.strip() in self.known:
            return self.known[name.strip()]
        parts = key_of(name)
        if parts and parts[-1] not in self._by_last:
            if len(joined := self._by_joined.get("_".join(parts), [])) == 1:
                return joined[0]
            if whole := _WHOLE.fullmatch(name.strip()):
                return self.find(whole[1])
        alike = self._by_last.get(parts[-1], []) if parts else []
        splits = splits_in(parts)
        found = [(own, sample) for own, sample in alike if not splits or not splits_in(own) or splits & splits_in(own)]
        if len(found) > 1:
            fuller = [one for one in found if _is_within(parts, one[0])]
            found = fuller or [one for one in found if _is_within(one[0], parts)] or found
        if len(found) > 1:  # tile_2 beside test_tile_2, or test-2 beside test_2: the name as it is written decides
            found = [one for one in found if last_of(one[1].id) == last_of(name)] or found
        if len(found) == 1:
            return found[0][1]
        if found:
            rest = f" or {len(found) - 2} others" if len(found) > 2 else ""
            return f"the id {name[:80]!r} may mean {found[0][1].id!r}, {found[1][1].id!r}{rest}"
        if alike:
            return f"the id {name[:80]!r} is of another split than {alike[0][1].id!r}"
        zeros = self._by_number.get(parts[-1].lstrip("0")) if parts and parts[-1].isdecimal() else None
        why = f"; a spreadsheet may have taken the zeros of {zeros!r}: write ids as texts" if zeros else ""
        return f"the id {name[:80]!r} is not among the samples{why}"


def _by_position(answer: Answer, samples: Sequence[Sample]) -> Sample | str:
    if answer.position is None:
        return "the file does not tell its place in the data set, so it cannot be matched by order"
    if not 0 <= answer.position < len(samples):
        return f"there is no sample number {answer.position} (from 0): there are {len(samples)}"
    return samples[answer.position]


def _contradicts(answer: Answer, sample: Sample) -> bool:
    """Whether the file's own truth is none of the sample's."""
    truths: list[Any] = []
    for key in ("answers", "captions", "labels"):
        truths += sample.reference.get(key) or []
    truths += [sample.reference["label"]] if sample.reference.get("label") is not None else []
    if answer.target is None or not truths:
        return False
    target = answer.target.strip().lower()
    return all(str(truth).strip().lower() not in (target, target.removesuffix(".")) for truth in truths)


def match(
    answers: Iterable[Answer], samples: Sequence[Sample], by: str
) -> tuple[list[Output], list[Problem], list[str]]:
    """Give every answer its sample.

    Args:
        answers: as the file holds them.
        samples: what was asked.
        by: ``"id"``: as :meth:`Ids.find` does. Different ids that end alike are taken for no sample, unless one is its whole id.
            ``"order"``: the position in the file stands for the position among the samples.

    Returns:
        Outputs in the order of the samples; what could not be used, was not asked, or is missing; and notes.

    Raises:
        InputError: no sample takes a text as its answer.
    """
    if not any("text" in OUTPUT_FIELDS[sample.task] for sample in samples):
        tasks = ", ".join(sorted({str(sample.task) for sample in samples}))
        raise InputError(f"these samples ({tasks}) are not answered by texts, which is all that can be imported")
    ids = Ids(samples)
    problems: list[Problem] = []
    found: dict[tuple[str, int], list[Answer]] = {}
    for answer in answers:
        if (why := _unusable(answer, by == "id")) is not None:
            problems.append(Problem("malformed", answer.where, why))
            continue
        sample = _by_position(answer, samples) if by == "order" else ids.find(str(answer.id))
        if isinstance(sample, str):
            problems.append(Problem("unknown_id", answer.where, sample))
        elif "text" not in OUTPUT_FIELDS[sample.task]:
            problems.append(Problem("wrong_field", answer.where, f"{sample.id!r} is not answered by a text"))
        else:
            found.setdefault((sample.id, answer.candidate), []).append(answer)
    chosen = _chosen(found, by, problems)
    outputs = [
        _output(answer, sample.id)
        for sample in samples
        for answer in sorted(chosen.get(sample.id, ()), key=lambda answer: answer.candidate)
    ]
    problems += [
        Problem("missing", sample.id, "no answer for this sample") for sample in samples if sample.id not in chosen
    ]
    pairs = [(answer, ids.known[name]) for name, some in chosen.items() for answer in some]
    notes = [*_doubts(pairs), *_manner(pairs, by)]
    if problems:
        notes.append(coverage(problems, len(samples)))
    return outputs, problems, notes


def _chosen(found: Mapping[tuple[str, int], list[Answer]], by: str, problems: list[Problem]) -> dict[str, list[Answer]]:
    """The answers that count for each sample, of those for each sample and candidate; the others join the problems."""
    chosen: dict[str, list[Answer]] = {}
    for (name, candidate), alike in found.items():
        # Whole ids first: an answer that names its sample exactly must not lose it to one that only ends alike.
        alike = sorted(alike, key=lambda answer: str(answer.id).strip() != name) if by == "id" else alike
        names = list(dict.fromkeys(str(answer.id).strip() for answer in alike))
        if by == "id" and len(names) > 1 and names[0] != name:
            why = f"{names[0]!r} and {names[1]!r} both end as {name!r} does, so neither is taken for it"
            problems += [Problem("duplicate", answer.where, why) for answer in alike]
            continue
        chosen.setdefault(name, []).append(alike[0])
        reason = f"a second answer for {name!r} candidate {candidate}; the first is kept"
        problems += [Problem("duplicate", answer.where, reason) for answer in alike[1:]]
    return chosen


def _output(answer: Answer, name: str) -> Output:
    return Output(name, answer.candidate, text=answer.text, finish_reason=answer.finish_reason)


def _doubts(pairs: Sequence[tuple[Answer, Sample]]) -> Iterator[str]:
    doubtful = [(answer, sample) for answer, sample in pairs if _contradicts(answer, sample)]
    for answer, sample in doubtful[:1]:
        yield (
            f"{len(doubtful)} of {len(pairs)} answers stand beside a truth that is not their sample's, such as"
            f" {str(answer.target)[:60]!r} for {sample.id!r}: check that they were matched rightly"
        )


def _manner(pairs: Sequence[tuple[Answer, Sample]], by: str) -> Iterator[str]:
    """How answers were matched, where it was not by whole ids."""
    ends = [(answer, sample) for answer, sample in pairs if str(answer.id).strip() != sample.id]
    if by == "order":
        yield f"{len(pairs)} answers were matched by their order"
    elif ends:
        answer, sample = ends[0]
        yield (
            f"{len(ends)} of {len(pairs)} answers were matched by the end of their id, such as {str(answer.id)[:80]!r} for {sample.id!r}"
            + (", the others by the whole id" if len(ends) < len(pairs) else "")
        )


def unmatched(answers: Iterable[Answer]) -> tuple[list[Output], list[Problem], list[str]]:
    """The answers under the names that the file has for them, and those that cannot be used, as :func:`match` gives them."""
    judged = [(answer, _unusable(answer, True)) for answer in answers]
    outputs = [_output(answer, str(answer.id)) for answer, why in judged if why is None]
    return outputs, [Problem("malformed", answer.where, why) for answer, why in judged if why is not None], []


def _unusable(answer: Answer, needs_id: bool) -> str | None:
    """Why an answer cannot be used; None where it can."""
    if answer.problem is not None or answer.text is None:
        return answer.problem or "it holds no text"
    if not isinstance(answer.text, str):
        return f"the text is {describe(answer.text)}"
    if not isinstance(answer.candidate, int) or not 0 <= answer.candidate < MAX_CANDIDATES:
        return f"there is no candidate {answer.candidate}"
    return "it has no id" if needs_id and answer.id is None else None
