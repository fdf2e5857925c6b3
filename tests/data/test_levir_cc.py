"""The levir-cc adapter on a small folder in the official layout, and on three real pairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.levir_cc import convert
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples
from tests.shared_data import shared


def record(name: str, split: str, changed: int, *captions: str) -> dict[str, Any]:
    """An entry of the official file, with fields that the adapter does not need."""
    sentences = [
        {"tokens": raw.replace(".", "").split(), "raw": raw, "imgid": 0, "sentid": n} for n, raw in enumerate(captions)
    ]
    return {
        "filepath": split, "filename": name, "imgid": 0, "sentids": [0], "split": split,
        "changeflag": changed, "sentences": sentences,
    }  # fmt: skip


RECORDS = [
    record("train_000001.png", "train", 1, " a house appears . ", "a road too ."),
    record("test_000004.png", "test", 0, "no change has occurred ."),
    record("test_000005.png", "test", 1, "trees are removed ."),
]


def official(source: Path, records: list[dict[str, Any]] = RECORDS, images: str = "images") -> Path:
    """``LevirCCcaptions.json`` with the folders A and B of each split."""
    source.mkdir(parents=True, exist_ok=True)
    (source / "LevirCCcaptions.json").write_text(json.dumps({"images": records, "dataset": "LEVIR-CC"}))
    for entry in records:
        for date in "AB":
            folder = source / images / entry["split"] / date
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / entry["filename"], np.zeros((4, 4, 3), np.uint8))
    return source


def test_samples(tmp_path: Path) -> None:
    source = official(tmp_path / "levir")
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert (done.samples, done.roots) == (3, [source])
    assert [sample.id for sample in samples] == [f"levir_cc/{r['filename'][:-4]}" for r in RECORDS]
    assert {sample.task for sample in samples} == {Task.CHANGE_CAPTION}
    assert [sample.kind for sample in samples] == ["changed", "unchanged", "changed"]
    assert [sample.reference["changed"] for sample in samples] == [True, False, True]
    assert samples[0].reference["captions"] == ["a house appears", "a road too"]
    assert samples[1].scene == "levir_cc/test_000004"
    assert samples[1].metadata == {"dataset": "levir_cc", "split": "test", "gsd_m": 0.5, "changeflag": False}
    paths = [image.path for image in samples[1].images]
    assert [path.relative_to(source).as_posix() for path in paths if path] == [
        "images/test/A/test_000004.png", "images/test/B/test_000004.png",
    ]  # fmt: skip
    assert samples[1].images[0].pixels().shape == (4, 4, 3)


def test_splits_limits_and_other_spellings(tmp_path: Path) -> None:
    source = official(tmp_path / "levir", images="Images")
    for date in "AB":
        folder = source / "Images" / "test" / date
        (folder / "test_000005.png").rename(folder / "Test_000005.PNG")
    done = convert(source, tmp_path / "out", split="Test")
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == ["levir_cc/test_000004", "levir_cc/test_000005"]
    assert all(image.pixels().size for sample in samples for image in sample.images)
    assert convert(source, tmp_path / "out", limit=1).samples == 1
    with pytest.raises(InputError, match="holds the splits train, test, not 'dev'"):
        convert(source, tmp_path / "out", split="dev")


def test_without_imagery_captions_can_still_be_scored(tmp_path: Path) -> None:
    source = official(tmp_path / "levir")
    shutil.rmtree(source / "images")
    done = convert(source, tmp_path / "out")
    assert "no imagery in" in done.notes[-1]
    assert len(load_samples(done.file, done.roots)) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"filename": "../x.png"}, "'../x.png' in .*entry 1 of 'images' is not a plain file name"),
        ({"filename": "none.png"}, "the image none.png was expected in .*A"),
        ({"split": "../x"}, "'../x' in 'split' of"),
        ({"split": "val"}, "should hold the folders A and B of val"),
        ({"changeflag": 2}, "changeflag 2; it should be 0 or 1"),
        ({"changeflag": None}, "has no changeflag for test_000004.png"),
        ({"sentences": "x"}, "lacks the list 'sentences'"),
        ({"sentences": [{"raw": " a road ."}]}, "a sentence without 'tokens', the list of its words"),
        ({"sentences": [{"tokens": ["a", 2]}]}, "a sentence without 'tokens', the list of its words"),
        ({"sentences": [{"tokens": []}]}, "has no caption"),
        ({"filename": "test_000005.png"}, "names the image test_000005.png of test twice"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    source = official(tmp_path / "levir")
    records = [RECORDS[0], RECORDS[1] | change, RECORDS[2]]
    (source / "LevirCCcaptions.json").write_text(json.dumps({"images": records}))
    with pytest.raises(InputError, match=sentence):
        convert(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a folder; give the one that holds LevirCCcaptions.json"):
        convert(tmp_path / "none", tmp_path / "out")
    source = official(tmp_path / "levir")
    (source / "images" / "test" / "B" / "test_000004.png").unlink()
    with pytest.raises(InputError, match=r"test_000004.png was expected in .*B"):
        convert(source, tmp_path / "out")
    (source / "LevirCCcaptions.json").unlink()
    with pytest.raises(InputError, match="should lie beside the folder images"):
        convert(source, tmp_path / "out")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    source = official(tmp_path / "levir")
    (source / "images").rename(tmp_path / "elsewhere")
    (source / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        convert(source, tmp_path / "out")


def test_real_pairs(tmp_path: Path) -> None:
    data = shared("data/levir_cc")
    known = [json.loads(line) for line in (data.parent / "manifest.jsonl").read_text().splitlines() if line.strip()]
    known = [entry for entry in known if entry["source"] == "LEVIR-CC"]
    source = tmp_path / "levir"
    records = []
    for entry in known:
        name = f"{entry['id'].rpartition('/')[2]}.png"
        for date, key in (("A", "t1"), ("B", "t2")):
            folder = source / "images" / "train" / date
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(data.parent / entry[key], folder / name)
        records.append(record(name, "train", entry["changeflag"], *(f" {c} ." for c in entry["captions"])))
    (source / "LevirCCcaptions.json").write_text(json.dumps({"images": records}))
    samples = load_samples(convert(source, tmp_path / "out").file, [source])
    assert [len(sample.reference["captions"]) for sample in samples] == [5, 5, 5]
    assert all(image.pixels().shape == (256, 256, 3) for sample in samples for image in sample.images)
