"""Adapter ``whu-cd``: tiles of the WHU building change data set (doi 10.1109/TGRS.2018.2858817, gpcv.whu.edu.cn/data).

Expected: folders ``A``, ``B`` and ``label`` with equal file names, with ``list/<split>.txt`` beside them or in ``train``, ``val``
and ``test``, as the tilings in use have them (github.com/wgcban/ChangeFormer, README). The authors publish one pair of rasters
of 32,507 x 15,354 pixels, which must be tiled first.
"""

from __future__ import annotations

from pathlib import Path

from rsw_rewards.data import mask_pairs
from rsw_rewards.data.adapter import Conversion

WHU_CD = mask_pairs.MaskPairs(
    name="whu_cd",
    folders=(("A", "before"), ("B", "after"), ("label", "change_label", "change label")),
    metadata={"gsd_m": 0.2},
    hint="; the published pair of whole rasters must be cut into tiles first, for instance with raster-pairs",
)
ONE_PLACE = (
    "all tiles are cut from one area and their names do not tell which of them are neighbours: intervals take every tile for "
    "a place of its own and come out too narrow"
)


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write change-mask samples. See :func:`rsw_rewards.data.mask_pairs.convert`."""
    return mask_pairs.convert(WHU_CD, source, out, split, limit, ONE_PLACE)
