"""Caption files in the form that Karpathy's image captioning splits made common: LEVIR-CC, SECOND-CC and RSICD all use it.

An object with ``images``, a list of ``{filename, split, sentences: [{raw, tokens}], changeflag?}``. A sentence stands there twice:
``raw`` is ``" there is no difference ."``, ``tokens`` the same words in a list, without the full stop. A reference is neither of
them as it stands: each benchmark reads one of them in its own way, and a :class:`Reading` says which and how.

Whether a pair changed is a matter of reading, too. Tables for changed and unchanged pairs are made by one caption of the pair, which
another repository does not take: the pair is unchanged where that caption is one of the data set's sentences for no change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rsw_rewards.data.layout import choose_splits, plain_name, read_records
from rsw_rewards.errors import ConfigError, InputError

NO_CHANGE = (
    "the scene is the same as before",
    "there is no difference",
    "the two scenes seem identical",
    "no change has occurred",
    "almost nothing has changed",
)
"""The sentences of LEVIR-CC for a pair without change (test.py of github.com/Chen-Yang-Liu/Change-Agent)."""

PROMPT = "Describe what changed between the two images."


@dataclass(frozen=True, slots=True)
class Reading:
    """How a benchmark makes a reference of a sentence."""

    field: Literal["tokens", "raw"]
    caption: Callable[[Any], str]
    """From the value of ``field`` to the reference."""
    decides: Literal["flag", "first", "drawn"] = "flag"
    """What says whether a pair changed: the ``changeflag``, the first caption, or the second of five drawn ones (:func:`drawn`)."""
    no_change: tuple[str, ...] = NO_CHANGE
    """The data set's sentences for a pair without change."""


def without_stops(raw: str) -> str:
    """The words of ``raw`` between single blanks: ``;`` and ``,`` are words of their own, ``?`` and ``.`` are deleted.

    >>> without_stops(" houses are built, on the lower-left . a road appears .")
    'houses are built , on the lower-left a road appears'
    """
    return " ".join(raw.replace(";", " ;").replace(",", " ,").replace("?", "").replace(".", "").split())


def without_spaced_stops(raw: str) -> str:
    """``raw`` without outer blanks and without any full stop that follows a blank; all else stays.

    >>> without_spaced_stops(" At the road. A house appears .")
    'At the road. A house appears'
    """
    return raw.replace(" .", "").strip()


TOKENS = Reading("tokens", " ".join)
RSICC = replace(TOKENS, decides="drawn")
"""create_input_files in utils.py and eval.py of Chen-Yang-Liu/RSICC; createHD5files.py and eval_MModalCC.py of ChangeCapsInRS/SecondCC."""
CHANGE_AGENT = Reading("raw", without_stops, decides="first")
"""preprocess_data.py and test.py of Chen-Yang-Liu/Change-Agent and ShizhenChang/Chg2Cap; Chen-Yang-Liu/RSCaMa reads so and has no slices."""
READINGS = {"rsicc": RSICC, "change-agent": CHANGE_AGENT}
"""How the captions of LEVIR-CC are read, by the repository that began it."""


def reading_named(name: str) -> Reading:
    """The reading of LEVIR-CC's captions that a user names. Raises :class:`ConfigError` for an unknown name."""
    if name not in READINGS:
        raise ConfigError(f"the captions are read as by {' or '.join(READINGS)}, not by {name!r}")
    return READINGS[name]


DRAWN = 5
"""Captions of a pair that RSICC draws."""
LONGEST = 50
"""Words of the longest caption that RSICC draws."""


def drawn(pairs: Iterable[tuple[str, Sequence[int]]]) -> list[list[int]]:
    """Which captions RSICC takes of each pair, in its order: five drawn from all, fewer filled up by draws from the same.

    All draws come from one generator, seeded with 123, over the pairs of training, then validation, then test; so a pair's order
    depends on the whole file.

    Args:
        pairs: split and lengths of the captions in words, pair by pair in the file's order.

    Returns:
        The indices of the captions, pair by pair as given; none of a pair without a caption that is short enough.

    >>> drawn([("test", [7, 6, 8, 7, 5]), ("train", [4, 4, 4, 4, 4])])
    [[0, 4, 1, 2, 3], [0, 2, 4, 1, 3]]
    """
    generator = random.Random(123)
    parts = {"train": 0, "restval": 0, "val": 1, "test": 2}
    listed = list(pairs)
    taken: list[list[int]] = [[] for _ in listed]
    for number in sorted(range(len(listed)), key=lambda number: parts.get(listed[number][0], 3)):
        known = [place for place, words in enumerate(listed[number][1]) if words <= LONGEST]
        if len(known) >= DRAWN:
            taken[number] = generator.sample(known, k=DRAWN)
        elif known:
            taken[number] = known + [generator.choice(known) for _ in range(DRAWN - len(known))]
    return taken


@dataclass(frozen=True, slots=True)
class Captioned:
    """One entry: an image, or a pair of images of one name, and what people said about it."""

    name: str
    """File name, with its suffix."""
    split: str
    captions: list[str]
    """As the benchmark's :class:`Reading` makes them."""
    changed: bool | None
    """As the reading decides; None where it is the changeflag's to say and the file has none."""
    flag: bool | None
    """The ``changeflag``; None where the file has none."""

    @property
    def stem(self) -> str:
        return Path(self.name).stem


def read_captioned(file: Path, source: Path, split: str | None, reading: Reading) -> list[Captioned]:
    """The entries of a caption file that belong to ``split``, in the file's order; all of them where it is None.

    Args:
        file: the caption file.
        source: the folder that it must lie in.
        split: name of the part.
        reading: how the benchmark makes references of sentences.

    Raises:
        InputError: the file is not of this form, names an image twice in a split, or has no entry of the split.
    """
    entries: dict[tuple[str, str], Captioned] = {}
    for number, record in enumerate(read_records(file, source, "images")):
        entry = _entry(record, reading, f"{file}: entry {number} of 'images'")
        if (entry.split, entry.name) in entries:
            raise InputError(f"{file} names the image {entry.name} of {entry.split} twice")
        entries[entry.split, entry.name] = entry
    if not entries:
        raise InputError(f"{file} has no entry in 'images'")
    if reading.decides == "drawn":
        order = drawn((entry.split, [len(caption.split()) for caption in entry.captions]) for entry in entries.values())
        for key, places in zip(list(entries), order, strict=True):
            if places:
                decisive = entries[key].captions[places[1]]
                entries[key] = replace(entries[key], changed=decisive not in reading.no_change)
    wanted = choose_splits(dict.fromkeys(entry.split for entry in entries.values()), split, file)
    return [entry for entry in entries.values() if entry.split in wanted]


def _entry(record: dict[str, Any], reading: Reading, where: str) -> Captioned:
    name = plain_name(record.get("filename"), where)
    split = plain_name(record.get("split"), f"'split' of {where}")
    sentences = record.get("sentences")
    if not isinstance(sentences, list):
        raise InputError(f"{where} ({name}) lacks the list 'sentences'")
    read = (_caption(sentence, reading, f"{where} ({name})") for sentence in sentences)
    captions = [caption for caption in read if caption]
    if not captions:
        raise InputError(f"{where} ({name}) has no caption")
    flag = record.get("changeflag")
    if flag is not None and flag not in (0, 1):
        raise InputError(f"{where} ({name}) has the changeflag {flag!r}; it should be 0 or 1")
    flagged = None if flag is None else bool(flag)
    changed = captions[0] not in reading.no_change if reading.decides == "first" else flagged
    return Captioned(name, split, captions, changed, flagged)


def _caption(sentence: Any, reading: Reading, where: str) -> str:
    value = sentence.get(reading.field) if isinstance(sentence, dict) else None
    if reading.field == "raw" and not isinstance(value, str):
        raise InputError(f"{where} has a sentence without the text 'raw'")
    if reading.field == "tokens" and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        raise InputError(f"{where} has a sentence without 'tokens', the list of its words")
    return reading.caption(value)


def change_fields(entry: Captioned, reading: Reading) -> dict[str, Any]:
    """``kind`` and ``reference`` of a change-caption sample, with the sentences for no change where they are not LEVIR-CC's."""
    reference: dict[str, Any] = {"captions": entry.captions}
    if reading.no_change != NO_CHANGE:
        reference["no_change"] = list(reading.no_change)
    if entry.changed is None:
        return {"kind": None, "reference": reference}
    return {"kind": "changed" if entry.changed else "unchanged", "reference": {**reference, "changed": entry.changed}}


def flag_field(entry: Captioned) -> dict[str, bool]:
    """The data set's own word on whether the pair changed, for ``metadata``; nothing where it has none."""
    return {} if entry.flag is None else {"changeflag": entry.flag}
