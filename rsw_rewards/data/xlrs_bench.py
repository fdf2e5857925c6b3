"""Adapter ``xlrs-bench``: the multiple-choice questions of XLRS-Bench (arXiv 2503.23771), as the hub's ``initiacms/XLRS-Bench-lite`` holds them.

Read in github.com/EvolvingLMMs-Lab/lmms-eval@75571cf ``lmms_eval/tasks/xlrs/XLRS-lite.yaml`` and ``mcq_utils.py:27-45,93-103``: the columns ``image`` (a list), ``question``,
``multi-choice options`` (``(A) ...``), ``answer`` (letters without anything between them), ``category`` (task and sub-task with ``/`` between), ``l2-category`` and ``index``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.hub_files import ImageWriter, open_data, read_rows
from rsw_rewards.errors import InputError

NAME = "initiacms/XLRS-Bench-lite"
_OPTION = re.compile(r"\s*\(?([A-Z])[).]\s*(.*)", re.DOTALL)


def _choices(listed: Any, where: str) -> list[str]:
    """The options without their letters. Raises :class:`InputError` where the letters are not A, B, C and so on."""
    found = [_OPTION.fullmatch(one) for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    letters = "".join(one[1] if one else "?" for one in found)
    if len(letters) < 2 or letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        raise InputError(
            f"{where}: 'multi-choice options' should be '(A) ...', '(B) ...' and so on, not {str(listed)[:80]}"
        )
    return [one[2].strip() for one in found if one]


def _samples(rows: Iterator[Mapping[str, Any]], split: str, images: ImageWriter) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        where = f"{images.name}, {split}, row {number}"
        wanted = ("image", "question", "multi-choice options", "answer", "category", "l2-category", "index")
        if lacking := [column for column in wanted if column not in row]:
            raise InputError(f"{where} has no column {lacking[0]!r}; it has {', '.join(row)}")
        question, answer, kind = (row[column] for column in ("question", "answer", "category"))
        if not all(isinstance(text, str) and text.strip() for text in (question, answer, kind)):
            raise InputError(f"{where}: 'question', 'answer' and 'category' must be texts")
        choices = _choices(row["multi-choice options"], where)
        letters = re.findall("[A-Z]", answer)
        if not letters or any(ord(letter) - ord("A") >= len(choices) for letter in letters):
            raise InputError(f"{where}: the answer {answer[:40]!r} is no letter of its {len(choices)} options")
        shown = row["image"] if isinstance(row["image"], list) else [row["image"]]
        options = "\n".join(f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(choices))
        all_right = "Overall Land use" in kind
        by = "the letters of all options that are right" if all_right else "the letter of one option"
        yield {
            "id": f"xlrs_bench/{row['index']}",
            "task": "change_qa",
            "scene": f"xlrs_bench/{row['index']}",
            "kind": kind,
            "images": [images.as_stored(one, f"{number:07d}_{place}", where) for place, one in enumerate(shown)],
            "prompt": f"{question.strip()}\n{options}\nAnswer with {by}.",
            "reference": {"answers": [", ".join(letters)], "choices": choices},
            "metadata": {"dataset": "xlrs_bench", "split": split, "l2-category": str(row["l2-category"])},
        }


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write the questions. See :class:`rsw_rewards.data.adapter.Adapter`.

    Args:
        source: ``-`` for the hub, or a folder that holds a copy (``save_to_disk``, Parquet).
        out, split, limit: as there.
    """
    data, chosen, folder = open_data(source, NAME, split)
    writer = ImageWriter(Path(out), chosen, folder, NAME)
    records = _samples(read_rows(data, NAME), chosen, writer)
    done = conversion(out, records, limit, f"{NAME} has no rows in {chosen}", writer.roots)
    done.notes.append("every question counts as a scene: the columns do not say which questions are of one image")
    return done
