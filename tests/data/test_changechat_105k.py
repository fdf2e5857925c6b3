"""The changechat-105k adapter on small files in the official form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.data.changechat_105k import CAPTION_PROMPT, convert
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.verifiers.counts import ChangeCounts
from rsw_rewards.verifiers.exact_match import ExactMatch
from rsw_rewards.verifiers.localization import GridLocalization

JUDGE = "Please judge whether these two images have changed. Please answer yes or no."
COUNT = "Please determine how many roads and buildings have changed?"
WHERE = "Please indicate the locations where changes have occurred in the buildings and roads, using a 3x3 grid."
PLACES = "roads: ['top-left']. buildings: []."


def row(*said: str, tile: str = "test_000004", changed: int = 1) -> dict[str, Any]:
    split = tile.partition("_")[0]
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
    turns[0]["value"] = f"<image> <image> {turns[0]['value']}"
    paths = [f"{split}/{date}/{tile}.png" for date in "AB"]
    return {"id": 0, "image": paths, "changeflag": changed, "conversations": turns}


CAPTIONED = {
    "image_A": "test/A/test_000004.png", "image_B": "test/B/test_000004.png", "changeflag": 0,
    "captions": [" nothing has changed . ", "the same ."],
}  # fmt: skip
FILES: dict[str, list[dict[str, Any]]] = {
    "changechat_105k_test.json": [CAPTIONED],
    "changechat_105k_test_binary.json": [row(JUDGE, "Yes"), row(JUDGE, "No", tile="test_000005", changed=0)],
    "changechat_105k_test_count.json": [row(COUNT, "2 new roads and no new buildings.")],
    "changechat_105k_test_loc.json": [row(WHERE, PLACES)],
    "changechat_105k_test_open.json": [row("What is new?", "A house."), row("Where?", "At the road.")],
    "changechat_105k_test_dialog.json": [row(JUDGE, "Yes", "How many?", "Two.")],
    "changechat_105k_train.json": [
        row("Please briefly describe the changes in these two images.", "A road.", tile="train_000001"),
        row(JUDGE, "Yes", tile="train_000001"), row(COUNT, "1 new road.", tile="train_000001"),
        row(WHERE, PLACES, tile="train_000001"), row("What?", "A road.", tile="train_000001"),
        row(JUDGE, "Yes", "Where?", "There.", tile="train_000001"),
    ],
}  # fmt: skip


def official(source: Path, files: dict[str, list[dict[str, Any]]] = FILES, below: str = "annotations") -> Path:
    (source / below).mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (source / below / name).write_text(json.dumps(rows))
    for tile in ("test_000004", "test_000005", "train_000001"):
        for date in "AB":
            folder = source / "images" / tile.partition("_")[0] / date
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"{tile}.png", np.zeros((2, 2, 3), np.uint8))
    return source


def samples_of(tmp_path: Path, split: str, **options: str) -> list[Sample]:
    done = convert(official(tmp_path / "chat"), tmp_path / "out", split=split, **options)
    return load_samples(done.file, done.roots)


def test_binary(tmp_path: Path) -> None:
    first, second = samples_of(tmp_path, "test/binary")
    assert (first.id, first.task, first.kind) == ("changechat_105k/test/binary/0", Task.CHANGE_QA, "binary")
    assert (first.prompt, first.scene) == (JUDGE, "levir_cc/test_000004")
    assert first.reference == {"answers": ["Yes"], "vocabulary": ["yes", "no"]}
    assert second.reference["answers"] == ["No"]
    assert second.metadata == {"dataset": "changechat", "split": "test", "gsd_m": 0.5, "subtask": "binary"}
    assert all(image.pixels().shape == (2, 2, 3) for image in first.images)


@pytest.mark.parametrize(
    ("split", "kind", "answer"),
    [
        ("test/count", "count", "2 new roads and no new buildings."),
        ("test/localization", "localization", PLACES),
        ("test/open", "open", "A house."),
    ],
)
def test_other_questions(tmp_path: Path, split: str, kind: str, answer: str) -> None:
    sample = samples_of(tmp_path, split)[0]
    assert (sample.task, sample.kind, sample.metadata["subtask"]) == (Task.CHANGE_QA, kind, kind)
    assert sample.reference == {"answers": [answer]}


def test_captions_and_open_questions_as_captions(tmp_path: Path) -> None:
    (sample,) = samples_of(tmp_path, "test/caption")
    assert (sample.task, sample.kind, sample.prompt) == (Task.CHANGE_CAPTION, "unchanged", CAPTION_PROMPT)
    assert sample.reference == {"captions": ["nothing has changed", "the same"], "changed": False}
    opened = samples_of(tmp_path, "test/open", open_as="caption")
    assert [(one.task, one.kind) for one in opened] == [(Task.CHANGE_CAPTION, "open")] * 2
    assert opened[1].reference == {"captions": ["At the road."]}
    with pytest.raises(ConfigError, match="'qa' or 'caption', not 'text'"):
        samples_of(tmp_path, "test/open", open_as="text")


@pytest.mark.parametrize(
    ("split", "verifier", "wrong"),
    [
        ("test/count", ChangeCounts, "2 new roads and 1 new building"),
        ("test/localization", GridLocalization, "roads ['top-left'] buildings ['top-left']"),
        ("test/binary", ExactMatch, "no"),
    ],
)
def test_the_verifiers_of_each_part_read_its_answers(
    tmp_path: Path, split: str, verifier: type[Verifier], wrong: str
) -> None:
    sample = samples_of(tmp_path, split)[0]
    texts = (sample.reference["answers"][0], wrong)
    batch = Batch([sample] * 2, [Output(sample.id, n, text=text) for n, text in enumerate(texts)], [sample.id] * 2)
    right, off = verifier().score(batch)
    assert (right.status, right.value) == (Status.OK, 1.0)
    assert off.value is not None
    assert off.value < 1.0


def test_turns_of_a_dialogue_see_the_true_answers_before_them(tmp_path: Path) -> None:
    first, second = samples_of(tmp_path, "test/dialogue")
    assert (first.id, first.prompt) == ("changechat_105k/test/dialogue/0/0", JUDGE)
    assert (second.kind, second.prompt) == ("dialogue", f"{JUDGE}\nYes\nHow many?")
    assert second.reference == {"answers": ["Two."]}


def test_kinds_of_the_training_file_are_read_from_the_questions(tmp_path: Path) -> None:
    kinds = ["caption", "binary", "count", "localization", "open", "dialogue", "dialogue"]
    samples = samples_of(tmp_path, "train")
    assert [sample.metadata["subtask"] for sample in samples] == kinds
    assert [sample.kind for sample in samples] == ["changed", *kinds[1:]]
    assert samples[0].scene == "levir_cc/train_000001"


def test_parts(tmp_path: Path) -> None:
    source = official(tmp_path / "chat")
    assert convert(source, tmp_path / "out", split="test").samples == 9
    assert convert(source, tmp_path / "out", split="TEST/Open", limit=1).samples == 1
    with pytest.raises(InputError, match=r"holds the parts test/caption, .*train; name one, or test"):
        convert(source, tmp_path / "out")
    with pytest.raises(InputError, match="not 'test/ship'"):
        convert(source, tmp_path / "out", split="test/ship")
    alone = official(tmp_path / "alone", {"changechat_105k_test_loc.json": FILES["changechat_105k_test_loc.json"]}, "")
    assert convert(alone, tmp_path / "out").samples == 1
    shutil.rmtree(alone / "images")
    assert "no imagery in" in convert(alone, tmp_path / "out").notes[-1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": ["../A/x.png", "../B/x.png"]}, "'..' in .* is not a plain file name"),
        ({"image": ["test/A/x.png", "test/B/y.png"]}, "is not the same place"),
        ({"image": ["pair_1_A.png", "pair_1_B.png"]}, r"expected are <split>/A/<name> and B"),
        ({"image": "test/A/x.png"}, "should have 'image', the paths before and after"),
        ({"image": ["test/A/x.png", "test/B/x.png"]}, r"the image x.png was expected in .*A"),
        ({"conversations": [{"from": "human", "value": "?"}]}, "questions and answers in turn"),
        ({"conversations": [{"from": "gpt", "value": "?"}] * 2}, "turn 0 of 'conversations' should be"),
        ({"changeflag": "no"}, "changeflag 'no', not a whole number"),
        ({"captions": []}, "a list of texts in 'captions'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    source = official(tmp_path / "chat", {"changechat_105k_test_binary.json": [row(JUDGE, "Yes") | change]})
    with pytest.raises(InputError, match=sentence):
        convert(source, tmp_path / "out")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no changechat_105k_test.json"):
        convert(tmp_path / "empty", tmp_path / "out")
