"""Adapter ``disaster-m3``: the questions of DisasterM3 (Wang et al., arXiv 2505.21089, github.com/Junjue-Wang/DisasterM3).

Two layouts are read. As released (huggingface.co/datasets/Kingdrone-Junjue/DisasterM3): ``DisasterM3_Bench`` with
``benchmark_release.json`` and ``test_images``, ``DisasterM3_Instruct`` with ``train_release.json``, ``train_images`` and
``box_train_images``; the source is one of them or the folder above. As the authors' code reads it (``pyscripts/run_vllm.py``):
``<subset>.json`` and ``images``. A record has ``pre_image_path`` and ``post_image_path`` (or ``image_path``), ``prompts``,
``task``, and for a choice ``options_str`` or ``options_list`` and the letters in ``ground_truth_option``.

Questions with options become samples: counts are asked as a choice of ranges, damaged roads as a choice of shares of the area. Reports,
advice and referred masks do not; a note counts them. The words of a prompt are the authors' (``prompt_libs`` of ``run_vllm.py``), who put
each image behind a line that names it; here the images come first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import data_folder, inside, natural, read_entries
from rsw_rewards.errors import InputError

RELEASES = {
    "test": ("DisasterM3_Bench", "benchmark_release.json"),
    "train": ("DisasterM3_Instruct", "train_release.json"),
}
"""Split -> folder and file of the release."""

SUBSETS = (
    "bearing_body",
    "building_damage_counting",
    "disaster_type",
    "landuse",
    "relational_reasoning_qa",
    "road_damage_counting",
)
"""The questions among the subsets of the authors' code."""

_PROMPT = "Analyze {images} to answer the following question. Choose the best {option} from the candidate options provided.\n\nQuestion: {question}\nOptions: {options}\n\nYour task is to respond with ONLY the capital {letter}. Do not include any explanation or other text."
_PAIR, _SINGLE = "both the pre-disaster and post-disaster images", "the image"
_ONE = {"option": "option", "letter": "letter of the correct option (e.g., C)"}
_ALL = {
    "option": "option(s)",
    "letter": "letters of the correct options, separated by a comma and a space (e.g., C, D, H)",
}
# The authors' prompts ask for all right options of these, and for one option of the others.
_SEVERAL = ("bearing", "scene recognition", "landuse")
# Land use is asked of the picture before the disaster alone.
_BEFORE_ONLY = ("scene recognition", "landuse")

_MARK = re.compile(r"(?:^|[\s,;])\(?([A-Z])[.):]\s*")
_LETTERS = re.compile(r"\s*\(?([A-Z])[.)]?\s*")
_LONGEST = 20_000  # characters of a prompt or of its options


def parse_options(text: str) -> list[str]:
    """Options out of one text, ``"A. 1-5, B. 6-10"``: those between marks A, B, C and so on; empty where the marks are no row."""
    marks: list[re.Match[str]] = []
    for mark in _MARK.finditer(text):
        if mark[1] == chr(ord("A") + len(marks)):
            marks.append(mark)
    if not marks:
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    options = [text[mark.end() : end].strip(" ,;\n") for mark, end in zip(marks, ends, strict=True)]
    return options if len(options) > 1 and all(options) else []


def parse_letters(value: Any) -> list[str]:
    """The letters of ``"A"``, ``"C, A."`` or ``["A", "C"]`` in order of the alphabet; empty where it is anything else."""
    parts = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else []
    found = [_LETTERS.fullmatch(part) if isinstance(part, str) else None for part in parts]
    letters = [match[1] for match in found if match is not None]
    return sorted(letters) if len(letters) == len(parts) == len(set(letters)) else []


def _among(kind: str, words: tuple[str, ...]) -> bool:
    return any(word in kind.lower().replace("_", " ") or word in kind.lower() for word in words)


def _question(record: Mapping[str, Any], kind: str, images: int, where: str) -> tuple[str, dict[str, Any]] | None:
    """Prompt and reference of a record that shows so many images, or None where it is no choice."""
    asked = record.get("prompts")
    asked = asked[0] if isinstance(asked, list) and asked else asked
    options = record.get("options_str") or record.get("option_str")
    listed = record.get("options_list")
    if not isinstance(listed, list) or not all(isinstance(option, str) for option in listed):
        listed = []
    if listed and not options:
        options = ", ".join(
            option
            if option.lstrip("( ").startswith((f"{letter}.", f"{letter})", f"{letter}:"))
            else f"{letter}. {option}"
            for letter, option in zip(ascii_uppercase, listed, strict=False)
        )
    letters = parse_letters(record.get("ground_truth_option"))
    if not (options and letters):
        return None
    if not isinstance(asked, str) or not asked.strip() or len(asked) > _LONGEST:
        raise InputError(f"{where} has no 'prompts' that is a question")
    if not isinstance(options, str) or len(options) > _LONGEST:
        raise InputError(f"{where} has options that are no text")
    choices = [option.strip() for option in listed] or parse_options(options)
    if choices and ord(letters[-1]) - ord("A") >= len(choices):
        raise InputError(f"{where} has the answer {letters[-1]}, but only {len(choices)} options")
    prompt = _PROMPT.format(
        images=_SINGLE if images == 1 else _PAIR,
        question=asked,
        options=options,
        **(_ALL if _among(kind, _SEVERAL) else _ONE),
    )
    return prompt, {"answers": [", ".join(letters)], **({"choices": choices} if choices else {})}


class _Images:
    """Image paths of records as paths relative to the source."""

    def __init__(self, source: Path, folders: list[Path]) -> None:
        self.source, self.folders = source, folders
        self._known: dict[str, str] = {}

    def __call__(self, record: Mapping[str, Any], keys: tuple[str, ...], where: str) -> list[str]:
        return [self._one(record.get(key), f"{where}: {key!r}") for key in keys]

    def _one(self, path: Any, where: str) -> str:
        if isinstance(path, str) and path in self._known:
            return self._known[path]
        # The files were written on Windows.
        named = PurePosixPath(path.replace("\\", "/")) if isinstance(path, str) and "\0" not in path else None
        if named is None or not named.name or named.is_absolute() or ".." in named.parts:
            raise InputError(f"{where} is {str(path)[:80]!r}, not a path inside the data set")
        # Archives were unpacked with and without a folder of their own name.
        tails = (
            named,
            PurePosixPath(*named.parts[-2:]),
            PurePosixPath(named.parts[0], *named.parts),
            PurePosixPath(named.name),
        )
        for folder in self.folders:
            for tail in tails:
                if (folder / tail).is_file():
                    found = inside(folder / tail, self.source).relative_to(self.source).as_posix()
                    self._known[path] = found
                    return found
        raise InputError(f"{where} names {named}, which was expected in {self.folders[0]}")


def _samples(
    name: str, file: Path, kind: str | None, images: _Images, skipped: Counter[str]
) -> Iterator[dict[str, Any]]:
    for number, where, record in read_entries(file, images.source):
        task = kind if kind is not None else record.get("task")
        if not isinstance(task, str) or not task:
            raise InputError(f"{where} has no 'task'")
        keys: tuple[str, ...] = ("pre_image_path", "post_image_path")
        if "image_path" in record and "pre_image_path" not in record:
            keys = ("image_path",)
        elif _among(task, _BEFORE_ONLY):
            keys = ("pre_image_path",)
        asked = _question(record, task, len(keys), where)
        if asked is None:
            skipped[task] += 1
            continue
        shown = images(record, keys, where)
        sensor = record.get("post_image_type") or record.get("image_type")
        yield {
            "id": f"disaster_m3/{name}/{number}",
            "task": "change_qa",
            "scene": f"disaster_m3/{re.sub('_(?:pre|post)(?:_disaster)?', '', Path(shown[0]).stem)}",
            "kind": task,
            "images": shown,
            "prompt": asked[0],
            "reference": asked[1],
            "metadata": {"dataset": "disaster_m3", "split": name, **({"sensor": str(sensor)} if sensor else {})},
        }


def _parts(source: Path) -> dict[str, tuple[Path, str | None, list[Path]]]:
    """Split or subset -> its file, the kind of all its records where the file tells, and the folders of its images."""
    found: dict[str, tuple[Path, str | None, list[Path]]] = {}
    for split, (folder, name) in RELEASES.items():
        for place in (source / folder, source):
            if (place / name).is_file():
                found.setdefault(split, (place / name, None, [place]))
    for subset in SUBSETS:
        file = source / f"{subset}.json"
        if file.is_file():
            found[subset] = (file, subset, [source / "images", source])
    return found


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write the questions of a split (``test``, ``train``) or of a subset. See :class:`rsw_rewards.data.adapter.Adapter`.

    Choices are answered by letters (``"B"``, ``"A, C"``) and carry their options in ``reference.choices``.
    Without ``split`` all that are there are written.
    """
    source = data_folder(source, "DisasterM3_Bench, DisasterM3_Instruct, or benchmark_release.json")
    parts = _parts(source)
    if not parts:
        raise InputError(
            f"{source} should hold benchmark_release.json with test_images, train_release.json with train_images, or <subset>.json with images"
        )
    if split is not None and split not in parts:
        raise InputError(f"{source} holds {', '.join(parts)}, not {split!r}")
    chosen = sorted(parts, key=natural) if split is None else [split]
    skipped = Counter[str]()
    records = (
        record
        for name in chosen
        for record in _samples(name, parts[name][0], parts[name][1], _Images(source, parts[name][2]), skipped)
    )
    files = ", ".join(str(parts[name][0]) for name in chosen)
    done = conversion(out, records, limit, f"{files} holds no choice", [source])
    if skipped:
        shown = ", ".join(f"{number} {task}" for task, number in skipped.most_common())
        done.notes.append(f"left out, as they are no choices: {shown}")
    return done
