"""Which sample, candidate and field the files of a folder stand for, told by their names alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import PurePosixPath

from rsw_rewards.core.records import OUTPUT_FIELDS, Sample, Task
from rsw_rewards.data.importers.matching import Ids, key_of, last_of, splits_in
from rsw_rewards.io.pairing import Problem

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+")

_FIELD_WORDS: Mapping[str, frozenset[str]] = {
    "map_before": frozenset({"before", "pre", "a", "t1", "im1", "label1", "pred1"}),
    "map_after": frozenset({"after", "post", "b", "t2", "im2", "label2", "pred2"}),
    "buildings": frozenset({"buildings", "building", "localization"}),
    "damage": frozenset({"damage"}),
}
"""Words in the names of files and folders that tell apart the two images of an output."""


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a file says."""

    file: str
    """Its path below the folder, with slashes."""
    sample: Sample
    field: str
    """The field of an output that the file is."""
    affix: str
    """What the name has beside the sample's id: ``*`` stands for the id, ``#`` for a number."""
    number: int | None
    """Of the candidate, as it is written; None where there is none."""


def image_fields(sample: Sample) -> tuple[str, ...]:
    """The fields of an output for a sample that one image each fills; none where a text answers it."""
    if sample.task is Task.FORECAST:
        return ("image",)
    return tuple(name for name in OUTPUT_FIELDS[sample.task] if name not in ("text", "boxes"))


def read_names(files: Iterable[str], samples: Sequence[Sample]) -> tuple[list[Named], list[Problem], str]:
    """The files that name a sample, those that cannot be used, and how the names are made where they are not the ids alone.

    A name is the id of its sample, as :class:`Ids` matches it, or has it as words of its own, with the same words beside it in all
    files (``_pred``, ``mask-``), or it is that of its folder (``test_1/pred.png``). A number beside it, or for the name of a folder, is that of the candidate. The numbers of all files
    count from 0 or from 1.

    Args:
        files: paths below the folder, with slashes.
        samples: those that may be meant.

    >>> samples = [Sample(name, Task.CHANGE_MASK) for name in ("test_1", "test_12")]
    >>> found, problems, made = read_names(["test_1_pred.png", "test_12_pred.png", "test_2_pred.png"], samples)
    >>> [named.sample.id for named in found], [problem.where for problem in problems], made
    (['test_1', 'test_12'], ['test_2_pred.png'], '*_pred')
    """
    ids, words = Ids(samples), _words_of(samples)
    read: list[Named] = []
    problems: list[Problem] = []
    for file in files:
        named = _read(file, ids, words)
        if isinstance(named, str):
            problems.append(Problem("unknown_id", file, named))
        else:
            read.append(named)
    made = Counter(named.affix for named in read).most_common(1)[0][0] if read else "*"
    found = _numbered([named for named in read if named.affix == made], problems)
    for named in read:
        if named.affix != made:
            why = f"beside its sample's id its name has {named.affix!r}, those of most files {made!r}"
            problems.append(Problem("unknown_id", named.file, why))
    return found, problems, made if made.strip("*_-. ") else ""


def _words_of(samples: Sequence[Sample]) -> dict[str, str]:
    """What a file name may hold of an id, with what :class:`Ids` finds it by.

    It is the last part of the id, or in one word all its parts, or those that are left without the first and last ones of all ids.
    """
    split = {sample.id: key_of(sample.id) for sample in samples}
    lead = _shared(split.values())
    trail = _shared(parts[lead:][::-1] for parts in split.values())
    found: dict[str, str] = {}
    for name, parts in split.items():
        own = parts[lead : len(parts) - trail] if len(split) > 1 else parts
        found |= {mark.join(words): name for words in (parts, own) for mark in "_-" if words}
    found |= {parts[-1]: parts[-1] for parts in split.values() if parts}
    return found | _as_written([sample.id for sample in samples])


def _as_written(ids: Sequence[str]) -> dict[str, str]:
    """Ids, and what is left of them without the folders that all share, in one word each, where only one id has it."""
    parts = {name: (*PurePosixPath(name).parts[:-1], last_of(name)) for name in ids}
    lead = _shared([own[:-1] for own in parts.values()])
    words = [
        (mark.join(some), name) for name, own in parts.items() for mark in "_-" for some in {own, own[lead:], own[-1:]}
    ]
    owners: dict[str, set[str]] = {}
    for word, name in words:
        owners.setdefault(word, set()).add(name)
    return {word: next(iter(names)) for word, names in owners.items() if len(names) == 1}


def _shared(lists: Iterable[Sequence[str]]) -> int:
    """How many parts the lists begin with that are the same in all of them."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*lists, strict=False)))


def _read(file: str, ids: Ids, words: Mapping[str, str]) -> Named | str:
    """What a name says, or why nothing can be said."""
    path = PurePosixPath(file)
    stem, folders, affix = path.stem, list(path.parts[:-1]), "*"
    sample = ids.find(file)
    if isinstance(sample, str):
        spans = sorted(_spans(stem, words), key=lambda span: span[0] - span[1])
        if spans:
            start, end = spans[0]
            if len(spans) > 1 and spans[1][1] - spans[1][0] == end - start:
                return f"its name may mean {stem[start:end]!r} or {stem[slice(*spans[1])]!r}"
            affix = f"{stem[:start]}*{stem[end:]}"
            name = words[stem[start:end]]
            if splits_in(folders):  # test/1_pred.png is test_1, also where there is a 1
                sample = ids.find("/".join((*folders, stem[start:end])))
            if isinstance(sample, str):
                sample = ids.find(name if name in ids.known else "/".join((*folders, name)))
            said = splits_in(_WORD.findall(file))
            if not isinstance(sample, str) and said and not said & (splits_in(key_of(sample.id)) or said):
                return f"its name is of another split than {sample.id!r}"
        elif folders:  # every sample has a folder, every candidate a file in it
            inside = ids.find("/".join(folders))
            if not isinstance(inside, str):
                sample, affix, folders = inside, f"*/{stem}", []
    if isinstance(sample, str):
        return sample
    fields = image_fields(sample)
    if len(fields) > 1:
        told = {word.lower() for text in (affix, *folders) for word in _WORD.findall(text)}
        fields = tuple(field for field in fields if told & _FIELD_WORDS[field])
        affix = _WORD.sub(lambda word: "" if _tells(word[0]) else word[0], affix)
        folders = [folder for folder in folders if not _tells(folder)]
    if len(fields) != 1:
        every = " and ".join(image_fields(sample)) or "a text, and no image"
        return f"the output for {sample.id!r} is {every}; no word in the name of the file or its folders says which"
    beside = _NUMBER.findall(affix)
    numbers = beside or [folder for folder in folders if _NUMBER.fullmatch(folder)]
    if len(numbers) > 1:
        return f"beside the id {sample.id!r} its name holds {len(numbers)} numbers; a candidate has one"
    return Named(file, sample, fields[0], _NUMBER.sub("#", affix), int(numbers[0]) if numbers else None)


def _spans(stem: str, words: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Where in a name an id stands between its ends and what is neither letter nor digit."""
    marks = [word.span() for word in _WORD.finditer(stem)]
    for first, (start, _) in enumerate(marks):
        for _, end in marks[first:]:
            if stem[start:end] in words:
                yield start, end


def _tells(word: str) -> bool:
    return any(word.lower() in known for known in _FIELD_WORDS.values())


def _numbered(found: Sequence[Named], problems: list[Problem]) -> list[Named]:
    """The files with the numbers of their candidates from 0; those whose numbers cannot be candidates' join the problems."""
    numbers = {named.number for named in found if named.number is not None}
    first, count = min(numbers, default=0), len(numbers)
    if first in (0, 1) and numbers <= set(range(first, first + count)):
        return [replace(named, number=(named.number or first) - first) for named in found]
    if all("#" not in named.affix for named in found):  # folders with numbers for names, of something else
        return [replace(named, number=0) for named in found]
    few = ", ".join(map(str, sorted(numbers)[:4]))
    why = f"the numbers beside the samples' ids ({few}, ...) are not those of candidates, which count from 0 or 1"
    problems += [Problem("unknown_id", named.file, why) for named in found]
    return []
