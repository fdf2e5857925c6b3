"""Benchmarks of questions that are lists of records: CHOICE, GEOBench-VLM, LRS-VQA, EarthVQA, RSVLM-QA.

Each was read where its function says. Prompts are the questions with their options; the authors' own wording around them is not copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    choose_parts,
    choose_splits,
    data_folder,
    find_file,
    find_folder,
    inside,
    is_texts,
    needed,
    only_split,
    plain_name,
    read_entries,
    read_json,
    text_in,
)
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.io.images import read_size
from rsw_rewards.io.text_files import read_records

_OPTION = re.compile(r"\n([A-Z])\.")


def _path(value: Any, source: Path, where: str) -> str:
    """A path of a record, relative to the source; with or without the folder that archives were packed in."""
    named = PurePosixPath(value.replace("\\", "/")) if isinstance(value, str) and "\0" not in value else None
    if named is None or not named.name or named.is_absolute() or ".." in named.parts:
        raise InputError(f"{where} is {value!r:.80}, not a path inside the data set")
    for tail in (named, PurePosixPath(*named.parts[1:]) if len(named.parts) > 1 else named):
        if (source / tail).is_file():
            return inside(source / tail, source).relative_to(source).as_posix()
    return named.as_posix()


def _listed(value: Any, where: str) -> list[Any]:
    """The images of a record, which names one or has a list of them. Raises :class:`InputError` for an empty list."""
    if value == []:
        raise InputError(f"{where}: 'image_path' is an empty list")
    return value if isinstance(value, list) else [value]


def _lines(file: Path, source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects in the lines of a file, each with the words that say where it stands. Raises :class:`InputError`."""
    for where, record in read_records(inside(file, source)):
        if not isinstance(record, Mapping):
            raise InputError(f"{where} is no object")
        yield where, record


def _written(name: str, source: Path, out: Path, records: Iterator[dict[str, Any]], limit: int | None) -> Conversion:
    marked = ({**record, "metadata": {"dataset": name, **record.get("metadata", {})}} for record in records)
    return conversion(out, marked, limit, f"{source} holds no question", [source])


def options_in(question: str) -> tuple[str, list[str]]:
    """A question and its options, where they stand in its text in lines that begin with ``A.``, ``B.`` and so on.

    >>> options_in("Is it?\\nA.No\\nB.can't judge\\nC.Yes")
    ('Is it?', ['No', "can't judge", 'Yes'])
    """
    head, *rest = _OPTION.split(question)
    letters, texts = rest[::2], [text.strip() for text in rest[1::2]]
    if letters != [chr(ord("A") + place) for place in range(len(letters))]:
        return question, []
    return head, texts


def _choice(source: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(inside(source, source).glob("*/*/*/*.json")):
        task = file.stem
        if task != file.parent.name:
            continue
        for number, where, record in read_entries(file, source):
            images = _listed(record.get("image_path"), where)
            shown = [_path(one, source, f"{where}: 'image_path'") for one in images]
            made: dict[str, Any] = {"id": f"choice/{task}/{record.get('id', number)}", "scene": f"choice/{task}/{Path(shown[0]).stem}", "kind": task,
                    "images": shown, "prompt": text_in(record, "question", where)}  # fmt: skip
            yield {**made, **_choice_truth(record, source, source / shown[0], where)}


def _choice_truth(record: Mapping[str, Any], source: Path, image: Path, where: str) -> dict[str, Any]:
    """Task and reference of a record of CHOICE: a mask, a box or a letter."""
    if "mask_path" in record:
        mask = {"path": _path(record["mask_path"], source, f"{where}: 'mask_path'")}
        return {"task": "grounding", "reference": {"mask": mask}}
    if isinstance(record.get("answer"), list):
        return {"task": "grounding", "reference": {"boxes": [_pixels(record["answer"], image, where)]}}
    _, options = options_in(record["question"])
    choices = {"choices": options} if options else {}
    return {"task": "change_qa", "reference": {"answers": [text_in(record, "answer", where)], **choices}}


def _pixels(points: list[Any], image: Path, where: str) -> list[float]:
    """A polygon of four points in shares of an image as eight pixel coordinates."""
    try:
        shares = [(float(x), float(y)) for x, y in points]
        height, width = read_size(ImageRef(path=image))
    except (TypeError, ValueError):
        shares = []
    except ImageError as error:
        raise InputError(f"{where}: its box is in shares of an image that cannot be read: {error}") from error
    if len(shares) != 4:
        raise InputError(f"{where}: 'answer' is no polygon of four points")
    return [side for x, y in shares for side in (x * width, y * height)]


def choice(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write CHOICE (arXiv 2411.18145): choices, boxes and masks, each of its own task.

    Read in github.com/ShawnAn-WHU/CHOICE@eb6c430 ``CHOICE_subset`` (its files themselves): ``<dimension>/<sub-dimension>/<task>/<task>.json``, lists of
    ``id``, ``image_path``, ``question`` with its options, and ``answer``, a letter or a polygon in shares, or ``mask_path``.
    """
    source = data_folder(source, "CHOICE's perception and reasoning")
    if split is not None:
        raise InputError("CHOICE has no splits; leave --split out")
    return _written("choice", source, out, _choice(source), limit)


def _geobench(source: Path, parts: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    for part, file in parts.items():
        for number, where, record in read_entries(file, source):
            for key in ("prompts", "options_list"):
                if not is_texts(record.get(key)):
                    raise InputError(f"{where} has no list {key!r}")
            prompts, listed = record["prompts"], record["options_list"]
            every = _listed(record.get("image_path"), where)
            # Of a series the authors show the first and the last.
            ends = [every[0], every[-1]] if len(every) > 1 else every
            shown = [_path(one, source, f"{where}: 'image_path'") for one in ends]
            options = " ".join(f"{chr(ord('A') + place)}. {option}" for place, option in enumerate(listed))
            for place, prompt in enumerate(prompts):
                yield {
                    "id": f"geobench_vlm/{part.lower()}/{number}#{place}",
                    "task": "change_qa",
                    "scene": f"geobench_vlm/{Path(shown[0]).stem}",
                    "kind": text_in(record, "task", where),
                    "images": shown,
                    "prompt": f"{prompt}\nOptions: {options}\nAnswer with the letter of one option.",
                    "reference": {
                        "answers": [text_in(record, "ground_truth_option", where).strip(". ")],
                        "choices": listed,
                    },
                    "metadata": {"split": part.lower()},
                }


def geobench_vlm(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write GEOBench-VLM's choices (arXiv 2411.19325), a sample for each of the five prompts of a question.

    Read in github.com/The-AI-Alliance/GEO-Bench-VLM@bd07b00 ``eval_geobenchvlm/qwen_cls_single.py`` and ``temporal/qwen_cls_temporal.py``:
    ``Single/qa.json`` and ``Temporal/qa.json``, lists of ``image_path``, ``prompts``, ``options_list``, ``ground_truth_option``, ``task``. The parts are the splits.
    """
    source = data_folder(source, "Single/qa.json and Temporal/qa.json")
    parts = {part: find_file(source / part / "qa.json") for part in ("Single", "Temporal")}
    chosen = choose_parts(parts, split, source, "Single/qa.json or Temporal/qa.json")
    return _written("geobench_vlm", source, out, _geobench(source, chosen), limit)


def _lrs_vqa(source: Path, file: Path, split: str | None) -> Iterator[dict[str, Any]]:
    known: set[str] = set()
    for where, record in _lines(file, source):
        name = text_in(record, "question_id", where)
        part = name.split("_")[0]
        known.add(part)
        if split is not None and part.lower() != split.lower():
            continue
        shown = _path(record.get("image"), source, f"{where}: 'image'")
        yield {
            "id": f"lrs_vqa/{name}",
            "task": "change_qa",
            "scene": f"lrs_vqa/{Path(shown).stem}",
            "kind": text_in(record, "category", where),
            "images": [shown],
            "prompt": text_in(record, "text", where),
            "reference": {"answers": [text_in(record, "ground_truth", where)]},
            "metadata": {"split": part.lower()},
        }
    if split is not None and split.lower() not in {part.lower() for part in known}:
        raise InputError(f"{file} holds the sources {', '.join(sorted(known))}, not {split!r}")


def lrs_vqa(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write LRS-VQA. The sources ``FAIR``, ``Bridge`` and ``STAR`` are its splits, and tables are of one.

    Read in github.com/VisionXLab/LRS-VQA@1b3b6cd ``README.md``, ``Script/llava_eval_LRSVQA.py`` and ``Script/evaluation_LRSVQA.py``: ``LRS_VQA_merged.jsonl``, lines with
    ``question_id``, ``image``, ``category``, ``text`` and ``ground_truth``.
    """
    source = data_folder(source, "LRS_VQA_merged.jsonl")
    file = needed(
        find_file(source / "LRS_VQA_merged.jsonl", source / "LRS_VQA" / "LRS_VQA_merged.jsonl"),
        f"{source} should hold LRS_VQA_merged.jsonl",
    )
    return _written("lrs_vqa", source, out, _lrs_vqa(source, file, split), limit)


def _earthvqa(source: Path, part: str, file: Path) -> Iterator[dict[str, Any]]:
    listed = read_json(file, source)
    if not isinstance(listed, Mapping):
        raise InputError(f"{file} should be an object of image name to questions")
    place = find_folder(source / part, "images_png")
    for image, questions in listed.items():
        plain_name(image, str(file))
        if not isinstance(questions, list):
            raise InputError(f"{file}: {image!r} has no list of questions")
        shown = f"{part}/images_png/{image}" if place is None else (place / image).relative_to(source).as_posix()
        for number, question in enumerate(questions):
            values = list(question.values()) if isinstance(question, Mapping) else []
            if len(values) != 3 or values[2] in (None, ""):  # the loader takes the three values by their order
                raise InputError(
                    f"{file}: question {number} of {image!r} is not a type, a question and an answer; the test truth is not public"
                )
            yield {
                "id": f"earthvqa/{part.lower()}/{Path(image).stem}/{number}",
                "task": "change_qa",
                "scene": f"earthvqa/{part.lower()}/{Path(image).stem}",
                "kind": str(values[0]),
                "images": [shown],
                "prompt": str(values[1]),
                "reference": {"answers": [str(values[2])]},
                "metadata": {"split": part.lower()},
            }


def earthvqa(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write EarthVQA's questions of ``Train`` or ``Val``.

    Read in github.com/Junjue-Wang/EarthVQA@d043845 ``data/earthvqa.py``: ``<Split>_QA.json``, image name -> list of type, question, answer in this order;
    ``<Split>/images_png``. Answers are counts, tenths of an area (``0%-10%``) and texts.
    """
    source = data_folder(source, "Train_QA.json and Val_QA.json")
    parts = {
        part: source / f"{part}_QA.json" for part in ("Train", "Val", "Test") if (source / f"{part}_QA.json").is_file()
    }
    if not parts:
        raise InputError(f"{source} should hold Train_QA.json or Val_QA.json")
    (part,) = choose_splits(parts, split or only_split(parts, source), source)
    return _written("earthvqa", source, out, _earthvqa(source, part, parts[part]), limit)


def _rsvlm_qa(source: Path, parts: Mapping[str, Path], left: list[str]) -> Iterator[dict[str, Any]]:
    for split, file in parts.items():
        for where, record in _lines(file, source):
            shown = _tail(record.get("image"), source, where)
            name = str(record.get("id") or Path(shown).stem.split(".")[0])
            pairs = record.get("vqa_pairs")
            if not isinstance(pairs, list) or not all(isinstance(pair, Mapping) for pair in pairs):
                raise InputError(f"{where} has no list 'vqa_pairs' of objects")
            for number, pair in enumerate(pairs):
                kind, question, answer = (str(pair.get(key, "")) for key in ("question_type", "question", "answer"))
                if not (kind.strip() and question.strip() and answer.strip()):
                    left.append(f"{where}, pair {number}")
                    continue
                told = {"task": "change_caption", "reference": {"captions": [answer]}}
                yield {
                    "id": f"rsvlm_qa/{split}/{name}/{number}",
                    "scene": f"rsvlm_qa/{split}/{name}",
                    "kind": kind,
                    "images": [shown],
                    "prompt": question,
                    **(told if kind == "caption" else {"task": "change_qa", "reference": {"answers": [answer]}}),
                    "metadata": {"split": split, "question_id": str(pair.get("question_id", ""))},
                }


def _tail(value: Any, source: Path, where: str) -> str:
    """The longest end of a path of the authors' machine that exists below the source; else the file's name. Raises :class:`InputError`."""
    parts = PurePosixPath(value.replace("\\", "/")).parts if isinstance(value, str) and "\0" not in value else ()
    if not parts or ".." in parts or parts[-1] in ("/", ""):
        raise InputError(f"{where}: 'image' is {value!r:.80}, not a path of an image")
    for start in range(parts[0] == "/", len(parts)):
        if (file := source.joinpath(*parts[start:])).is_file():
            return inside(file, source).relative_to(source).as_posix()
    return parts[-1]


def rsvlm_qa(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write RSVLM-QA: its questions of all types, and the type ``caption`` as captions. A language model judges them in the paper.

    Read in github.com/StarZi0213/RSVLM-QA@4b74c42 ``models/qwen_vl_inference.py:33,224-253``, ``evaluate_vqa_performance.py:284-320`` and ``generate_vqa_pairs.py:201-211``:
    ``RSVL-VQA_<split>.jsonl``, there or in ``json``; a line an image with ``id``, ``image`` (an absolute path of theirs) and ``vqa_pairs``, objects of ``question_id``,
    ``question_type``, ``question`` and ``answer``.
    """
    source = data_folder(source, "RSVL-VQA_test.jsonl")
    files = [file for place in (source, source / "json") for file in sorted(place.glob("RSVL-VQA_*.jsonl"))]
    parts = {file.stem.removeprefix("RSVL-VQA_"): file for file in reversed(files)}
    chosen = choose_parts(parts, split, source, "RSVL-VQA_test.jsonl, or have it in json")
    left: list[str] = []
    done = _written("rsvlm_qa", source, out, _rsvlm_qa(source, chosen, left), limit)
    if left:
        done.notes.append(f"{len(left)} pairs lack a type, a question or an answer and are left out, such as {left[0]}")
    return done
