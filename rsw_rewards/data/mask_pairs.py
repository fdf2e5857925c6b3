"""Data sets of change masks: a folder of images before, one after, and one of masks, with equal file names in all three.

The folders lie in the source itself, optionally with ``list/<split>.txt``, or in ``train``, ``val`` and ``test`` below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    ImageFolder,
    data_folder,
    find_file,
    inside,
    natural,
    needed,
    read_list,
    split_parts,
)
from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.io.images import read_mask

PROMPT = "Mark what changed between the two images."


@dataclass(frozen=True)
class MaskPairs:
    """How one data set of this form is laid out."""

    name: str
    """The first part of every id."""
    folders: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    """Names that the folders before, after and of masks may have; the first of each is the official one."""
    tile: Callable[[str], str | None] | None = None
    """The name of the place that a file was cut from, where its own name tells; None where none does."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    mask: Mapping[str, Any] = field(default_factory=dict)
    """How masks are read, as in an image entry, where they do not hold 0 and 255."""
    hint: str = ""
    """What else to do where the folders are not there."""

    @property
    def official(self) -> str:
        before, after, mask = (names[0] for names in self.folders)
        return f"{before}, {after} and {mask}"


def _check_values(kind: MaskPairs, masks: ImageFolder) -> None:
    """Read masks up to the first that marks a change. Raises :class:`InputError` where it does not hold what scoring reads."""
    for stem in masks.stems:
        with as_input_error(f"a mask of {kind.name} cannot be scored", InputError):
            marked = read_mask(ImageRef(path=masks.source / masks[stem], **kind.mask)).any()
        if marked:
            return


def _part(
    kind: MaskPairs, folders: list[ImageFolder], split: str | None, names: list[str] | None
) -> Iterator[dict[str, Any]]:
    known = [folder.stems for folder in folders]
    _check_values(kind, folders[2])
    for stem in names if names is not None else sorted(set().union(*known), key=natural):
        must = ", ".join(folder.folder.name for folder in folders)
        before, after, mask = (
            needed(folder.get(stem), f"{folder.folder} lacks an image named {stem}; {must} must match")
            for folder in folders
        )
        # Numbered files may repeat from split to split, and are then different places.
        name = stem if split is None or stem.startswith(f"{split}_") else f"{split}/{stem}"
        yield {
            "id": f"{kind.name}/{name}",
            "task": "change_mask",
            "scene": f"{kind.name}/{(kind.tile and kind.tile(stem)) or name}",
            "images": [before, after],
            "prompt": PROMPT,
            "reference": {"mask": {"path": mask, **kind.mask} if kind.mask else mask},
            "metadata": {"dataset": kind.name, **kind.metadata, **({"split": split} if split else {})},
        }


def _parts(kind: MaskPairs, source: Path, split: str | None) -> Iterator[dict[str, Any]]:
    expected = f"folders {kind.official}, or train, val and test with these folders in them{kind.hint}"
    for name, folders in split_parts(source, split, kind.folders, expected).items():
        stems = None if name or split is None else _named(folders, source, split)
        yield from _part(kind, folders, name or split, stems)


def _named(own: list[ImageFolder], source: Path, split: str) -> list[str]:
    """The stems of a split, by its list or else by the prefix of their names."""
    if (file := find_file(source / "list" / f"{split}.txt", source / f"{split}.txt")) is not None:
        lines = read_list(inside(file, source)).split("\n")
        return [Path(line.split()[0]).stem for line in lines if line.strip()]
    named = [stem for stem in own[0].stems if stem.startswith(f"{split}_")]
    if not named:
        raise InputError(
            f"{source} has no list/{split}.txt and no image named {split}_*; leave --split out to convert all"
        )
    return named


def convert(
    kind: MaskPairs, source: Path, out: Path, split: str | None, limit: int | None, note: str = ""
) -> Conversion:
    """Write change-mask samples of a data set. See :class:`rsw_rewards.data.adapter.Adapter`.

    Without ``split`` everything found is written. A split is a folder, a list file ``list/<split>.txt``, or the prefix of
    the file names.
    """
    source = data_folder(source, kind.official, split)
    what = f"the folders in {source} hold no images"
    return conversion(out, _parts(kind, source, split), limit, what, [source], [note])
