"""The levir-mci adapter on a small folder in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Task
from rsw_rewards.core.scores import Status
from rsw_rewards.data import levir_mci
from rsw_rewards.data.levir_cc import SCENES
from rsw_rewards.data.levir_mci import CLASSES, convert
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.verifiers.class_maps import ClassMap, ClassMapConfig

MAP = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
CAPTIONS = [
    {"filename": "test_000001.png", "split": "test", "changeflag": 1, "sentences": [{"raw": " a house; a road ."}]},
    {
        "filename": "test_000002.png",
        "split": "test",
        "changeflag": 0,
        "sentences": [{"raw": " there is no difference ."}],
    },
]


def official(source: Path) -> Path:
    for split in ("train", "test"):
        for n in (1, 2):
            for role in ("A", "B", "label", "label_rgb"):
                folder = source / "images" / split / role
                folder.mkdir(parents=True, exist_ok=True)
                pixels = np.repeat(np.array([0, 128, 255], np.uint8)[MAP][..., None], 3, axis=-1)
                write_png(folder / f"{split}_{n:06d}.png", pixels)
    (source / "LevirCCcaptions.json").write_text(json.dumps({"images": CAPTIONS}))
    return source


def test_masks_are_scored_as_indices(tmp_path: Path) -> None:
    source = official(tmp_path / "mci")
    done = convert(source, tmp_path / "out", split="test")
    sample, other = load_samples(done.file, done.roots)
    assert (sample.id, sample.task, sample.scene) == (
        "levir_mci/test_000001", Task.CHANGE_MASK, "levir_cc/test_000001",
    )  # fmt: skip
    assert other.id == "levir_mci/test_000002"
    assert sample.reference["classes"] == list(CLASSES) == ["background", "road", "building"]
    verifier = ClassMap(ClassMapConfig())
    truth = verifier.truth(sample)
    assert not hasattr(truth, "status"), truth
    assert np.array_equal(truth.maps[0], MAP)
    score = verifier.compare(truth, Output(sample.id, mask=ImageRef(array=MAP)))
    assert (score.status, score.raw["miou"]) == (Status.OK, 1.0)


def test_captions(tmp_path: Path) -> None:
    done = convert(official(tmp_path / "mci"), tmp_path / "out", task="caption")
    samples = load_samples(done.file, done.roots)
    assert [(sample.id, sample.kind) for sample in samples] == [
        ("levir_mci/test_000001", "changed"), ("levir_mci/test_000002", "unchanged"),
    ]  # fmt: skip
    assert {sample.task for sample in samples} == {Task.CHANGE_CAPTION}
    assert [sample.reference["captions"] for sample in samples] == [["a house ; a road"], ["there is no difference"]]
    (tmp_path / "mci" / "LevirCCcaptions.json").write_text(
        json.dumps({"images": [CAPTIONS[0] | {"sentences": [{"tokens": ["a", "house"]}]}]})
    )
    with pytest.raises(InputError, match="a sentence without the text 'raw'"):
        convert(tmp_path / "mci", tmp_path / "out", task="caption")
    with pytest.raises(ConfigError, match="'mask' or 'caption', not 'both'"):
        convert(tmp_path / "mci", tmp_path / "out", task="both")


def test_other_counts_than_the_authors_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = official(tmp_path / "mci")
    (note,) = convert(source, tmp_path / "out", split="test").notes[1:]
    assert note.startswith("test has 2 tiles with a label, where the authors' list names 1,929")
    monkeypatch.setitem(levir_mci.TILES, "test", 2)
    assert convert(source, tmp_path / "out", split="test").notes == [SCENES]


def test_splits(tmp_path: Path) -> None:
    source = official(tmp_path / "mci")
    assert convert(source, tmp_path / "out").samples == 4
    assert convert(source, tmp_path / "out", limit=3).samples == 3
    (source / "images").rename(source / "renamed")
    assert convert(source / "renamed", tmp_path / "out", split="train").samples == 2
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        convert(source / "renamed", tmp_path / "out", split="val")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
    source = official(tmp_path / "mci")
    (source / "images" / "test" / "A" / "test_000002.png").unlink()
    with pytest.raises(InputError, match=r"test_000002 was expected in .*A"):
        convert(source, tmp_path / "out")
    for label in source.glob("images/*/label"):
        label.rename(label.with_name("masks"))
    with pytest.raises(InputError, match="should hold images/<split>/A, B and label"):
        convert(source, tmp_path / "out")
    (source / "LevirCCcaptions.json").unlink()
    with pytest.raises(InputError, match=r"has no LevirCCcaptions.json"):
        convert(source, tmp_path / "out", task="caption")
