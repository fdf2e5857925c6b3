"""The vocabulary of a token world model (words, metadata and visual codes in one list) and the prompts written in it.

Question:  ``<question> place resolution (date <boi> codes <eoi>)* words <answer>`` -> ``words <eos>``
Forecast:  ``<forecast> place resolution words (date <boi> codes <eoi>)* date <boi>`` -> ``codes <eos>``

In both, two consecutive pictures lie one picture and one date apart, so that a cell of one picture and the same cell of the
next are always equally far from each other: relative positions learn that at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.files import write_text

SPECIAL = ("<pad>", "<eos>", "<unk>", "<boi>", "<eoi>", "<question>", "<forecast>", "<answer>")
_LATITUDES = range(-90, 90, 10)
_LONGITUDES = range(-180, 180, 30)
_GSD_M = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_YEARS = range(2000, 2040)
_MONTHS = range(1, 13)
METADATA: tuple[str, ...] = tuple(
    f"<{name}:{value}>"
    for name, values in (
        ("lat", _LATITUDES),
        ("lon", _LONGITUDES),
        ("gsd", _GSD_M),
        ("year", _YEARS),
        ("month", _MONTHS),
    )
    for value in ("?", *values)
)
_WORD = re.compile(r"\w+")


class MetadataTokens:
    """Ids of what is known about a picture beside its pixels. ``ids`` gives the id of every name in :data:`METADATA`."""

    ids: Mapping[str, int]

    def _metadata(self, name: str, value: object) -> int:
        return self.ids.get(f"<{name}:{value}>", self.ids[f"<{name}:?>"])

    def place(self, metadata: Mapping[str, Any]) -> list[int]:
        """Three ids: latitude (10 degrees a bin), longitude (30 degrees a bin), ground resolution (powers of two, metres)."""
        lat, lon, gsd = (number_of(metadata.get(key)) for key in ("lat", "lon", "gsd_m"))
        nearest = None if gsd is None or gsd <= 0 else min(_GSD_M, key=lambda level: abs(np.log2(level / gsd)))
        return [
            self._metadata("lat", "?" if lat is None else min(int(lat // 10) * 10, 80)),
            self._metadata("lon", "?" if lon is None else min(int(lon // 30) * 30, 150)),
            self._metadata("gsd", "?" if nearest is None else nearest),
        ]

    def date(self, date: str | None) -> list[int]:
        """Two ids, year and month, of an ISO date (``2018``, ``2018-06`` or ``2018-06-15``)."""
        match = re.match(r"(\d{4})(?:-(\d{2}))?", date or "")
        year, month = match.groups() if match else (None, None)
        return [self._metadata("year", year or "?"), self._metadata("month", int(month) if month else "?")]


class Vocabulary(MetadataTokens):
    """All tokens in the order of their ids: special ones, metadata, words, visual codes.

    Args:
        words: the words, without duplicates.
        codes: size of the visual tokenizer's codebook.
    """

    def __init__(self, words: Sequence[str], codes: int) -> None:
        self.words = tuple(words)
        self.codes = codes
        self.tokens = (*SPECIAL, *METADATA, *self.words, *(f"<v{k}>" for k in range(codes)))
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise ValueError("the words of a vocabulary must differ from each other and from special tokens")
        self.pad, self.eos, self.unk, self.boi, self.eoi, self.question, self.forecast, self.answer = range(
            len(SPECIAL)
        )
        self.text_start = len(SPECIAL) + len(METADATA)
        self.visual_start = self.text_start + len(self.words)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode_text(self, text: str) -> list[int]:
        """Ids of the words of a text. Punctuation is dropped; words that are unknown, also in lower case, are ``<unk>``."""
        return [self.ids.get(word, self.ids.get(word.lower(), self.unk)) for word in _WORD.findall(text)]

    def decode_text(self, ids: Iterable[int]) -> str:
        """The words of a completion, joined by blanks, up to the end token."""
        words = []
        for number in ids:
            if number == self.eos:
                break
            words.append(self.tokens[number])
        return " ".join(words)

    # Sequences

    def picture(self, codes: Iterable[int], date: str | None) -> list[int]:
        """A dated picture: 2 + 1 + codes + 1 ids."""
        return [*self.date(date), self.boi, *(self.visual_start + int(code) for code in codes), self.eoi]

    def question_context(
        self, codes: Sequence[Iterable[int]], dates: Sequence[str | None], metadata: Mapping[str, Any]
    ) -> list[int]:
        """What a question prompt holds before the question's words."""
        pictures = [number for c, d in zip(codes, dates, strict=True) for number in self.picture(c, d)]
        return [self.question, *self.place(metadata), *pictures]

    def question_prompt(
        self, text: str, codes: Sequence[Iterable[int]], dates: Sequence[str | None], metadata: Mapping[str, Any]
    ) -> list[int]:
        """The prompt of a question about pictures given by their codes."""
        return [*self.question_context(codes, dates, metadata), *self.encode_text(text), self.answer]

    def forecast_prompt(
        self,
        text: str,
        codes: Sequence[Iterable[int]],
        dates: Sequence[str | None],
        target_date: str | None,
        metadata: Mapping[str, Any],
    ) -> list[int]:
        """The prompt of a forecast of the picture at ``target_date`` from earlier ones given by their codes."""
        pictures = [number for c, d in zip(codes, dates, strict=True) for number in self.picture(c, d)]
        head = [self.forecast, *self.place(metadata), *self.encode_text(text)]
        return [*head, *pictures, *self.date(target_date), self.boi]

    def save(self, folder: Path | str) -> None:
        """Writes ``vocabulary.json``."""
        content = {"words": self.words, "codes": self.codes}
        write_text(Path(folder) / "vocabulary.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> Vocabulary:
        """Reads ``vocabulary.json``."""
        content = json.loads((Path(folder) / "vocabulary.json").read_text(encoding="utf-8"))
        return cls(content["words"], content["codes"])


def number_of(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None
