"""Adapter ``hf:NAME``: a Hugging Face data set whose columns the user names: ``rsw data from hf:owner/name - --set task=change_qa ...``.

The path ``-`` reads it from the hub; a folder reads a copy: one made by ``save_to_disk``, or Parquet, JSON or CSV files. Data are
streamed and never run: no loading script, no settings out of a folder's README. Images become PNG files in the output.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.records import Task
from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.hub_files import ImageWriter, open_data, read_rows
from rsw_rewards.errors import ConfigError, InputError

if TYPE_CHECKING:
    from datasets import IterableDataset

Columns = str | Sequence[str]

NEEDS: Mapping[Task, tuple[str, ...]] = {
    Task.CHANGE_QA: ("answer",),
    Task.CHANGE_CAPTION: ("captions",),
    Task.CHANGE_MASK: ("mask",),
    Task.CLASSIFICATION: ("answer",),
    Task.GROUNDING: ("mask", "boxes"),
}
"""Tasks that can be made, and the options of which one must name the truth."""

_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")


def adapter(name: str) -> functools.partial[Conversion]:
    """:func:`convert` for one data set. Raises :class:`ConfigError` where the name cannot be one."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"hf:{name} should name a data set, such as hf:owner/name")
    return functools.partial(convert, name=name)


def _listed(columns: Columns | None) -> list[str]:
    return [columns] if isinstance(columns, str) else [str(column) for column in columns or ()]


class _Row:
    """One row, read by the names of its columns."""

    def __init__(self, values: Mapping[str, Any], features: Mapping[str, Any], where: str) -> None:
        self.values, self.features, self.where = values, features, where

    def all(self, columns: Columns | None) -> list[Any]:
        """What the columns hold, lists laid flat, nothing left out."""
        found: list[Any] = []
        for column in _listed(columns):
            value = self._named(column, self.values[column])
            found += value if isinstance(value, list) else [value]
        return found

    def _named(self, column: str, value: Any) -> Any:
        names = getattr(self.features.get(column), "names", None)
        return names[value] if names is not None and isinstance(value, int) and 0 <= value < len(names) else value

    def texts(self, columns: Columns | None, what: str) -> list[str]:
        texts = []
        for value in self.all(columns):
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise InputError(f"{self.where}: the {what} is {str(value)[:60]!r}, not a text or a number")
            texts.append(str(value))
        if not texts:
            raise InputError(f"{self.where} has no {what}")
        return texts

    def text(self, column: str | None, what: str) -> str | None:
        return None if column is None else self.texts(column, what)[0]


def _reference(row: _Row, task: Task, names: Mapping[str, Any], images: ImageWriter, stem: str) -> dict[str, Any]:
    reference: dict[str, Any] = {}
    if names["answer"] is not None:
        answers = row.texts(names["answer"], "answer")
        if task is Task.CLASSIFICATION:
            reference = {"label": answers[0]} if len(answers) == 1 else {"labels": answers}
            known = getattr(row.features.get(_listed(names["answer"])[0]), "names", None)
            reference |= {"vocabulary": list(known)} if known else {}
        else:
            reference["answers"] = answers
    if names["captions"] is not None:
        reference["captions"] = row.texts(names["captions"], "caption")
    if names["mask"] is not None:
        masks = row.all(names["mask"])
        if len(masks) != 1:
            raise InputError(f"{row.where} has {len(masks)} masks; one is wanted")
        reference["mask"] = images.mask(masks[0], stem, row.where)
    if names["boxes"] is not None:
        boxes = row.values[names["boxes"]]
        boxes = [boxes] if isinstance(boxes, list) and boxes and not isinstance(boxes[0], list) else boxes
        if not isinstance(boxes, list) or not all(
            isinstance(box, list) and len(box) in (4, 8) and all(type(side) in (int, float) for side in box)
            for box in boxes
        ):
            raise InputError(f"{row.where}: boxes must be lists of 4 or 8 numbers in pixels, not {str(boxes)[:60]!r}")
        reference["boxes"] = boxes
    return reference


def _samples(
    data: IterableDataset, name: str, split: str, task: Task, names: Mapping[str, Any], prompt: str, images: ImageWriter
) -> Iterator[dict[str, Any]]:
    features = data.features or {}
    wanted = [column for value in names.values() for column in _listed(value)]
    seen: set[str] = set()
    for number, values in enumerate(read_rows(data, name)):
        where = f"{name}, {split}, row {number}"
        for column in wanted:
            if column not in values:
                raise InputError(f"{where} has no column {column!r}; it has {', '.join(values)}")
        if prompt and prompt in values:
            raise ConfigError(
                f"{name} has a column {prompt!r}; write question={prompt}, since 'prompt' is one text for all rows"
            )
        row = _Row(values, features, where)
        key = row.text(names["id"], "id") if names["id"] else str(number)
        if not key or key in seen:
            raise InputError(f"{where}: the id {key!r} is empty or was there before")
        seen.add(key)
        shown = [
            images.image(value, f"{number:07d}_{place}", where) for place, value in enumerate(row.all(names["images"]))
        ]
        scene = row.text(names["scene"], "scene")
        yield {
            "id": f"{name}/{split}/{key}",
            "task": str(task),
            "scene": f"{name}/{scene}" if scene is not None else f"{name}/{split}/{key}",
            "kind": row.text(names["kind"], "kind"),
            "images": shown,
            "prompt": row.text(names["question"], "question") or prompt,
            "reference": _reference(row, task, names, images, f"{number:07d}"),
            "metadata": {"dataset": name, "split": split},
        }


def convert(
    source: Path,
    out: Path,
    *,
    name: str,
    split: str | None = None,
    limit: int | None = None,
    task: str = "",
    images: Columns = (),
    id: str | None = None,
    question: str | None = None,
    prompt: str = "",
    answer: Columns | None = None,
    captions: Columns | None = None,
    mask: str | None = None,
    boxes: str | None = None,
    kind: str | None = None,
    scene: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Conversion:
    """Write the rows of one split as samples. See :class:`rsw_rewards.data.adapter.Adapter`.

    Args:
        source: ``-`` for the hub, or a folder that holds a copy.
        out, limit: as there.
        name: of the data set on the hub; the first part of every id.
        split: may be left out where there is only one.
        task: change_qa, change_caption, change_mask, classification or grounding.
        images: columns of the images shown, in time order; a column may hold a list. Texts are paths inside the folder.
        id, question, kind, scene: columns; without ``id`` the row's number counts, without ``scene`` every row is a place.
        prompt: what is asked, where no column says it.
        answer: columns of the accepted answers, or of the label; class numbers become names.
        captions: columns of the captions.
        mask: column of the true mask, 0 and 1 or 0 and 255.
        boxes: column of the true boxes, 4 or 8 numbers in pixels each.
        config, revision: of a data set on the hub.

    Raises:
        ConfigError: an unknown task, or no column for its truth.
        InputError: the data cannot be found or read, or a column is missing or holds something else.
    """
    if task not in map(str, NEEDS):
        raise ConfigError(f"hf:{name} needs --set task=TASK, one of {', '.join(NEEDS)}, not {task!r}")
    names = {
        "images": images, "id": id, "question": question, "answer": answer, "captions": captions, "mask": mask,
        "boxes": boxes, "kind": kind, "scene": scene,
    }  # fmt: skip
    needed = NEEDS[Task(task)]
    if all(names[option] is None for option in needed):
        raise ConfigError(f"hf:{name}: the task {task} needs --set {' or '.join(f'{one}=COLUMN' for one in needed)}")
    data, chosen, folder = open_data(source, name, split, config, revision)
    writer = ImageWriter(Path(out), chosen, folder, name)
    records = _samples(data, name, chosen, Task(task), names, prompt, writer)
    return conversion(out, records, limit, f"{name} has no rows in {chosen}", writer.roots)
