"""RSVQA (Lobry et al., arXiv 2003.07333): Sentinel-2 patches of 256 x 256 pixels, and USGS patches of 512 x 512.

Expected in one folder, as the authors publish it (rsvqa.sylvainlobry.com) and their code reads it
(github.com/syvlo/RSVQA, ``VQA_model/train.py`` and ``VQALoader.py``): ``<any>_split_<split>_{questions,answers,images}.json``
and a folder of images called ``<image id>.tif`` beside them. Entries of other splits stand in every file as
``{"id", "active": false}`` and are skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion, unknown_kinds
from rsw_rewards.data.layout import (
    ImageFolder,
    check_fields,
    data_folder,
    find_folder,
    needed,
    only_split,
    read_entries,
)
from rsw_rewards.errors import InputError

_PARTS = ("questions", "answers", "images")
_FILE = re.compile(r"(?:.*_)?split_(\w+)_(questions|answers|images)", re.IGNORECASE)
# AutomaticDB/process.py calls a patch by the raster that it was cut from and its column and row: 692237_512-1024.tif.
_PATCH = re.compile(r"(.+)_\d+-\d+")


def find_splits(source: Path) -> dict[str, dict[str, Path]]:
    """Split (``train``, ``val``, ``test``, ``test_phili``) -> part -> file, for every split with all three files."""
    splits: dict[str, dict[str, Path]] = {}
    for file in sorted(source.glob("*.json")):
        if found := _FILE.fullmatch(file.stem):
            splits.setdefault(found[1].lower(), {})[found[2].lower()] = file
    return {split: parts for split, parts in splits.items() if len(parts) == len(_PARTS)}


def _active(file: Path, source: Path, part: str, fields: Mapping[str, type | tuple[type, ...]]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for _, where, record in read_entries(file, source, part):
        if not record.get("active", True):
            continue
        check_fields(record, {"id": int, **fields}, where)
        if record["id"] in found:
            raise InputError(f"{where} repeats the id {record['id']}")
        found[record["id"]] = record
    return found


def _scene(name: str, image: Mapping[str, Any]) -> str:
    """The raster that a patch was cut from, where the entry tells; else the image."""
    original = image.get("original_name")
    patch = _PATCH.fullmatch(Path(original).stem) if isinstance(original, str) else None
    return f"{name}/{patch[1] if patch else image['id']}"


def _answer(question: Mapping[str, Any], answers: Mapping[int, Mapping[str, Any]]) -> str:
    given = {str(answers[key]["answer"]) for key in question["answers_ids"] if key in answers}
    if len(given) != 1:
        raise InputError(f"question {question['id']} has {len(given)} different answers; RSVQA has one each")
    return given.pop()


def _samples(
    name: str, parts: Mapping[str, Path], source: Path, split: str, folder: ImageFolder | None, kinds: Counter[str]
) -> Iterator[dict[str, Any]]:
    questions = _active(
        parts["questions"], source, "questions", {"question": str, "type": str, "img_id": int, "answers_ids": list}
    )
    answers = _active(parts["answers"], source, "answers", {"answer": (str, int)})
    images = _active(parts["images"], source, "images", {})
    for key, question in questions.items():
        image = needed(
            images.get(question["img_id"]),
            f"question {key} names the image {question['img_id']}, which {parts['images']} lacks",
        )
        kinds[question["type"]] += 1
        yield {
            "id": f"{name}/{split}/{key}",
            "task": "change_qa",
            "scene": _scene(name, image),
            "kind": question["type"],
            "images": [f"{image['id']}.tif" if folder is None else folder[f"{image['id']}.tif"]],
            "prompt": question["question"],
            "reference": {"answers": [_answer(question, answers)]},
            "metadata": {"dataset": name, "split": split},
        }


def _convert(
    name: str,
    folders: tuple[str, ...],
    known: frozenset[str],
    source: Path,
    out: Path,
    split: str | None,
    limit: int | None,
) -> Conversion:
    """Write the questions of one split with their raw answers; numbers are put into ranges by the protocol, not here.

    Args:
        name: of the data set, the first part of every id.
        folders: how the folder of images may be called.
        known: question types of this variant; others are named in a note.
        source, out, split, limit: see :class:`rsw_rewards.data.adapter.Adapter`. ``split`` may be left out where there is one.
    """
    source = data_folder(source, f"{name.upper()}'s *_split_*_questions.json and its images")
    splits = find_splits(source)
    if not splits:
        raise InputError(
            f"{source} should hold *_split_<split>_questions.json with the files of _answers and _images beside it"
        )
    chosen = only_split(splits, source) if split is None else split.lower()
    if chosen not in splits:
        raise InputError(f"{source} holds the splits {', '.join(splits)}, not {split!r}")
    place = find_folder(source, *folders)
    images, kinds = None if place is None else ImageFolder(place, source), Counter[str]()
    absent = (
        f"no folder {' or '.join(folders)} in {source}: answers can be scored, but no model can be shown the images"
    )
    notes = chain([absent if images is None else ""], unknown_kinds(kinds, known, name, "; is this the other variant?"))
    records = _samples(name, splits[chosen], source, chosen, images, kinds)
    what = f"{splits[chosen]['questions']} has no active question"
    return conversion(out, records, limit, what, [source], notes)


def rsvqa_lr(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write the questions of RSVQA's low resolution variant, about Sentinel-2 patches of 256 x 256 pixels.

    The split is ``train``, ``val`` or ``test``. See :class:`rsw_rewards.data.adapter.Adapter`.
    """
    kinds = frozenset({"rural_urban", "presence", "count", "comp"})
    return _convert("rsvqa_lr", ("Images_LR", "data", "images"), kinds, source, out, split, limit)


def rsvqa_hr(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write the questions of RSVQA's high resolution variant, about USGS patches of 512 x 512 pixels.

    The split is ``train``, ``val``, ``test``, or ``test_phili``, the second test set (Philadelphia). See :class:`rsw_rewards.data.adapter.Adapter`.
    """
    kinds = frozenset({"area", "presence", "count", "comp"})
    return _convert("rsvqa_hr", ("Data", "dataUSGS", "images"), kinds, source, out, split, limit)
