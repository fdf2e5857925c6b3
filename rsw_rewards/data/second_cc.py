"""Adapter ``second-cc``: SECOND-CC (arXiv 2501.10075, zenodo.org records 16937571), change captions over 256-pixel crops of SECOND.

Expected, as createHD5files.py of ChangeCapsInRS/SecondCC reads it: ``SECOND-CC-AUG.json``, and ``<split>/rgb/A``, ``rgb/B``,
``sem/A`` and ``sem/B`` beside it. The maps are pictures in SECOND's colours (see :mod:`rsw_rewards.data.second`).

The published archive (SECOND-CC-AUG) holds 10,855 entries: the 6,041 crops and 4,814 augmented copies, which neither name nor file
marks. On copies that were brightened the colours of the maps may have changed, too; such a map is an error when it is read. Crops are called after a number of five digits,
``00001_0_0``: those with one number count as one scene. The authors do not say whether it is SECOND's own number, so these
scenes are not taken for SECOND's. References are the words of ``tokens``, as createHD5files.py reads them; the second of the captions
that it draws says whether a pair changed, as in eval_MModalCC.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import PROMPT, RSICC, Captioned, change_fields, flag_field, read_captioned
from rsw_rewards.data.layout import (
    ImageFolder,
    check_choice,
    choose_splits,
    data_folder,
    find_entry,
    image_folders,
    images_named,
    needed,
)
from rsw_rewards.data.levir_cc import NO_IMAGERY
from rsw_rewards.data.second import PROMPT as MAP_PROMPT
from rsw_rewards.data.second import in_colours, map_reference

CAPTIONS = ("SECOND-CC-AUG.json", "SECOND-CC.json")
NO_CHANGE = (
    "the scene is the same as before",
    "there is no difference",
    "the two scenes seem identical",
    "no change is occurred",
    "almost nothing is changed",
)
"""The sentences for a pair without change (eval_MModalCC.py of ChangeCapsInRS/SecondCC); two of them are not LEVIR-CC's."""
ORIGINALS = 6_041
"""Pairs without the augmented copies."""
_READING = replace(RSICC, no_change=NO_CHANGE)

_CROP = re.compile(r"([0-9]{5})_.+")


def scene_of(stem: str) -> str:
    """The picture that a crop was cut from: ``second_cc/00001`` for ``00001_0_0``; otherwise the name itself."""
    found = _CROP.fullmatch(stem)
    return f"second_cc/{found[1] if found else stem}"


def _folders(source: Path, split: str, kind: str) -> list[ImageFolder] | None:
    part = find_entry(source, split) or source / split
    return image_folders(find_entry(part, kind) or part / kind, source, (("A",), ("B",)))


def _needed(source: Path, split: str, kind: str) -> list[ImageFolder]:
    return needed(_folders(source, split, kind), f"{source} should hold {split}/{kind}/A and {split}/{kind}/B")


def _samples(source: Path, entries: list[Captioned], task: str, bare: bool) -> Iterator[dict[str, Any]]:
    splits = dict.fromkeys(entry.split for entry in entries)
    rgb = {} if bare else {split: _needed(source, split, "rgb") for split in splits}
    sem = {split: _needed(source, split, "sem") for split in splits} if task == "semantic" else {}
    coloured = {
        split: [in_colours(source, labels) for labels in folders if len(labels)] for split, folders in sem.items()
    }
    for entry in entries:
        fields: dict[str, Any] = {"task": "change_caption", "prompt": PROMPT, **change_fields(entry, _READING)}
        if task == "semantic":
            labels = [folder[entry.name] for folder in sem[entry.split]]
            fields |= {
                "task": "semantic_change",
                "prompt": MAP_PROMPT,
                "reference": map_reference(labels, coloured[entry.split]),
            }
        yield {
            "id": f"second_cc/{entry.split}/{entry.stem}",
            "scene": scene_of(entry.stem),
            "images": images_named(entry.name, rgb.get(entry.split), [f"{entry.split}/rgb/{date}" for date in "AB"]),
            **fields,
            "metadata": {"dataset": "second_cc", "split": entry.split, **flag_field(entry)},
        }


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, task: str = "caption"
) -> Conversion:
    """Write the samples of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`.

    Args:
        source: the folder that holds ``SECOND-CC-AUG.json``.
        out: folder to write to.
        split: ``train``, ``val`` or ``test``.
        limit: stop after this many samples.
        task: ``"caption"`` for change captions, ``"semantic"`` for the maps before and after.

    Raises:
        ConfigError: another ``task``.
    """
    check_choice(task, ("caption", "semantic"), "the task of second-cc")
    source = data_folder(source, f"{CAPTIONS[0]} and the folders train, val and test")
    captions = needed(
        find_entry(source, *CAPTIONS),
        f"{source} has no {CAPTIONS[0]}; it should lie beside the folders train, val and test",
    )
    entries = read_captioned(captions, source, None, _READING)
    total = len(entries)
    wanted = choose_splits(dict.fromkeys(entry.split for entry in entries), split, captions)
    entries = [entry for entry in entries if entry.split in wanted]
    bare = task == "caption" and not any(_folders(source, part, "rgb") for part in wanted)
    notes = [NO_IMAGERY.format(source)] if bare else []
    if total > ORIGINALS:
        notes.append(
            f"{captions} has {total:,} pairs, {ORIGINALS:,} of them original: the others are augmented copies, and nothing tells them apart; tables on the original pairs are not comparable"
        )
    records = _samples(source, entries, task, bare)
    return conversion(out, records, limit, f"{captions} has no entry", [source], notes)
