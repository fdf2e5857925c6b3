"""Adapter ``qag-360k``: QAG-360K (arXiv 2410.23828, github.com/like413/VisTA), questions about change with answer and evidence mask.

Expected, as VisTA's own code reads it (VisTA/dataset/DataNew.py, train.py, test.py): a folder per split with
``json/<Split>.json``, ``image/im1``, ``image/im2`` and ``mask/<id>.png``; the source is the folder above them or one of them. The
JSON file is an object with the list ``question`` of ``{id, img_id, question, type, answer}``; ``img_id`` is a file name.

The pictures come from SECOND, Hi-UCD and LEVIR-CD. Those called by five digits are taken for SECOND's, whose names they keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data import cdvqa
from rsw_rewards.data.adapter import Conversion, conversion, unknown_kinds
from rsw_rewards.data.layout import (
    SPLITS,
    ImageFolder,
    choose_splits,
    data_folder,
    find_entry,
    find_folder,
    image_folders,
    needed,
    plain_name,
    read_entries,
)
from rsw_rewards.data.second import scene_of
from rsw_rewards.errors import InputError

VOCABULARY = (*cdvqa.VOCABULARY, "green_house", "road", "bridge", "others")
"""The 23 answers: CDVQA's, and four classes more (``w2v_dict`` of VisTA/dataset/DataNew.py)."""

KINDS = (*cdvqa.KINDS, "change_from_what")
"""Question types. VisTA's test.py counts ``change_ratio_types`` as ``change_ratio``; here both keep their names."""

_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "id": (int, str),
    "img_id": str,
    "question": str,
    "type": str,
    "answer": (str, int),
}


def _questions_file(folder: Path, split: str | None) -> Path | None:
    """``json/<Split>.json``; where the split is not known, the only JSON file there."""
    jsons = find_folder(folder, "json")
    if jsons is None:
        return None
    if split is not None and (named := find_entry(jsons, f"{split}.json")) is not None:
        return named
    files = sorted(jsons.glob("*.json"))
    return files[0] if len(files) == 1 else None


def _parts(source: Path, split: str | None) -> dict[str, tuple[Path, Path]]:
    """Split -> its folder and its questions file."""
    places = {name: folder for name in SPLITS if (folder := find_folder(source, name)) is not None}
    files = {name: file for name, folder in places.items() if (file := _questions_file(folder, name)) is not None}
    if files:
        return {name: (places[name], files[name]) for name in choose_splits(files, split, source)}
    own = needed(
        _questions_file(source, split),
        f"{source} should hold json/<Split>.json, image and mask, or train, val and test with these",
    )
    if split is not None and own.stem.casefold() != split.casefold():
        raise InputError(f"{source} holds {own.name}, not the split {split!r}")
    return {own.stem.lower(): (source, own)}


def _samples(source: Path, split: str, folder: Path, file: Path, kinds: Counter[str]) -> Iterator[dict[str, Any]]:
    images = image_folders(find_folder(folder, "image", "images") or folder, source, (("im1",), ("im2",)))
    masks = find_folder(folder, "mask", "masks")
    if images is None or masks is None:
        raise InputError(f"{folder} should hold image/im1, image/im2 and mask beside json")
    evidence = ImageFolder(masks, source)
    seen: set[str] = set()
    for _, where, record in read_entries(file, source, "question"):
        for field, kind in _FIELDS.items():
            if not isinstance(record.get(field), kind) or isinstance(record[field], bool):
                raise InputError(f"{where} lacks {field!r} or has it of another type")
        own, name, answer = str(record["id"]), record["img_id"], str(record["answer"])
        if own in seen:
            raise InputError(f"{where} repeats the id {own}")
        seen.add(own)
        if answer not in VOCABULARY:
            raise InputError(f"{where} has the answer {answer!r}, which is not among QAG-360K's {len(VOCABULARY)}")
        pair = [dates[plain_name(name, where)] for dates in images]
        kinds[record["type"]] += 1
        yield {
            "id": f"qag_360k/{split}/{own}",
            "task": "change_qa",
            "scene": scene_of(Path(name).stem, "qag_360k"),
            "kind": record["type"],
            "images": pair,
            "prompt": record["question"],
            "reference": {
                "answers": [answer],
                "vocabulary": list(VOCABULARY),
                "mask": evidence[plain_name(f"{own}.png", where)],
            },
            "metadata": {"dataset": "qag_360k", "split": split},
        }


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write the questions of one split, or of all. See :class:`rsw_rewards.data.adapter.Adapter`.

    ``reference.mask`` is the evidence: over 127 where the pixels lie that the answer speaks of.
    """
    source = data_folder(source, "train, val and test of QAG-360K")
    kinds = Counter[str]()
    parts = _parts(source, split)
    records = (record for name, place in parts.items() for record in _samples(source, name, *place, kinds))
    what = f"the files json/*.json in {source} hold no question"
    return conversion(out, records, limit, what, [source], unknown_kinds(kinds, KINDS, "QAG-360K"))
