"""Adapter ``levir-cc``: the change captions of LEVIR-CC (doi 10.1109/TGRS.2022.3218921, github.com/Chen-Yang-Liu/LEVIR-CC-Dataset).

Expected: ``LevirCCcaptions.json``, and ``images/<split>/A`` and ``images/<split>/B`` beside it, as the README of
Chen-Yang-Liu/RSICC has it.

The 256-pixel tiles are numbered within a split, and neither name nor file says which larger scene one was cut from (the authors
say that they come from LEVIR-CD and elsewhere, and that the splits are not LEVIR-CD's: RSICC issue 10). So every tile is its own
scene, and intervals over these scenes may be too narrow.

References and the sides of the slices are RSICC's: the words of ``tokens``, and a pair is unchanged where the second of the captions
that RSICC draws says so. With ``reading="change-agent"`` they are those of Change-Agent and Chg2Cap: ``raw`` without ``?`` and ``.``, and
the first caption. The data set's own ``changeflag`` stands in ``metadata``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import (
    PROMPT,
    Captioned,
    Reading,
    change_fields,
    flag_field,
    read_captioned,
    reading_named,
)
from rsw_rewards.data.layout import ImageFolder, data_folder, find_entry, image_folders, images_named, needed
from rsw_rewards.errors import InputError

CAPTIONS = "LevirCCcaptions.json"
GSD_M = 0.5

NO_IMAGERY = "no imagery in {}: outputs can be scored, but no model can be shown the images"
SCENES = "every tile counts as a scene of its own: the data do not say which tiles were cut from one place"


def scene_of(stem: str) -> str:
    """The scene of a tile, the same in LEVIR-CC, LEVIR-MCI and ChangeChat, which share their images."""
    return f"levir_cc/{stem}"


def split_folder(source: Path, split: str) -> Path:
    """Where the folders A and B of a split lie: ``images/<split>`` or, in a bare copy of ``images``, ``<split>``."""
    images = find_entry(source, "images") or source
    return find_entry(images, split) or images / split


class Pairs:
    """The two images of a tile, by split and file name; expected paths where a copy has no imagery at all."""

    def __init__(self, source: Path, splits: Sequence[str]) -> None:
        self._folders: dict[str, list[ImageFolder] | None] = {
            split: image_folders(split_folder(source, split), source, (("A",), ("B",)))
            for split in dict.fromkeys(splits)
        }
        self.absent = not any(self._folders.values())
        lacking = [split for split, folders in self._folders.items() if folders is None]
        if lacking and not self.absent:
            raise InputError(f"{split_folder(source, lacking[0])} should hold the folders A and B of {lacking[0]}")

    def __call__(self, split: str, name: str) -> list[str]:
        return images_named(name, self._folders[split], [f"images/{split}/{date}" for date in "AB"])


def read_entries(source: Path, split: str | None, reading: Reading) -> list[Captioned]:
    """The entries of ``LevirCCcaptions.json``. Raises :class:`InputError` where there is none, or one without a changeflag."""
    file = needed(find_entry(source, CAPTIONS), f"{source} has no {CAPTIONS}; it should lie beside the folder images")
    entries = read_captioned(file, source, split, reading)
    for entry in entries:
        if entry.flag is None:
            raise InputError(
                f"{file} has no changeflag for {entry.name}; LEVIR-CC says of every pair whether it changed"
            )
    return entries


def caption_samples(
    entries: Sequence[Captioned],
    pairs: Callable[[str, str], list[str]],
    dataset: str,
    places: str,
    reading: Reading,
    **metadata: Any,
) -> Iterator[dict[str, Any]]:
    """A change-caption record per entry. ``pairs`` gives the images of a split and a file name, ``places`` begins the scenes."""
    for entry in entries:
        own = entry.stem if entry.stem.startswith(f"{entry.split}_") else f"{entry.split}/{entry.stem}"
        yield {
            "id": f"{dataset}/{own}",
            "task": "change_caption",
            "scene": f"{places}/{own}",
            "images": pairs(entry.split, entry.name),
            "prompt": PROMPT,
            **change_fields(entry, reading),
            "metadata": {"dataset": dataset, "split": entry.split, **metadata, **flag_field(entry)},
        }


def convert_captions(
    source: Path, out: Path, dataset: str, reading: Reading, split: str | None, limit: int | None
) -> Conversion:
    """What the adapters of LEVIR-CC and LEVIR-MCI share."""
    entries = read_entries(source, split, reading)
    pairs = Pairs(source, [entry.split for entry in entries])
    records = caption_samples(entries, pairs, dataset, "levir_cc", reading, gsd_m=GSD_M)
    notes = [SCENES, NO_IMAGERY.format(source) if pairs.absent else ""]
    return conversion(out, records, limit, f"{source} has no captions", [source], notes)


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, reading: str = "rsicc"
) -> Conversion:
    """Write change-caption samples of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`.

    Without the imagery the samples are written all the same, so that captions made elsewhere can be scored; a note says so.

    Args:
        source, out, split, limit: as there.
        reading: ``"rsicc"``, or ``"change-agent"``, which is also Chg2Cap's and RSCaMa's.

    Raises:
        ConfigError: another ``reading``.
    """
    source, read_as = data_folder(source, f"{CAPTIONS} and images"), reading_named(reading)
    return convert_captions(source, Path(out), "levir_cc", read_as, split, limit)
