"""The cdvqa adapter on a small folder in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.cdvqa import KINDS, VOCABULARY, convert
from rsw_rewards.data.registry import ADAPTERS, resolve_adapter
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples

ASKED = [
    ("change_or_not", "Did it change?", "yes"),
    ("change_ratio", "How much?", "10_to_20"),
    ("largest_change", "What?", "NVG_surface"),
]


def official(folder: Path, split: str = "Val", images: str | None = "", asked: list = ASKED) -> Path:
    """A folder as the authors ship it: one entry per question in each file, SECOND's im1 and im2 beside."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, answers, shown = [], [], []
    for n, (kind, text, answer) in enumerate(asked):
        ids = {"id": n, "date_added": 0.5, "active": True}
        questions.append({**ids, "img_id": n, "type": kind, "question": text, "answers_ids": [n]})
        answers.append({**ids, "question_id": n, "answer": answer})
        shown.append(
            {"id": n, "res_x": ".1524m", "questions_ids": [n], "file_name": f"{n // 2:05d}.png", "active": True}
        )
    for part, records in (("questions", questions), ("answers", answers), ("images", shown)):
        (folder / f"{split}_{part}.json").write_text(json.dumps({part: records}))
    if images is not None:
        for date in ("im1", "im2"):
            (folder / images / date).mkdir(parents=True, exist_ok=True)
            for n in range(2):
                write_png(folder / images / date / f"{n:05d}.png", np.zeros((4, 4, 3), np.uint8))
    return folder


def edit(file: Path, part: str, **changes: object) -> None:
    loaded = json.loads(file.read_text())
    loaded[part][1] |= changes
    file.write_text(json.dumps(loaded))


@pytest.mark.parametrize("images", ["", "SECOND"])
def test_samples(tmp_path: Path, images: str) -> None:
    source = official(tmp_path / "cdvqa", images=images)
    done = convert(source, tmp_path / "out")
    assert (done.samples, done.roots, done.notes) == (3, [source], [])
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == ["cdvqa/val/0", "cdvqa/val/1", "cdvqa/val/2"]
    assert [sample.scene for sample in samples] == ["second/00000", "second/00000", "second/00001"]
    assert [sample.kind for sample in samples] == [kind for kind, _, _ in ASKED]
    assert [sample.reference["answers"] for sample in samples] == [[answer] for _, _, answer in ASKED]
    assert samples[0].task is Task.CHANGE_QA
    assert all(image.pixels().shape == (4, 4, 3) for sample in samples for image in sample.images)
    assert tuple(samples[0].reference["vocabulary"]) == VOCABULARY


def test_constants() -> None:
    assert (len(VOCABULARY), len(set(VOCABULARY)), len(KINDS)) == (19, 19, 8)


def test_without_imagery_answers_can_still_be_scored(tmp_path: Path) -> None:
    done = convert(official(tmp_path / "cdvqa", images=None), tmp_path / "out", limit=2)
    assert done.samples == 2
    assert "no folders im1 and im2" in done.notes[0]
    assert len(load_samples(done.file, done.roots)) == 2


def test_splits(tmp_path: Path) -> None:
    source = official(official(tmp_path / "cdvqa"), split="CDVQA_Test2")
    assert convert(source, tmp_path / "out", split="test2").samples == 3
    with pytest.raises(InputError, match=r"holds the splits .*; name one with --split"):
        convert(source, tmp_path / "out")
    with pytest.raises(InputError, match="holds no Train_questions"):
        convert(source, tmp_path / "out", split="Train")


def test_inactive_entries_and_unknown_types(tmp_path: Path) -> None:
    source = official(tmp_path / "cdvqa", asked=[*ASKED, ("colour", "Which?", "no")])
    edit(source / "Val_questions.json", "questions", active=False)
    done = convert(source, tmp_path / "out")
    assert done.samples == 3
    assert done.notes == ["question types that CDVQA does not have: colour"]


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("questions", {"img_id": 99}, "names the image 99"),
        ("questions", {"question": None}, "lacks 'question'"),
        ("questions", {"id": 0}, "repeats the id 0"),
        ("questions", {"id": "1"}, "no whole number 'id'"),
        ("answers", {"answer": "perhaps"}, "'perhaps', which is not among CDVQA's 19"),
        ("answers", {"active": False}, "has 0 different answers"),
        ("images", {"file_name": "../../x.png"}, "not a plain file name"),
        ("images", {"file_name": "99999.png"}, "the image 99999.png was expected in im1 and im2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, part: str, change: dict, sentence: str) -> None:
    source = official(tmp_path / "cdvqa")
    edit(source / f"Val_{part}.json", part, **change)
    with pytest.raises(InputError, match=sentence):
        convert(source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no \*_questions.json"):
        convert(tmp_path / "empty", tmp_path / "out")
    source = official(tmp_path / "cdvqa")
    (source / "Val_answers.json").write_text("[]")
    with pytest.raises(InputError, match="should be an object with a list 'answers'"):
        convert(source, tmp_path / "out")
    (source / "Val_answers.json").write_text('{"answers": [')
    with pytest.raises(InputError, match="is not valid JSON"):
        convert(source, tmp_path / "out")
    (source / "Val_answers.json").unlink()
    with pytest.raises(InputError, match=r"lacks the file \*val_answers.json"):
        convert(source, tmp_path / "out")


def test_adapters_resolve_by_name() -> None:
    assert resolve_adapter("cdvqa") is convert
    assert "levir-cd" in ADAPTERS
    with pytest.raises(ConfigError, match="no adapter is named 'cdvq'; did you mean 'cdvqa'"):
        resolve_adapter("cdvq")
