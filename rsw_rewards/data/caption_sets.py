"""Change captions with files of their own: CDChat's captions of SYSU-CD, and Forest-Change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, write_samples
from rsw_rewards.data.captioned import (
    PROMPT,
    Captioned,
    Reading,
    change_fields,
    flag_field,
    read_captioned,
    without_stops,
)
from rsw_rewards.data.layout import (
    ImageFolder,
    choose_splits,
    data_folder,
    find_folder,
    image_folders,
    plain_name,
    read_records,
    take,
)
from rsw_rewards.data.levir_cc import NO_IMAGERY, SCENES
from rsw_rewards.data.mask_pairs import MaskPairs
from rsw_rewards.data.mask_pairs import convert as convert_pairs
from rsw_rewards.errors import ConfigError, InputError

_DATES = (("A", "time1"), ("B", "time2"))


class _Pairs:
    """The two images of a name; expected paths where a copy has no imagery at all."""

    def __init__(self, folders: list[ImageFolder] | None, prefix: str) -> None:
        self.folders, self.prefix = folders, prefix

    def __call__(self, name: str) -> list[str]:
        if self.folders is None:
            return [f"{self.prefix}{names[0]}/{name}" for names in _DATES]
        return [folder[name] for folder in self.folders]


def _cdchat(file: Path, source: Path, pairs: _Pairs) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(read_records(file, source, "images")):
        where = f"{file}: entry {number} of 'images'"
        name, captions = plain_name(record.get("file_name"), where), record.get("captions")
        if (
            not isinstance(captions, list)
            or not captions
            or not all(isinstance(one, str) and one.strip() for one in captions)
        ):
            raise InputError(f"{where} ({name}) has no list 'captions' of texts")
        stem = Path(name).stem
        changed = record.get("ischange") not in (0, False)
        yield {
            "id": f"cdchat_sysu/{stem}",
            "task": "change_caption",
            "scene": f"sysu_cd/test/{stem.removeprefix('sysu_test_')}",
            "kind": "changed" if changed else "unchanged",
            "images": pairs(name),
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
    file = source / "sysu_test_captions.json"
    if not file.is_file():
        raise InputError(f"{source} has no {file.name}")
    test = find_folder(source, "test")
    folders = image_folders(source, source, _DATES) or (image_folders(test, source, _DATES) if test else None)
    count, written = write_samples(
        Path(out), take(_cdchat(file, source, _Pairs(folders, "")), limit), f"{file} has no entry"
    )
    return Conversion(count, written, [source], [SCENES, *([] if folders else [NO_IMAGERY.format(source)])])


def _with_numbers(raw: str) -> str:
    """The words of a caption in small letters; numbers keep their point, other words lose ``?`` and ``.``.

    >>> _with_numbers("1.22 percent of the Area, mainly left.")
    '1.22 percent of the area , mainly left'
    """
    words = (word if word.replace(".", "", 1).isdigit() else without_stops(word) for word in raw.lower().split())
    return " ".join(word for word in words if word)


FOREST = MaskPairs(name="forest_change", folders=(("A",), ("B",), ("label",)), mask={"threshold": 0})
FOREST_READING = Reading("raw", _with_numbers)


def _forest(source: Path, entries: list[Captioned], images: Path | None) -> Iterator[dict[str, Any]]:
    folders = {
        split: None if images is None else image_folders(find_folder(images, split) or images / split, source, _DATES)
        for split in dict.fromkeys(entry.split for entry in entries)
    }
    for entry in entries:
        own = entry.stem if entry.stem.startswith(f"{entry.split}_") else f"{entry.split}/{entry.stem}"
        yield {
            "id": f"forest_change/{own}",
            "task": "change_caption",
            "scene": f"forest_change/{own}",
            "images": _Pairs(folders[entry.split], f"images/{entry.split}/")(entry.name),
            "prompt": PROMPT,
            **change_fields(entry, FOREST_READING),
            "metadata": {"dataset": "forest_change", "split": entry.split, **flag_field(entry)},
        }


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
    if task not in ("mask", "caption"):
        raise ConfigError(f"the task of forest-change is 'mask' or 'caption', not {task!r}")
    source = data_folder(source, "images and ForestChatcaptions.json")
    images = find_folder(source, "images")
    if task == "mask":
        return convert_pairs(FOREST, images or source, out, split, limit)
    file = source / "ForestChatcaptions.json"
    if not file.is_file():
        raise InputError(f"{source} has no {file.name}; it should lie beside the folder images")
    entries = read_captioned(file, source, None, FOREST_READING)
    wanted = choose_splits(dict.fromkeys(entry.split for entry in entries), split, file)
    chosen = [entry for entry in entries if entry.split in wanted]
    count, written = write_samples(Path(out), take(_forest(source, chosen, images), limit), f"{file} has no entry")
    return Conversion(count, written, [source], [SCENES, *([] if images else [NO_IMAGERY.format(source)])])
