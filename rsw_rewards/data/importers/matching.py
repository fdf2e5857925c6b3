"""Which sample an answer made elsewhere belongs to: by its id, by the last part of its id, or by position where that is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample
from rsw_rewards.errors import InputError
from rsw_rewards.io.pairing import Problem

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy", ".npz"})
_LARGEST_CANDIDATE = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as a foreign file holds it.

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


def key_of(name: str) -> tuple[str, ...]:
    """An id as its parts, without the suffix of an image: ``("levir_cc", "test_000004")`` for ``levir_cc/test_000004.png``."""
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return tuple(part for part in path.parts if part not in ("/", "."))


class Ids:
    """The samples by id, and by the last part of their ids."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.known = {sample.id: sample for sample in samples}
        self._by_last: dict[str, list[tuple[tuple[str, ...], Sample]]] = defaultdict(list)
        for sample in samples:
            if parts := key_of(sample.id):
                self._by_last[parts[-1]].append((parts, sample))

    def find(self, name: str) -> Sample | str:
        """The only sample that ``name`` can mean, or why there is none."""
        if name in self.known:
            return self.known[name]
        parts = key_of(name)
        found = self._by_last.get(parts[-1], []) if parts else []
        if len(found) > 1:
            found = [(own, sample) for own, sample in found if own[-len(parts) :] == parts] or found
        if not found:
            return f"the id {name[:80]!r} is not among the samples"
        if len(found) > 1:
            return f"the id {name[:80]!r} may mean {found[0][1].id!r}, {found[1][1].id!r} or others"
        return found[0][1]


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
        by: ``"id"``: the whole id, else its last part without the suffix of an image, if only one sample has it.
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
    found: dict[str, dict[int, Output]] = {}
    problems: list[Problem] = []
    doubtful: list[tuple[Answer, Sample]] = []
    matched = 0
    # Whole ids first: a row that names its sample exactly must not lose it to one that only ends alike.
    given = list(answers)
    for answer in sorted(given, key=lambda answer: by == "id" and answer.id not in ids.known):
        if (why := _unusable(answer)) is not None:
            problems.append(Problem("malformed", answer.where, why))
            continue
        if by == "id" and answer.id is None:
            problems.append(Problem("malformed", answer.where, "it has no id"))
            continue
        sample = _by_position(answer, samples) if by == "order" else ids.find(str(answer.id))
        if isinstance(sample, str):
            problems.append(Problem("unknown_id", answer.where, sample))
            continue
        if "text" not in OUTPUT_FIELDS[sample.task]:
            problems.append(Problem("wrong_field", answer.where, f"{sample.id!r} is not answered by a text"))
            continue
        candidates = found.setdefault(sample.id, {})
        if answer.candidate in candidates:
            reason = f"a second answer for {sample.id!r} candidate {answer.candidate}; the first is kept"
            problems.append(Problem("duplicate", answer.where, reason))
            continue
        candidates[answer.candidate] = Output(sample.id, answer.candidate, text=answer.text)
        matched += 1
        if _contradicts(answer, sample):
            doubtful.append((answer, sample))
    outputs = [found[sample.id][key] for sample in samples for key in sorted(found.get(sample.id, {}))]
    problems += [
        Problem("missing", sample.id, "no answer for this sample") for sample in samples if sample.id not in found
    ]
    notes = []
    if doubtful:
        answer, sample = doubtful[0]
        target = str(answer.target)[:60]
        notes.append(
            f"{len(doubtful)} of {matched} answers stand beside a truth that is not their sample's, such as {target!r} for {sample.id!r}: check that they were matched rightly"
        )
    return outputs, problems, notes


def unmatched(answers: Iterable[Answer]) -> tuple[list[Output], list[Problem], list[str]]:
    """The answers under the names that the file has for them, and those that cannot be used, as :func:`match` gives them."""
    outputs: list[Output] = []
    problems: list[Problem] = []
    for answer in answers:
        why = _unusable(answer)
        if why is None and answer.id is None:
            why = "it has no id"
        if why is None:
            outputs.append(Output(str(answer.id), answer.candidate, text=answer.text))
        else:
            problems.append(Problem("malformed", answer.where, why))
    return outputs, problems, []


def _unusable(answer: Answer) -> str | None:
    if answer.problem is not None or answer.text is None:
        return answer.problem or "it holds no text"
    if not isinstance(answer.text, str):
        return f"the text is {describe(answer.text)}"
    if not isinstance(answer.candidate, int) or not 0 <= answer.candidate <= _LARGEST_CANDIDATE:
        return f"there is no candidate {answer.candidate}"
    return None
