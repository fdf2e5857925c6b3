"""The rsvqa adapters on a small folder in the official layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.rsvqa import rsvqa_hr, rsvqa_lr
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples

ASKED = [
    ("presence", "Is a road present?", "yes"),
    ("count", "How many roads?", "17"),
    ("area", "Built area?", "312m2"),
]


def official(folder: Path, split: str = "test", images: str | None = "Data") -> Path:
    """Every file lists all ids; what is of another split is inactive and empty. Questions 1 to 3 are of this one."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = {"id": 0, "active": False}
    parts: dict[str, list[dict[str, Any]]] = {part: [empty] for part in ("questions", "answers", "images")}
    for n, (kind, text, answer) in enumerate(ASKED, start=1):
        ids = {"id": n, "date_added": 0, "people_id": 0, "active": True}
        parts["questions"].append({**ids, "img_id": n // 2 + 1, "type": kind, "question": text, "answers_ids": [n]})
        parts["answers"].append({**ids, "question_id": n, "answer": answer})
    for n in (1, 2):
        parts["images"].append(
            {"id": n, "original_name": f"692237_{512 * n}-0.tif", "questions_ids": [], "active": True}
        )
    for part, records in parts.items():
        (folder / f"USGS_split_{split}_{part}.json").write_text(json.dumps({part: records}))
    if images is not None:
        (folder / images).mkdir(exist_ok=True)
        for n in (1, 2):
            write_png(folder / images / f"{n}.png", np.zeros((4, 4, 3), np.uint8))
    return folder


def edit(file: Path, part: str, **changes: object) -> None:
    loaded = json.loads(file.read_text())
    loaded[part][2] |= changes
    file.write_text(json.dumps(loaded))


def test_questions_keep_their_raw_answers(tmp_path: Path) -> None:
    source = official(tmp_path / "hr")
    done = rsvqa_hr(source, tmp_path / "out")
    assert (done.samples, done.roots, done.notes) == (3, [source], [])
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == [f"rsvqa_hr/test/{n}" for n in (1, 2, 3)]
    assert [sample.reference["answers"] for sample in samples] == [["yes"], ["17"], ["312m2"]]
    assert [sample.kind for sample in samples] == ["presence", "count", "area"]
    assert {sample.scene for sample in samples} == {"rsvqa_hr/692237"}
    assert {sample.task for sample in samples} == {Task.CHANGE_QA}
    assert [[image.path.name for image in sample.images if image.path] for sample in samples] == [
        ["1.png"],
        ["2.png"],
        ["2.png"],
    ]
    assert samples[0].images[0].pixels().shape == (4, 4, 3)


def test_the_other_variant_and_missing_images_are_named(tmp_path: Path) -> None:
    done = rsvqa_lr(official(tmp_path / "lr", images=None), tmp_path / "out", limit=3)
    assert "no folder Images_LR or data or images in" in done.notes[0]
    assert done.notes[1] == "question types that rsvqa_lr does not have: area; is this the other variant?"
    assert load_samples(done.file, done.roots)[0].id == "rsvqa_lr/test/1"


def test_splits(tmp_path: Path) -> None:
    source = official(official(tmp_path / "hr"), split="test_phili")
    assert rsvqa_hr(source, tmp_path / "out", split="Test_Phili").samples == 3
    with pytest.raises(InputError, match="holds the splits test, test_phili; name one with --split"):
        rsvqa_hr(source, tmp_path / "out")
    with pytest.raises(InputError, match="not 'train'"):
        rsvqa_hr(source, tmp_path / "out", split="train")


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("questions", {"img_id": 99}, "names the image 99"),
        ("questions", {"question": None}, "lacks 'question'"),
        ("questions", {"id": 1}, "repeats the id 1"),
        ("answers", {"active": False}, "question 2 has 0 different answers"),
        ("images", {"id": "2"}, "lacks 'id'"),
        ("images", {"active": False}, "names the image 2"),
        ("images", {"id": 7}, "names the image 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, part: str, change: dict, sentence: str) -> None:
    source = official(tmp_path / "hr")
    edit(source / f"USGS_split_test_{part}.json", part, **change)
    with pytest.raises(InputError, match=sentence):
        rsvqa_hr(source, tmp_path / "out")


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give the one that holds RSVQA_HR's"):
        rsvqa_hr(tmp_path / "none", tmp_path / "out")
    source = official(tmp_path / "hr")
    (source / "Data" / "2.png").unlink()
    with pytest.raises(InputError, match=r"the image 2.tif was expected in .*Data"):
        rsvqa_hr(source, tmp_path / "out")
    (source / "USGS_split_test_answers.json").unlink()
    with pytest.raises(InputError, match=r"should hold \*_split_<split>_questions.json with"):
        rsvqa_hr(source, tmp_path / "out")
