"""Adapter ``vrsbench``: VRSBench's evaluation files (Li et al., arXiv 2406.12384).

Read in github.com/lx709/VRSBench@d38cee1 ``prepare_eval_all.ipynb`` and ``eval_fianl/compute_metrics.ipynb``: lists of records
``VRSBench_EVAL_referring.json`` (``image_id``, ``question``, ``ground_truth`` such as ``{<31><40><36><52>}`` on a grid of 0 to 100, ``unique`` or
``is_unique``, ``obj_cls``), ``VRSBench_EVAL_vqa.json`` and ``VRSBench_EVAL_Cap.json`` (``ground_truth`` a text, ``type``). Images are 512 x 512.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    ImageFolder,
    data_folder,
    find_entry,
    find_folder,
    needed,
    plain_name,
    read_entries,
    text_in,
)
from rsw_rewards.data.rsvg import PROMPT
from rsw_rewards.errors import ConfigError, InputError

SIDE = 512
FILES: Mapping[str, tuple[str, ...]] = {
    "grounding": ("VRSBench_EVAL_referring.json", "RSBench_EVAL_referring.json"),
    "vqa": ("VRSBench_EVAL_vqa.json", "RSBench_EVAL_vqa_v2.json"),
    "caption": ("VRSBench_EVAL_Cap.json", "RSBench_EVAL_Cap_v2.json"),
}
"""Kind of question -> names of its file, the published one first."""


def _reference(task: str, record: Mapping[str, Any], where: str) -> tuple[str, str | None, dict[str, Any]]:
    """Task, kind and reference of a record."""
    truth = text_in(record, "ground_truth", where)
    if task == "vqa":
        kind = record.get("type")
        return "change_qa", kind if isinstance(kind, str) else None, {"answers": [truth]}
    if task == "caption":
        return "change_caption", None, {"captions": [" ".join(truth.split())]}
    corners = [int(number) for number in re.findall(r"\d+", truth)[:4]]
    if len(corners) != 4:
        raise InputError(f"{where}: 'ground_truth' is {truth[:60]!r}, not four numbers")
    unique = record.get("is_unique", record.get("unique"))
    kind = None if unique is None else "unique" if unique else "non-unique"
    return "grounding", kind, {"boxes": [[corner * SIDE / 100 for corner in corners]], "text": truth}


def _samples(task: str, file: Path, source: Path, images: ImageFolder | None) -> Iterator[dict[str, Any]]:
    for number, where, record in read_entries(file, source):
        image = plain_name(record.get("image_id"), where)
        asked = record.get("question")
        if not isinstance(asked, str) or not asked.strip():
            raise InputError(f"{where} has no 'question'")
        kind_of_task, kind, reference = _reference(task, record, where)
        yield {
            "id": f"vrsbench/{task}/{number}",
            "task": kind_of_task,
            "scene": f"vrsbench/{Path(image).stem.split('_')[0]}",
            "kind": kind,
            "images": [image if images is None else images[image]],
            "prompt": PROMPT.format(asked) if task == "grounding" else asked,
            "reference": reference,
            "metadata": {"dataset": "vrsbench", "split": "test", "class": str(record.get("obj_cls", ""))},
        }


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, task: str = "grounding"
) -> Conversion:
    """Write one of VRSBench's evaluation files. See :class:`rsw_rewards.data.adapter.Adapter`.

    Args:
        source, out, limit: as there.
        split: ``test`` or nothing: there is one.
        task: ``grounding``, ``vqa`` or ``caption``.
    """
    if task not in FILES:
        raise ConfigError(f"'task' is {task!r}; it must be one of {', '.join(FILES)}")
    source = data_folder(source, FILES[task][0])
    if split not in (None, "test"):
        raise InputError(f"VRSBench's evaluation files are its test split; there is no {split!r}")
    file = needed(find_entry(source, *FILES[task]), f"{source} should hold {FILES[task][0]}")
    place = find_folder(source, "Images_val", "images", "Images")
    images = None if place is None else ImageFolder(place, source)
    missing = "no folder Images_val: answers can be scored, but no model can be shown the images, and boxes in percent cannot be read"
    records = _samples(task, file, source, images)
    return conversion(out, records, limit, f"{file} is empty", [source], [missing if images is None else ""])
