"""The qag-360k adapter on a small folder in the official layout, and on the real questions that are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.qag_360k import VOCABULARY, convert
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import read_mask, write_png
from rsw_rewards.io.records_io import load_samples
from tests.shared_data import shared

QUESTIONS: list[dict[str, Any]] = [
    {"id": 7, "img_id": "00004.png", "question": "From what?", "type": "change_from_what", "answer": "trees"},
    {"id": 8, "img_id": "00004.png", "question": "Did it change?", "type": "change_or_not", "answer": "no"},
    {"id": 9, "img_id": "1_2.png", "question": "What?", "type": "largest_change", "answer": "green_house"},
]


def official(root: Path, split: str = "Test", questions: list[dict[str, Any]] = QUESTIONS) -> Path:
    (root / "json").mkdir(parents=True)
    (root / "json" / f"{split}.json").write_text(json.dumps({"question": questions}))
    for date in ("im1", "im2"):
        (root / "image" / date).mkdir(parents=True)
        for name in ("00004.png", "1_2.png"):
            write_png(root / "image" / date / name, np.zeros((2, 2, 3), np.uint8))
    (root / "mask").mkdir()
    for entry in questions:
        write_png(root / "mask" / f"{entry['id']}.png", np.array([[255, 0], [0, 0]], np.uint8))
    return root


def edit(root: Path, **changes: object) -> None:
    (root / "json" / "Test.json").write_text(json.dumps({"question": [QUESTIONS[0], QUESTIONS[1] | changes]}))


def test_samples(tmp_path: Path) -> None:
    source = official(tmp_path / "qag" / "test").parent
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert (done.roots, done.notes) == ([source], [])
    assert [(sample.id, sample.scene, sample.kind) for sample in samples] == [
        ("qag_360k/test/7", "second/00004", "change_from_what"),
        ("qag_360k/test/8", "second/00004", "change_or_not"),
        ("qag_360k/test/9", "qag_360k/1_2", "largest_change"),
    ]
    assert {sample.task for sample in samples} == {Task.CHANGE_QA}
    assert [sample.reference["answers"] for sample in samples] == [["trees"], ["no"], ["green_house"]]
    assert read_mask(samples[0].reference["mask"]).tolist() == [[True, False], [False, False]]
    assert all(image.pixels().shape == (2, 2, 3) for sample in samples for image in sample.images)


def test_vocabulary() -> None:
    assert (len(VOCABULARY), len(set(VOCABULARY))) == (23, 23)


def test_splits(tmp_path: Path) -> None:
    source = tmp_path / "qag"
    official(source / "test")
    official(source / "Train", "Train")
    assert convert(source, tmp_path / "out").samples == 6
    assert convert(source, tmp_path / "out", split="Train", limit=2).samples == 2
    done = convert(source / "test", tmp_path / "out")
    assert load_samples(done.file, done.roots)[0].id == "qag_360k/test/7"
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        convert(source, tmp_path / "out", split="val")
    with pytest.raises(InputError, match=r"holds Test.json, not the split 'val'"):
        convert(source / "test", tmp_path / "out", split="val")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": "lawn"}, "'lawn', which is not among QAG-360K's 23"),
        ({"id": 7}, "repeats the id 7"),
        ({"id": True}, "lacks 'id'"),
        ({"id": "../7"}, "'../7.png' in .* is not a plain file name"),
        ({"id": 70}, r"the image 70.png was expected in .*mask"),
        ({"img_id": "a/b.png"}, "'a/b.png' in .* is not a plain file name"),
        ({"img_id": "2.png"}, r"the image 2.png was expected in .*im1"),
        ({"question": None}, "lacks 'question'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    source = official(tmp_path / "qag")
    edit(source, **change)
    with pytest.raises(InputError, match=sentence):
        convert(source, tmp_path / "out")


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    source = official(tmp_path / "qag")
    edit(source, type="colour")
    assert convert(source, tmp_path / "out").notes == ["question types that QAG-360K does not have: colour"]
    (source / "json" / "Other.json").write_text("{}")
    with pytest.raises(InputError, match=r"should hold json/<Split>.json, image and mask, or train"):
        convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out", split="test").samples == 2
    shutil.rmtree(source / "mask")
    with pytest.raises(InputError, match="should hold image/im1, image/im2 and mask beside json"):
        convert(source, tmp_path / "out", split="test")


def test_real_questions(tmp_path: Path) -> None:
    data = shared("data/second_qag").parent
    entries = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines() if line.strip()]
    source = tmp_path / "qag"
    for folder in ("json", "mask", "image/im1", "image/im2"):
        (source / folder).mkdir(parents=True)
    questions = []
    for entry in entries:
        stem = entry["id"].rpartition("/")[2]
        for number, asked in enumerate(asked for asked in entry.get("qa", ()) if asked.get("mask")):
            own = f"{stem}_q{number}"
            for date, key in (("im1", "t1"), ("im2", "t2")):
                shutil.copy(data / entry[key], source / "image" / date / f"{stem}.png")
            shutil.copy(data / asked["mask"], source / "mask" / f"{own}.png")
            kept = {key: asked[key] for key in ("question", "type", "answer")}
            questions.append({"id": own, "img_id": f"{stem}.png", **kept})
    (source / "json" / "Val.json").write_text(json.dumps({"question": questions}))
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert (len(samples), done.notes) == (10, [])
    assert {sample.scene for sample in samples} == {"second/00004", "second/00012"}
    masks = [read_mask(sample.reference["mask"]) for sample in samples]
    assert all(mask.shape == (512, 512) for mask in masks)
    assert all(mask.any() for mask in masks)
