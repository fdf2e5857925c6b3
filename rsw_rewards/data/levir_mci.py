"""Adapter ``levir-mci``: LEVIR-MCI (arXiv 2403.19646, github.com/Chen-Yang-Liu/Change-Agent), LEVIR-CC's pairs with maps of change.

Expected, as the README of Change-Agent has it: ``images/<split>/A``, ``B`` and ``label``, and ``LevirCCcaptions.json`` beside
``images`` (for captions only). ``label_rgb``, the same maps in colours, is not read.

The label files hold the grey values 0, 128 (road) and 255 (building), in three equal bands; ``__getitem__`` of
Multi_change/data/LEVIR_MCI.py gives them the indices 0, 1 and 2. Scenes are those of ``levir-cc``, whose images these are.
References are ``raw`` without ``?`` and ``.``, as Multi_change/preprocess_data.py reads them; the first of them says whether a pair
changed, as in Multi_change/test.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import CHANGE_AGENT
from rsw_rewards.data.layout import SPLITS, ImageFolder, check_choice, choose_parts, data_folder, image_folders
from rsw_rewards.data.levir_cc import GSD_M, SCENES, convert_captions, scene_of, split_folder

CLASSES = ("background", "road", "building")
TILES = {"train": 6_815, "val": 1_333, "test": 1_929}
"""How many tiles the authors' lists name in each split; their numbers have gaps, and tables are made on these alone."""
LEVELS = (0, 128, 255)
"""What the label files hold for each class."""

PROMPT = "Mark which roads and buildings changed between the two images: 0 for no change, 1 for road, 2 for building."

_FOLDERS = (("A",), ("B",), ("label",))


def _masks(split: str, folders: list[ImageFolder]) -> Iterator[dict[str, Any]]:
    before, after, label = folders
    for stem in label.stems:
        own = stem if stem.startswith(f"{split}_") else f"{split}/{stem}"
        yield {
            "id": f"levir_mci/{own}",
            "task": "change_mask",
            "scene": scene_of(own),
            "images": [before[stem], after[stem]],
            "prompt": PROMPT,
            "reference": {"mask": label[stem], "classes": list(CLASSES), "levels": list(LEVELS)},
            "metadata": {"dataset": "levir_mci", "split": split, "gsd_m": GSD_M},
        }


def _convert_masks(source: Path, out: Path, split: str | None, limit: int | None) -> Conversion:
    found = {name: image_folders(split_folder(source, name), source, _FOLDERS) for name in SPLITS}
    expected = f"images/<split>/A, B and label, with {', '.join(SPLITS)} for <split>"
    parts = choose_parts(found, split, source, expected)
    records = (record for name, folders in parts.items() for record in _masks(name, folders))
    notes = [
        f"{name} has {len(folders[2]):,} tiles with a label, where the authors' list names {TILES[name]:,}: numbers are not comparable with printed ones"
        for name, folders in parts.items()
        if len(folders[2]) != TILES[name]
    ]
    what = f"the folders label in {source} hold no images"
    return conversion(out, records, limit, what, [source], [SCENES, *notes])


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, task: str = "mask"
) -> Conversion:
    """Write the samples of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`.

    Args:
        source: the folder that holds ``images``.
        out: folder to write to.
        split: ``train``, ``val`` or ``test``.
        limit: stop after this many samples.
        task: ``"mask"`` for change masks of three classes, ``"caption"`` for change captions.

    Raises:
        ConfigError: another ``task``.
    """
    check_choice(task, ("mask", "caption"), "the task of levir-mci")
    source = data_folder(source, "images and LevirCCcaptions.json")
    if task == "caption":
        return convert_captions(source, Path(out), "levir_mci", CHANGE_AGENT, split, limit)
    return _convert_masks(source, Path(out), split, limit)
