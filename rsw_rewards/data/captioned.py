"""Caption files in the form that Karpathy's image captioning splits made common: LEVIR-CC, SECOND-CC and RSICD all use it.

An object with ``images``, a list of ``{filename, split, sentences: [{raw, tokens}], changeflag?}``. A sentence stands there twice:
``raw`` is ``" there is no difference ."``, ``tokens`` the same words in a list, without the full stop. A reference is neither of
them as it stands: each benchmark reads one of them in its own way, and a :class:`Reading` says which and how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsw_rewards.data.layout import choose_splits, plain_name, read_records
from rsw_rewards.errors import InputError

PROMPT = "Describe what changed between the two images."


@dataclass(frozen=True, slots=True)
class Reading:
    """How a benchmark makes a reference of a sentence."""

    field: Literal["tokens", "raw"]
    caption: Callable[[Any], str]
    """From the value of ``field`` to the reference."""


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


def before_stop(raw: str) -> str:
    """What stands in ``raw`` before the first full stop that follows a blank, without outer blanks.

    >>> before_stop("many planes are parked . some are white .")
    'many planes are parked'
    """
    return raw.split(" .")[0].strip()


TOKENS = Reading("tokens", " ".join)
"""create_input_files of utils.py in Chen-Yang-Liu/RSICC, createHD5files.py in ChangeCapsInRS/SecondCC."""
CHANGE_AGENT = Reading("raw", without_stops)
"""tokenize of preprocess_data.py in Chen-Yang-Liu/Change-Agent and ShizhenChang/Chg2Cap."""
TXT2IMG_MHN = Reading("raw", before_stop)
"""data_preparation.py in YonghaoXu/Txt2Img-MHN."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """One entry: an image, or a pair of images of one name, and what people said about it."""

    name: str
    """File name, with its suffix."""
    split: str
    captions: list[str]
    """As the benchmark's :class:`Reading` makes them."""
    changed: bool | None
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
    return Captioned(name, split, captions, None if flag is None else bool(flag))


def _caption(sentence: Any, reading: Reading, where: str) -> str:
    value = sentence.get(reading.field) if isinstance(sentence, dict) else None
    if reading.field == "raw" and not isinstance(value, str):
        raise InputError(f"{where} has a sentence without the text 'raw'")
    if reading.field == "tokens" and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        raise InputError(f"{where} has a sentence without 'tokens', the list of its words")
    return reading.caption(value)


def change_fields(entry: Captioned, no_change: Sequence[str] = ()) -> dict[str, Any]:
    """``kind`` and ``reference`` of a change-caption sample.

    Args:
        entry: of the caption file.
        no_change: the data set's sentences for a pair without change, where they are not LEVIR-CC's.
    """
    reference: dict[str, Any] = {"captions": entry.captions}
    if no_change:
        reference["no_change"] = list(no_change)
    if entry.changed is None:
        return {"kind": None, "reference": reference}
    return {"kind": "changed" if entry.changed else "unchanged", "reference": {**reference, "changed": entry.changed}}
