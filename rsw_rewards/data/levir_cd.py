"""Adapter ``levir-cd``: LEVIR-CD and LEVIR-CD+ (doi 10.3390/rs12101662), and data sets in their layout: A, B, label with equal file names.

The folders lie in the source itself, optionally with ``list/<split>.txt``, or in ``train``, ``val`` and ``test`` below it.

Both sets call their tiles ``train_7`` or ``test_102``, but a number is another place in each. LEVIR-CD has 445, 64 and 128 tiles for
training, validation and test; LEVIR-CD+ has 637 and 348 and no ``val``, so larger numbers tell it. Any other name is another data
set, which must be named: ids, scenes and the published tables beside a run depend on it.
"""

from __future__ import annotations

import re
from pathlib import Path

from rsw_rewards.data import mask_pairs
from rsw_rewards.data.adapter import Conversion
from rsw_rewards.data.layout import data_folder, image_folders, split_folders
from rsw_rewards.errors import ConfigError, InputError

TILES = {"train": 445, "val": 64, "test": 128}
"""How many tiles LEVIR-CD has in each split; they are numbered from 1."""

FOLDERS = (("A", "t1", "im1"), ("B", "t2", "im2"), ("label", "mask", "gt"))

# test_102_0512_0000 (row and column) and test_102_7 (number of the crop) are both cut from the 1024-pixel tile test_102.
_TILE = re.compile(r"((train|val|test)_(\d+))(?:_\d+)*")
_DATASET = re.compile(r"[a-z0-9_]+")


def tile_of(stem: str) -> str | None:
    """The tile that a crop was cut from, ``test_102`` for ``test_102_0512_0000``; None for a name of another form."""
    found = _TILE.fullmatch(stem)
    return found[1] if found else None


def _named(source: Path, split: str | None) -> str:
    """``levir_cd`` or ``levir_cd_plus``, as the names of the images tell. Raises :class:`InputError` where they are neither's."""
    found = [image_folders(place, source, FOLDERS) for place in (source, *split_folders(source, split).values())]
    stems = [stem for folders in found if folders is not None for stem in folders[0].stems]
    tiles = [_TILE.fullmatch(stem) for stem in stems]
    if None in tiles:
        raise InputError(
            f"{source} holds an image {stems[tiles.index(None)]}, and LEVIR-CD calls none so; name the data set: --set dataset=dsifn_cd, or a name of your own"
        )
    larger = any(int(tile[3]) > TILES[tile[2]] for tile in tiles if tile is not None)
    return "levir_cd_plus" if larger else "levir_cd"


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, dataset: str | None = None
) -> Conversion:
    """Write change-mask samples. See :func:`rsw_rewards.data.mask_pairs.convert`.

    The folders may also be called t1, t2, mask or im1, im2, gt.

    Args:
        source, out, split, limit: as there.
        dataset: the first part of ids and scenes, in small letters; default: ``levir_cd`` or ``levir_cd_plus``, by the images' names.

    Raises:
        ConfigError: a ``dataset`` of other signs.
    """
    if dataset is not None and not (isinstance(dataset, str) and _DATASET.fullmatch(dataset)):
        raise ConfigError(f"'dataset' is a name of small letters, digits and underscores, not {dataset!r}")
    source = data_folder(source, "A, B and label", split)
    name = dataset or _named(source, split)
    known = name in ("levir_cd", "levir_cd_plus")
    kind = mask_pairs.MaskPairs(
        name=name, folders=FOLDERS, tile=tile_of if known else None, metadata={"gsd_m": 0.5} if known else {}
    )
    return mask_pairs.convert(kind, source, out, split, limit)


def levir_cd_plus(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write LEVIR-CD+ (``train`` and ``test`` with ``A``, ``B``, ``label``), whatever its images are called. See :func:`convert`.

    Read in github.com/torchgeo/torchgeo@65507dc ``torchgeo/datasets/levircd.py:306-358``.
    """
    return convert(source, out, split=split, limit=limit, dataset="levir_cd_plus")
