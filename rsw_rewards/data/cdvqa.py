"""Adapter ``cdvqa``: the official JSON files of CDVQA (github.com/YZHJessica/CDVQA) over the image pairs of SECOND.

Expected in one folder: ``<Split>_questions.json``, ``<Split>_answers.json`` and ``<Split>_images.json`` (Train, Val, Test, Test2;
a prefix such as ``CDVQA_`` is fine), and SECOND's ``im1`` and ``im2`` beside them or one folder further down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion, unknown_kinds
from rsw_rewards.data.bins import RATIO_BINS
from rsw_rewards.data.layout import (
    check_fields,
    data_folder,
    image_folders,
    needed,
    only_split,
    plain_name,
    read_entries,
)
from rsw_rewards.errors import InputError

KINDS = (
    "change_or_not",
    "increase_or_not",
    "decrease_or_not",
    "largest_change",
    "smallest_change",
    "change_ratio",
    "change_ratio_types",
    "change_to_what",
)
"""The eight question types."""

CLASSES = ("NVG_surface", "buildings", "low_vegetation", "trees", "water", "playgrounds")
VOCABULARY = ("yes", "no", *CLASSES, *RATIO_BINS)
"""The 19 answers."""

_PARTS = ("questions", "answers", "images")


def find_splits(source: Path) -> dict[str, dict[str, Path]]:
    """Lower-case split name -> part (questions, answers, images) -> file, for every split with a questions file."""
    splits: dict[str, dict[str, Path]] = {}
    for part in _PARTS:
        for file in sorted(source.glob("*.json")):
            stem = file.stem.lower()
            if stem.endswith(f"_{part}"):
                split = stem.removesuffix(f"_{part}").rpartition("_")[2]
                splits.setdefault(split, {})[part] = file
    return {split: parts for split, parts in splits.items() if "questions" in parts}


def _choose(source: Path, split: str | None) -> tuple[str, dict[str, Path]]:
    splits = find_splits(source)
    if not splits:
        raise InputError(
            f"{source} has no *_questions.json; it should hold CDVQA's JSON files, such as Val_questions.json"
        )
    chosen = only_split(splits, source) if split is None else split.lower()
    if chosen not in splits:
        raise InputError(f"{source} holds no {split}_questions.json, only the splits {', '.join(splits)}")
    for part in _PARTS:
        if part not in splits[chosen]:
            raise InputError(f"{source} lacks the file *{chosen}_{part}.json beside {splits[chosen]['questions'].name}")
    return chosen, splits[chosen]


def _records(
    file: Path, source: Path, part: str, fields: Mapping[str, type | tuple[type, ...]]
) -> dict[Any, dict[str, Any]]:
    """Active records of a file by id. Raises :class:`InputError` for anything that is not the official layout."""
    found: dict[Any, dict[str, Any]] = {}
    for _, where, record in read_entries(file, source, part):
        if not isinstance(record.get("id"), int):
            raise InputError(f"{where} has no whole number 'id'")
        if not record.get("active", True):
            continue
        check_fields(record, fields, f"{where} (id {record['id']})")
        if record["id"] in found:
            raise InputError(f"{where} repeats the id {record['id']}")
        found[record["id"]] = record
    return found


class _Pairs:
    """Where the two images of a file name are, relative to the source."""

    def __init__(self, source: Path) -> None:
        self.source = source
        parents = [source, *sorted(folder for folder in source.iterdir() if folder.is_dir())]
        found = (image_folders(parent, source, (("im1",), ("im2",))) for parent in parents)
        self.folders = [folders for folders in found if folders is not None]

    def __getitem__(self, name: str) -> list[str]:
        plain_name(name, "the images file")
        if not self.folders:
            return [f"im1/{name}", f"im2/{name}"]
        for folders in self.folders:
            paths = [path for folder in folders if (path := folder.get(name)) is not None]
            if len(paths) == len(folders):
                return paths
        where = ", ".join(str(folders[0].folder.parent) for folders in self.folders)
        raise InputError(f"the image {name} was expected in im1 and im2 of {where}")


def _answer(
    question: Mapping[str, Any], answers: Mapping[Any, Mapping[str, Any]], by_question: Mapping[Any, str]
) -> str:
    given = {answers[key]["answer"] for key in question.get("answers_ids") or () if key in answers}
    if not given and question["id"] in by_question:
        given = {by_question[question["id"]]}
    if len(given) != 1:
        raise InputError(f"question {question['id']} has {len(given)} different answers; CDVQA has one each")
    answer = str(given.pop())
    if answer not in VOCABULARY:
        raise InputError(
            f"question {question['id']} has the answer {answer!r}, which is not among CDVQA's {len(VOCABULARY)}"
        )
    return answer


def _samples(parts: Mapping[str, Path], split: str, pairs: _Pairs, kinds: Counter[str]) -> Iterator[dict[str, Any]]:
    questions = _records(parts["questions"], pairs.source, "questions", {"question": str, "type": str, "img_id": int})
    answers = _records(parts["answers"], pairs.source, "answers", {"answer": (str, int), "question_id": int})
    images = _records(parts["images"], pairs.source, "images", {"file_name": str})
    by_question = {record["question_id"]: record["answer"] for record in answers.values()}
    for key, question in questions.items():
        image = needed(
            images.get(question["img_id"]),
            f"question {key} names the image {question['img_id']}, which {parts['images']} does not have",
        )
        kinds[question["type"]] += 1
        yield {
            "id": f"cdvqa/{split}/{key}",
            "task": "change_qa",
            "scene": f"second/{Path(image['file_name']).stem}",
            "kind": question["type"],
            "images": pairs[image["file_name"]],
            "prompt": question["question"],
            "reference": {"answers": [_answer(question, answers, by_question)], "vocabulary": list(VOCABULARY)},
            "metadata": {"dataset": "cdvqa", "split": split},
        }


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write the questions of one split of CDVQA. See :class:`rsw_rewards.data.adapter.Adapter`.

    ``split`` (``val``, ``test2``; case does not matter) may be left out where there is only one. Without SECOND's folders the
    questions are written all the same, so that answers made elsewhere can be scored; a note says so.
    """
    source = data_folder(source, "CDVQA's JSON files")
    chosen, parts = _choose(source, split)
    pairs, kinds = _Pairs(source), Counter[str]()
    absent = f"no folders im1 and im2 in {source}: answers can be scored, but no model can be shown the images"
    notes = chain(["" if pairs.folders else absent], unknown_kinds(kinds, KINDS, "CDVQA"))
    what = f"{parts['questions']} has no active question"
    return conversion(out, _samples(parts, chosen, pairs, kinds), limit, what, [source], notes)
