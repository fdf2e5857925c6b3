"""Tokens that turn a vision-language model into a world model: pictures as codes, and what is known about them.

They stand behind the backbone's own tokens. The user's turn holds the pictures as the backbone sees them, place, dates and words; in a
forecast the assistant's turn is a row of dated pictures in codes, of which the last one is drawn:

    ``<user> pictures place sensor dates [target conditions] words </user> <assistant>``
    ``(date <start> codes <end>)*  target-date <start>`` -> ``codes <end> </assistant>``

RS-WorldModel (arXiv 2603.14941) has one next-token objective over text and MoVQGAN's codes and gives metadata as tokens of their own; its order of
tokens is not published. Rows of codes end in a token of their own as in Emu3 (arXiv 2409.18869): relative positions alone do not
say where a row ends. The input is shown both ways, as features and as codes, as BAGEL (arXiv 2505.14683) does for editing: features say
what is there, codes let a cell that does not change be copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.token_vocabulary import METADATA, MetadataTokens, number_of

if TYPE_CHECKING:
    from rsw_rewards.rollouts.picture_segments import Segments

FILE = "world_model.json"
PICTURE = ("<|picture_start|>", "<|picture_row|>", "<|picture_end|>")
_SENSORS = {
    "worldview": ("worldview", "wv"), "quickbird": ("quickbird", "qb"), "geoeye": ("geoeye", "ge"), "ikonos": ("ikonos",),
    "pleiades": ("pleiades", "phr"), "planet": ("planet", "ps"), "gaofen": ("gaofen", "gf"), "spot": ("spot",),
    "sentinel-1": ("sentinel1", "s1"), "sentinel-2": ("sentinel2", "s2"), "landsat": ("landsat", "lc", "lt", "le"),
    "aerial": ("aerial", "naip", "airborne"),
}  # fmt: skip
"""Sensor by what its names start with, in lower case and without punctuation."""
_CONDITIONS = {
    "sun": ("sun_elevation_deg", range(0, 90, 10)),
    "off_nadir": ("off_nadir_deg", range(0, 60, 10)),
    "cloud": ("cloud_cover", range(0, 100, 10)),
}
"""How a picture was taken, as fMoW's metadata say it (arXiv 1711.07846), in degrees and per cent: key of the metadata and bins."""
_EXTRA = tuple(f"<sensor:{name}>" for name in ("?", *_SENSORS)) + tuple(
    f"<{name}:{value}>" for name, (_, bins) in _CONDITIONS.items() for value in ("?", *bins)
)


def added_tokens(codes: int) -> list[str]:
    """Names of all tokens that a backbone is given, in the order of their ids."""
    return [*PICTURE, *METADATA, *_EXTRA, *(f"<|visual_{code}|>" for code in range(codes))]


@dataclass(frozen=True)
class BackboneVocabulary(MetadataTokens):
    """Where the tokens of a world model lie in its backbone's vocabulary.

    Attributes:
        first: id of the first added token.
        codes: size of the visual tokenizer's codebook.
        side: side in pixels of the pictures that are coded.
        grid: rows and columns of their codes.
        sha256: of the files that belong together, by their path in the folder of the world model.
        origin: what the world model was built from, for people.
    """

    first: int
    codes: int
    side: int
    grid: tuple[int, int]
    sha256: Mapping[str, str]
    origin: Mapping[str, Any]

    @cached_property
    def names(self) -> list[str]:
        """Added tokens, in the order of their ids."""
        return added_tokens(self.codes)

    @cached_property
    def ids(self) -> dict[str, int]:  # type: ignore[override]
        """Id of every added token."""
        return {name: self.first + place for place, name in enumerate(self.names)}

    @property
    def last(self) -> int:
        """Id behind the last added token."""
        return self.first + len(self.names)

    @property
    def visual_start(self) -> int:
        """Id of the first visual code."""
        return self.last - self.codes

    def segments(self, size: int, never: Sequence[int], ends: Sequence[int]) -> Segments:
        """What may follow what.

        Args:
            size: rows of the output matrix.
            never: tokens of the backbone that no answer holds.
            ends: tokens that end an answer; a picture is ended by the first.
        """
        from rsw_rewards.rollouts.picture_segments import Segments

        begin, row_end, picture_end = (self.ids[name] for name in PICTURE)
        return Segments(
            begin=begin,
            end=ends[0],
            codes=(self.visual_start, self.codes),
            grid=self.grid,
            words=(0, self.first),
            size=size,
            never=tuple(token for token in never if token < self.first),
            ends=tuple(ends),
            row_end=row_end,
            picture_end=picture_end,
        )

    # Texts

    def heading(self, sample: Sample) -> str:
        """Place, sensor and dates of a sample's pictures, as the names of tokens."""
        known = sample.metadata
        ids = [*self.place(known), self._metadata("sensor", _sensor(known.get("sensor")))]
        return self.named([*ids, *(token for image in sample.images for token in self.date(image.date))])

    def conditions(self, sample: Sample) -> str:
        """How the picture to come is taken: ``target_sun_elevation_deg`` and the like, or the same without ``target_``."""
        known = sample.metadata
        found = []
        for name, (key, bins) in _CONDITIONS.items():
            value = number_of(known.get(f"target_{key}", known.get(key)))
            last = bins[-1]
            found.append(self._metadata(name, "?" if value is None else min(max(int(value // 10) * 10, 0), last)))
        return self.named(found)

    def named(self, ids: Sequence[int]) -> str:
        """The names of added tokens, as a text in which the tokenizer finds them again."""
        return "".join(self.names[token - self.first] for token in ids)

    # Pictures

    def drawing(self, codes: NDArray[np.int64]) -> list[int]:
        """Ids of a picture behind its first token: rows of codes, each with its end, and the end of the picture."""
        rows = np.asarray(codes).reshape(self.grid)
        row_end, picture_end = (self.ids[name] for name in PICTURE[1:])
        drawn = [token for row in rows for token in (*(self.visual_start + int(code) for code in row), row_end)]
        return [*drawn, picture_end]

    def album(self, codes: Sequence[NDArray[np.int64]], dates: Sequence[str | None], target: str | None) -> list[int]:
        """Ids that a forecast is the continuation of: dated pictures, the date of the next one, and its first token."""
        begin = self.ids[PICTURE[0]]
        shown = [token for c, d in zip(codes, dates, strict=True) for token in (*self.date(d), begin, *self.drawing(c))]
        return [*shown, *self.date(target), begin]

    def album_length(self, pictures: int) -> int:
        """Ids of :meth:`album`."""
        return pictures * (3 + self.drawing_length) + 3

    @property
    def drawing_length(self) -> int:
        """Ids of :meth:`drawing`."""
        return self.grid[0] * (self.grid[1] + 1) + 1

    def read_drawing(self, ids: Sequence[int], ends: Sequence[int]) -> NDArray[np.int64] | None:
        """Codes of a completion, row by row; None unless it is a whole picture with its end and nothing else."""
        if len(ids) != self.drawing_length + 1 or ids[-1] not in ends:
            return None
        row_end, picture_end = (self.ids[name] for name in PICTURE[1:])
        rows = np.array(ids[:-2], np.int64).reshape(self.grid[0], self.grid[1] + 1)
        codes = rows[:, :-1].reshape(-1) - self.visual_start
        whole = (rows[:, -1] == row_end).all() and ids[-2] == picture_end
        return codes if whole and codes.min() >= 0 and codes.max() < self.codes else None

    # Files

    def save(self, folder: Path) -> None:
        """Writes ``world_model.json``."""
        write_text(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> BackboneVocabulary:
        """Reads ``world_model.json``. Raises :class:`ConfigError` where it is missing or not what :meth:`save` writes."""
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            content["grid"] = tuple(content["grid"])
            return cls(**content)
        except FileNotFoundError:
            raise ConfigError(
                f"{folder} holds no world model ({FILE} is missing); build one with `rsw train configs/rs_worldmodel_build.yaml`"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{folder / FILE} cannot be read: {' '.join(str(error).split())[:200]}") from None


def _sensor(name: Any) -> str:
    plain = "".join(letter for letter in str(name or "").lower() if letter.isalnum())
    return next((sensor for sensor, starts in _SENSORS.items() if plain.startswith(starts)), "?")
