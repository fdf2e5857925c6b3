"""Change masks of S2Looking, WHU-CD, CLCD, SYSU-CD, DSIFN and JL1-CD, and BRIGHT's damage maps.

Read in github.com/likyoo/open-cd@790a197 ``opencd/datasets`` (folders, and how masks are made binary), github.com/liumency/{CropLand-CD@e4e3a68,SYSU-CD@eefed36} ``README.md``, github.com/Bobholamovic/CDLab@732b67c
``src/data/sysucd.py:26-34`` and
github.com/ChenHongruixuan/BRIGHT@15ffc77 ``bda_benchmark/dataset/make_data_loader.py:50-53`` with its lists ``splitname/standard_ML/*_set.txt``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    ImageFolder,
    data_folder,
    find_file,
    find_folder,
    inside,
    needed,
    plain_name,
    read_list,
)
from rsw_rewards.data.mask_pairs import MaskPairs
from rsw_rewards.data.mask_pairs import convert as convert_pairs
from rsw_rewards.errors import InputError

_TIMES = (("time1", "A", "t1"), ("time2", "B", "t2"), ("label", "mask"))
S2LOOKING = MaskPairs(name="s2looking", folders=(("Image1", "A"), ("Image2", "B"), ("label",)))
"""S2Looking (arXiv 2107.09244, github.com/S2Looking/Dataset), changes of buildings seen from the side.

``label`` marks every change; the authors' ``label1`` (built) and ``label2`` (demolished) are not read. Image1 counts as the earlier one,
as in open-cd's ``s2looking.py``.
"""
WHU_CD = MaskPairs(
    name="whu_cd",
    folders=(("A", "before"), ("B", "after"), ("label", "change_label", "change label")),
    metadata={"gsd_m": 0.2},
    hint="; the published pair of whole rasters must be cut into tiles first, for instance with raster-pairs",
)
"""Tiles of the WHU building change data set (doi 10.1109/TGRS.2018.2858817, gpcv.whu.edu.cn/data).

They are laid out as the tilings in use have them (github.com/wgcban/ChangeFormer, README). The authors publish one pair of rasters of
32,507 x 15,354 pixels.
"""
CLCD = MaskPairs(name="clcd", folders=_TIMES)
SYSU = MaskPairs(name="sysu_cd", folders=_TIMES, metadata={"gsd_m": 0.5})
DSIFN = MaskPairs(name="dsifn_cd", folders=(("t1",), ("t2",), ("mask", "mask_256")), mask={"threshold": 0})


def _pairs(kind: MaskPairs, title: str, note: str = "") -> Callable[..., Conversion]:
    def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
        return convert_pairs(kind, source, out, split, limit, note)

    convert.__name__ = kind.name  # with the first paragraph below, what the list of adapters shows
    convert.__doc__ = f"Write the change masks of {title}.\n\nSee :func:`rsw_rewards.data.mask_pairs.convert`."
    return convert


ONE_PLACE = (
    "all tiles are cut from one area and their names do not tell which of them are neighbours: intervals take every tile for "
    "a place of its own and come out too narrow"
)
s2looking = _pairs(S2LOOKING, "S2Looking (arXiv 2107.09244): changes of buildings seen from the side")
whu_cd = _pairs(WHU_CD, "the WHU building change data set (doi 10.1109/TGRS.2018.2858817), cut into tiles", ONE_PLACE)
clcd = _pairs(CLCD, "CLCD")
sysu_cd = _pairs(SYSU, "SYSU-CD")
dsifn = _pairs(DSIFN, "DSIFN", "masks hold 0 and 1, and every value over 0 is read as changed")

DAMAGE = ("background", "intact", "damaged", "destroyed")
_EVENT = re.compile(r"(.+)_\d+")


def _bright(folders: dict[str, ImageFolder], names: list[str], split: str | None) -> Iterator[dict[str, Any]]:
    for name in names:
        event = _EVENT.fullmatch(name)
        yield {
            "id": f"bright/{split}/{name}" if split else f"bright/{name}",
            "task": "change_mask",
            "scene": f"bright/{name}",
            "kind": event[1] if event else None,
            "images": [
                {"path": folders["pre-event"][f"{name}_pre_disaster.tif"], "bands": [0, 1, 2]},
                folders["post-event"][f"{name}_post_disaster.tif"],
            ],
            "prompt": "Map the buildings after the disaster as intact, damaged or destroyed.",
            "reference": {"mask": folders["target"][f"{name}_building_damage.tif"], "classes": list(DAMAGE)},
            "metadata": {"dataset": "bright", **({"split": split} if split else {})},
        }


def bright(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write BRIGHT's damage maps (arXiv 2501.06019): an optical image before, a radar image after, four classes.

    Folders ``pre-event``, ``post-event`` and ``target`` hold ``<event>_<number>_{pre_disaster,post_disaster,building_damage}.tif``. A ``split`` is a list
    ``<split>_set.txt`` in the source, as the repository has them for several settings; without one all that ``target`` holds is written.
    """
    source = data_folder(source, "pre-event, post-event and target")
    found = {name: find_folder(source, name) for name in ("pre-event", "post-event", "target")}
    if lacking := [name for name, place in found.items() if place is None]:
        raise InputError(f"{source} should hold pre-event, post-event and target; {' and '.join(lacking)} is not there")
    folders = {name: ImageFolder(place, source) for name, place in found.items() if place is not None}
    if split is None:
        names = [stem.removesuffix("_building_damage") for stem in folders["target"].stems]
    else:
        name = f"{plain_name(split, '--split')}_set.txt"
        file = needed(
            find_file(source / name),
            f"{source} has no {name}; copy a list of the repository's bda_benchmark/dataset/splitname there",
        )
        names = [plain_name(line, str(file)) for line in read_list(inside(file, source)).split()]
    return conversion(out, _bright(folders, names, split), limit, f"{source} holds no target", [source])
