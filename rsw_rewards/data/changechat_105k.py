"""Adapter ``changechat-105k``: ChangeChat-105k (arXiv 2507.22346, github.com/hanlinwu/DeltaVLM), instructions over LEVIR-CC's pairs.

Expected, as the README and ``infer_subtasks.py`` of DeltaVLM have it: ``changechat_105k_test[_binary|_count|_loc|_open|_dialog].json``
and ``changechat_105k_train[_loc].json`` in the source or in ``annotations`` below it, and LEVIR-CC's ``images`` in the source.
Every file is a list of ``{id, image: [before, after], changeflag, conversations: [{from, value}]}``; only the captions,
``changechat_105k_test.json``, are ``{image_A, image_B, captions, changeflag}``.

Answers stay as they are written, such as ``roads: ['top-left']. buildings: [].``, and are read by the verifiers of the
``changechat-*`` protocols. Captions lose every full stop that follows a blank, as in DeltaVLM's ``benchmark.py``. Scenes are those of ``levir-cc``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.captioned import without_spaced_stops
from rsw_rewards.data.layout import check_choice, data_folder, find_folder, is_texts, plain_name, read_entries
from rsw_rewards.data.levir_cc import GSD_M, NO_IMAGERY, SCENES, Pairs, scene_of
from rsw_rewards.errors import InputError

CAPTION_PROMPT = "Please briefly describe the changes in these two images."
"""What DeltaVLM asks for a caption of the test part, whose file has no question (``infer_subtasks.py``)."""

KINDS = ("caption", "binary", "count", "localization", "open", "dialogue")
"""The six kinds of instruction."""

_FILES = {
    None: "caption",
    "binary": "binary",
    "count": "count",
    "loc": "localization",
    "open": "open",
    "dialog": "dialogue",
}
_FILE = re.compile(r"(?:.*_)?test(?:_(binary|count|loc|open|dialog))?|(?:.*_)?(train(?:_loc)?)", re.IGNORECASE)
# How the questions of each kind begin: the training file mixes them and does not say which is which.
_OPENINGS = {
    "please briefly describe the changes": "caption",
    "please judge whether these two images": "binary",
    "please determine how many": "count",
    "please indicate the locations where": "localization",
}
_NEEDED = "changechat_105k_test.json, changechat_105k_test_binary.json or another of ChangeChat's files"


def find_parts(source: Path) -> dict[str, Path]:
    """Part (``test/binary``, ``train``, ``train_loc``) -> file, for every one of ChangeChat's files that is there."""
    parts: dict[str, Path] = {}
    for folder in (source, find_folder(source, "annotations")):
        for file in sorted(folder.glob("*.json")) if folder is not None else ():
            if found := _FILE.fullmatch(file.stem.lower()):
                parts.setdefault(found[2] or f"test/{_FILES[found[1]]}", file)
    return parts


def _choose(source: Path, split: str | None) -> dict[str, Path]:
    parts = find_parts(source)
    if not parts:
        raise InputError(f"{source} has no {_NEEDED}, and neither has annotations below it")
    if split is None and len(parts) > 1:
        raise InputError(f"{source} holds the parts {', '.join(parts)}; name one, or test for all of its, with --split")
    wanted = split.lower() if split is not None else next(iter(parts))
    chosen = {part: file for part, file in parts.items() if part == wanted or part.startswith(f"{wanted}/")}
    if not chosen:
        raise InputError(f"{source} holds the parts {', '.join(parts)}, not {split!r}")
    return chosen


@dataclass(frozen=True, slots=True)
class _Row:
    """One record of a file."""

    part: str
    own: str
    """Its id within the part."""
    split: str
    """LEVIR-CC's split that the pair is from."""
    name: str
    """File name of the pair."""
    changed: bool | None
    turns: tuple[tuple[str, str], ...]
    """Questions and answers; none in the file of captions."""
    captions: tuple[str, ...] = ()


def _pair(before: Any, after: Any, where: str) -> tuple[str, str]:
    """Split and file name out of ``train/A/train_000001.png`` and the same with B."""
    paths = [str(path).removeprefix("images/").split("/") for path in (before, after)]
    if [path[1:2] for path in paths] != [["A"], ["B"]] or any(len(path) != 3 for path in paths):
        raise InputError(
            f"{where} has the images {before!r:.80} and {after!r:.80}; expected are <split>/A/<name> and B"
        )
    if paths[0][::2] != paths[1][::2]:
        raise InputError(f"{where} pairs {before!r:.80} with {after!r:.80}, which is not the same place")
    return plain_name(paths[0][0], where), plain_name(paths[0][2], where)


def _turns(record: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    said = record.get("conversations")
    if not isinstance(said, list) or not said or len(said) % 2:
        raise InputError(f"{where} should have 'conversations', questions and answers in turn")
    texts = []
    for number, turn in enumerate(said):
        speaker = ("human", "gpt")[number % 2]
        text = turn.get("value") if isinstance(turn, dict) and turn.get("from") == speaker else None
        if not isinstance(text, str):
            raise InputError(
                f"{where}: turn {number} of 'conversations' should be {{'from': '{speaker}', 'value': text}}"
            )
        texts.append(" ".join(text.replace("<image>", " ").split()))
    return tuple(zip(texts[::2], texts[1::2], strict=True))


def _rows(part: str, file: Path, source: Path) -> list[_Row]:
    rows = []
    for number, where, record in read_entries(file, source):
        flag = record.get("changeflag")
        if flag is not None and not isinstance(flag, int):
            raise InputError(f"{where} has the changeflag {flag!r}, not a whole number")
        changed = None if flag is None else bool(flag)
        captions = record.get("captions")
        if captions is not None:
            if not is_texts(captions):
                raise InputError(f"{where} should have a list of texts in 'captions'")
            pair = _pair(record.get("image_A"), record.get("image_B"), where)
            rows.append(_Row(part, str(number), *pair, changed, (), tuple(captions)))
            continue
        images = record.get("image")
        if not isinstance(images, list) or len(images) != 2:
            raise InputError(f"{where} should have 'image', the paths before and after, and 'conversations'")
        rows.append(_Row(part, str(number), *_pair(images[0], images[1], where), changed, _turns(record, where)))
    return rows


def _kind(row: _Row, question: str) -> str:
    if row.part.startswith("test/"):
        return row.part.removeprefix("test/")
    if len(row.turns) > 1:
        return "dialogue"
    return next((kind for opening, kind in _OPENINGS.items() if question.lower().startswith(opening)), "open")


def _caption_fields(kind: str, captions: list[str], changed: bool | None) -> dict[str, Any]:
    """A change caption; ``changed`` belongs to descriptions of the whole change only."""
    captions = [without_spaced_stops(caption) for caption in captions]
    if kind != "caption" or changed is None:
        return {"task": "change_caption", "kind": kind, "reference": {"captions": captions}}
    reference = {"captions": captions, "changed": changed}
    return {"task": "change_caption", "kind": "changed" if changed else "unchanged", "reference": reference}


def _samples(rows: list[_Row], pairs: Pairs, open_as: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        metadata = {"dataset": "changechat", "split": row.part.partition("/")[0], "gsd_m": GSD_M}
        own = f"changechat_105k/{row.part}/{row.own}"
        place = {"scene": scene_of(Path(row.name).stem), "images": pairs(row.split, row.name)}
        if row.captions:
            fields = _caption_fields("caption", list(row.captions), row.changed)
            yield {
                "id": own,
                **place,
                "prompt": CAPTION_PROMPT,
                **fields,
                "metadata": metadata | {"subtask": "caption"},
            }
        history = ""
        for number, (question, answer) in enumerate(row.turns):
            kind = _kind(row, question)
            if kind == "caption" or (kind == "open" and open_as == "caption"):
                fields = _caption_fields(kind, [answer], row.changed)
            else:
                reference: dict[str, Any] = {"answers": [answer]}
                if kind == "binary":
                    reference["vocabulary"] = ["yes", "no"]
                fields = {"task": "change_qa", "kind": kind, "reference": reference}
            turn = f"/{number}" if len(row.turns) > 1 else ""
            yield {
                "id": own + turn, **place, "prompt": history + question, **fields,
                "metadata": metadata | {"subtask": kind},
            }  # fmt: skip
            history += f"{question}\n{answer}\n"


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, open_as: str = "qa"
) -> Conversion:
    """Write the samples of one part. See :class:`rsw_rewards.data.adapter.Adapter`.

    Captions become change captions; all else become questions about change whose ``kind`` is the kind of instruction. Each turn
    of a dialogue is a sample that is shown the true answers of the turns before it, as in DeltaVLM's training.

    Args:
        source: the folder that holds ``annotations`` and ``images``.
        out: folder to write to.
        split: ``test/caption``, ``test/binary``, ``test/count``, ``test/localization``, ``test/open``, ``test/dialogue``, ``test``
            for all of them, ``train`` or ``train_loc``; may be left out where there is only one file.
        limit: stop after this many samples.
        open_as: ``"qa"``, or ``"caption"`` to write open questions as change captions, which is how DeltaVLM measures their answers.

    Raises:
        ConfigError: another ``open_as``.
    """
    check_choice(open_as, ("qa", "caption"), "open_as of changechat-105k")
    source = data_folder(source, "annotations and images of ChangeChat-105k")
    rows = [row for part, file in _choose(source, split).items() for row in _rows(part, file, source)]
    pairs = Pairs(source, [row.split for row in rows])
    notes = [SCENES, NO_IMAGERY.format(source) if pairs.absent else ""]
    what = f"the files in {source} have no entry"
    return conversion(out, _samples(rows, pairs, open_as), limit, what, [source], notes)
