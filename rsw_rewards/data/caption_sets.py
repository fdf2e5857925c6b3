"""Change captions with files of their own: CDChat's captions of SYSU-CD, and Forest-Change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import PROMPT, Reading, read_captioned, without_stops
from rsw_rewards.data.layout import (
    ImageFolder,
    check_choice,
    data_folder,
    find_file,
    find_folder,
    image_folders,
    images_named,
    is_texts,
    needed,
    plain_name,
    read_entries,
)
from rsw_rewards.data.levir_cc import NO_IMAGERY, SCENES, caption_samples
from rsw_rewards.data.mask_pairs import MaskPairs
from rsw_rewards.data.mask_pairs import convert as convert_pairs
from rsw_rewards.errors import InputError

_DATES = (("A", "time1"), ("B", "time2"))


def _cdchat(file: Path, source: Path, folders: list[ImageFolder] | None) -> Iterator[dict[str, Any]]:
    for _, where, record in read_entries(file, source, "images"):
        name, captions = plain_name(record.get("file_name"), where), record.get("captions")
        if not is_texts(captions) or not all(one.strip() for one in captions):
            raise InputError(f"{where} ({name}) has no list 'captions' of texts")
        stem = Path(name).stem
        changed = record.get("ischange") not in (0, False)
        yield {
            "id": f"cdchat_sysu/{stem}",
            "task": "change_caption",
            "scene": f"sysu_cd/test/{stem.removeprefix('sysu_test_')}",
            "kind": "changed" if changed else "unchanged",
            "images": images_named(name, folders, ("A", "B")),
            "prompt": PROMPT,
            "reference": {"captions": [one.strip() for one in captions], "changed": changed},
            "metadata": {"dataset": "cdchat_sysu", "split": str(record.get("folder_name", "test")), "gsd_m": 0.5},
        }


def cdchat_sysu(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write CDChat's captions of SYSU-CD's changed test pairs (arXiv 2409.16261), one sentence each.

    Read in github.com/techmn/cdchat@211fb8c ``data_files/sysu_test_captions.json`` (the file itself) and ``cdchat/eval/batch_cdchat_vqa.py:61-85``: ``A`` and ``B`` of an image
    folder, there or in ``test``, with ``sysu_test_00000.png``.
    """
    source = data_folder(source, "sysu_test_captions.json")
    if split not in (None, "test"):
        raise InputError(f"CDChat's captions of SYSU-CD are of 'test' alone, not of {split!r}")
    file = needed(find_file(source / "sysu_test_captions.json"), f"{source} has no sysu_test_captions.json")
    test = find_folder(source, "test")
    folders = image_folders(source, source, _DATES) or (image_folders(test, source, _DATES) if test else None)
    notes = [SCENES, "" if folders else NO_IMAGERY.format(source)]
    return conversion(out, _cdchat(file, source, folders), limit, f"{file} has no entry", [source], notes)


def _with_numbers(raw: str) -> str:
    """The words of a caption in small letters; numbers keep their point, other words lose ``?`` and ``.``.

    >>> _with_numbers("1.22 percent of the Area, mainly left.")
    '1.22 percent of the area , mainly left'
    """
    words = (word if word.replace(".", "", 1).isdigit() else without_stops(word) for word in raw.lower().split())
    return " ".join(word for word in words if word)


FOREST = MaskPairs(name="forest_change", folders=(("A",), ("B",), ("label",)), mask={"threshold": 0})
FOREST_READING = Reading("raw", _with_numbers)


def forest_change(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, task: str = "mask"
) -> Conversion:
    """Write Forest-Change: masks of forest loss, or their captions. See :class:`rsw_rewards.data.adapter.Adapter`.

    Read in github.com/JamesBrockUoB/ForestChat@0ada20c ``Multi_change/data/ForestChange.py`` (``images/<split>/{A,B,label}``; a label over 0 is a change), @38a6fab
    ``Multi_change/preprocess_data.py`` (how captions are read) and @2b5b1e0 ``Multi_change/data/Forest-Change-dataset/ForestChatcaptions.json`` (the file itself).

    Args:
        source, out, split, limit: as there.
        task: ``"mask"`` or ``"caption"``.

    Raises:
        ConfigError: another ``task``.
    """
    check_choice(task, ("mask", "caption"), "the task of forest-change")
    source = data_folder(source, "images and ForestChatcaptions.json")
    images = find_folder(source, "images")
    if task == "mask":
        return convert_pairs(FOREST, images or source, out, split, limit)
    file = needed(
        find_file(source / "ForestChatcaptions.json"),
        f"{source} has no ForestChatcaptions.json; it should lie beside the folder images",
    )
    entries = read_captioned(file, source, split, FOREST_READING)
    folders = {
        part: None if images is None else image_folders(find_folder(images, part) or images / part, source, _DATES)
        for part in dict.fromkeys(entry.split for entry in entries)
    }

    def pairs(part: str, name: str) -> list[str]:
        return images_named(name, folders[part], [f"images/{part}/{date}" for date in "AB"])

    records = caption_samples(entries, pairs, "forest_change", "forest_change", FOREST_READING)
    notes = [SCENES, "" if images else NO_IMAGERY.format(source)]
    return conversion(out, records, limit, f"{file} has no entry", [source], notes)
