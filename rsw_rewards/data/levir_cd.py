"""Adapter ``levir-cd``: LEVIR-CD (doi 10.3390/rs12101662) and data sets in its layout, folders A, B and label with equal file names.

The folders lie in the source itself, optionally with ``list/<split>.txt``, or in ``train``, ``val`` and ``test`` below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, write_samples
from rsw_rewards.errors import InputError

SPLITS = ("train", "val", "test")
PROMPT = "Mark what changed between the two images."

_FOLDERS = {"before": ("A", "t1", "im1"), "after": ("B", "t2", "im2"), "label": ("label", "mask", "gt")}
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
# test_102_0512_0000 (row and column) and test_102_7 (number of the crop) are both cut from the 1024-pixel tile test_102.
_TILE = re.compile(r"((?:train|val|test)_\d+)(?:_\d+){0,2}")


def scene_of(stem: str) -> str:
    """The tile that a crop was cut from, ``levir_cd/test_102`` for ``test_102_0512_0000``; otherwise the name itself."""
    found = _TILE.fullmatch(stem)
    return f"levir_cd/{found[1] if found else stem}"


def _find(folder: Path) -> dict[str, Path] | None:
    found = {role: next((folder / n for n in names if (folder / n).is_dir()), None) for role, names in _FOLDERS.items()}
    return {role: path for role, path in found.items() if path is not None} if all(found.values()) else None


def _files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            if path.stem in files:
                raise InputError(
                    f"{folder} holds {files[path.stem].name} and {path.name}; names must differ in more than the suffix"
                )
            files[path.stem] = path
    return files


def _in_order(stem: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", stem)]


def _listed(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {file} cannot be read: {error}") from error
    return [Path(line.split()[0]).stem for line in lines if line.strip()]


def _part(
    source: Path, folders: dict[str, Path], split: str | None, names: list[str] | None
) -> Iterator[dict[str, Any]]:
    files = {role: _files(folder) for role, folder in folders.items()}
    if names is None:
        stems = sorted(set().union(*files.values()), key=_in_order)
    else:
        stems = names
    for stem in stems:
        for role, folder in folders.items():
            if stem not in files[role]:
                raise InputError(
                    f"{folder} lacks an image named {stem}; {', '.join(p.name for p in folders.values())} must match"
                )
        # Numbered files may repeat from split to split, and are then different places.
        name = stem if split is None or stem.startswith(f"{split}_") else f"{split}/{stem}"
        before, after, label = (
            files[role][stem].relative_to(source).as_posix() for role in ("before", "after", "label")
        )
        yield {
            "id": f"levir_cd/{name}",
            "task": "change_mask",
            "scene": scene_of(stem) if _TILE.fullmatch(stem) else f"levir_cd/{name}",
            "images": [before, after],
            "prompt": PROMPT,
            "reference": {"mask": label},
            "metadata": {"dataset": "levir_cd", "gsd_m": 0.5, **({"split": split} if split else {})},
        }


def _parts(source: Path, split: str | None) -> Iterator[dict[str, Any]]:
    below = {name: folders for name in SPLITS if (folders := _find(source / name)) is not None}
    if split is not None and split not in below and (folders := _find(source / split)) is not None:
        below[split] = folders
    if below:
        if split is not None and split not in below:
            raise InputError(f"{source} holds the splits {', '.join(below)}, not {split!r}")
        for name, folders in below.items():
            if split in (None, name):
                yield from _part(source, folders, name, None)
        return
    own = _find(source)
    if own is None:
        raise InputError(
            f"{source} should hold folders A, B and label, or train, val and test with these folders in them"
        )
    if split is None:
        yield from _part(source, own, None, None)
        return
    lists = [file for file in (source / "list" / f"{split}.txt", source / f"{split}.txt") if file.is_file()]
    if lists:
        yield from _part(source, own, split, _listed(lists[0]))
        return
    named = sorted((stem for stem in _files(own["before"]) if stem.startswith(f"{split}_")), key=_in_order)
    if not named:
        raise InputError(
            f"{source} has no list/{split}.txt and no image named {split}_*; leave --split out to convert all"
        )
    yield from _part(source, own, split, named)


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write change-mask samples. See :class:`rsw_rewards.data.adapter.Adapter`.

    Without ``split`` everything found is written. A split is a folder, a list file ``list/<split>.txt``, or the prefix of
    the file names. The folders may also be called t1, t2, mask or im1, im2, gt.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source} is not a folder; give the one that holds A, B and label")
    records = _parts(source, split)
    taken = (record for record, _ in zip(records, range(limit), strict=False)) if limit is not None else records
    count, file = write_samples(Path(out), taken, f"the folders in {source} hold no images")
    return Conversion(count, file, [source])
