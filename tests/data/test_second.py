"""The adapters second and second-cc on small folders in the official layouts, with labels in the official colours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data import second_cc as second_cc_module
from rsw_rewards.data.second import PALETTE, convert, scene_of
from rsw_rewards.data.second_cc import NO_CHANGE
from rsw_rewards.data.second_cc import convert as convert_cc
from rsw_rewards.data.second_cc import scene_of as crop_scene
from rsw_rewards.errors import ConfigError, ImageError, InputError
from rsw_rewards.io.images import read_index, write_png
from rsw_rewards.io.records_io import load_samples

COLOURS = np.array(list(PALETTE.values()), np.uint8)
BEFORE, AFTER = np.array([[0, 1, 2, 3]], np.uint8), np.array([[0, 4, 5, 6]], np.uint8)
STEMS = ("00003", "00012")


def folders(parent: Path, roles: dict[str, np.ndarray], names: tuple[str, ...] = STEMS) -> None:
    for role, pixels in roles.items():
        (parent / role).mkdir(parents=True)
        for name in names:
            write_png(parent / role / f"{name}.png", pixels)


def second(parent: Path, coloured: bool = True) -> Path:
    picture = np.zeros((1, 4, 3), np.uint8)
    maps = [COLOURS[labels] if coloured else labels for labels in (BEFORE, AFTER)]
    folders(parent, {"im1": picture, "im2": picture, "label1": maps[0], "label2": maps[1]})
    return parent


@pytest.mark.parametrize("coloured", [True, False])
def test_labels_become_indices(tmp_path: Path, coloured: bool) -> None:
    source = second(tmp_path / "SECOND", coloured)
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert [(sample.id, sample.scene) for sample in samples] == [(f"second/{s}", f"second/{s}") for s in STEMS]
    assert samples[0].task is Task.SEMANTIC_CHANGE
    assert samples[0].reference["classes"] == list(PALETTE)
    assert np.array_equal(read_index(samples[0].reference["map_before"]), BEFORE)
    assert np.array_equal(read_index(samples[0].reference["map_after"]), AFTER)
    assert not list((tmp_path / "out").glob("*.png"))


def test_official_order_of_classes() -> None:
    assert list(PALETTE) == ["not changed", "water", "ground", "low vegetation", "tree", "building", "playground"]
    assert PALETTE["low vegetation"] == (0, 128, 0) and PALETTE["tree"] == (0, 255, 0)


def test_split_folders_with_capitals(tmp_path: Path) -> None:
    """As the README of Bi-SRNet has them."""
    for split in ("Train", "Val", "Test"):
        second(tmp_path / "SECOND" / split)
    done = convert(tmp_path / "SECOND", tmp_path / "out")
    splits = [sample.metadata["split"] for sample in load_samples(done.file, done.roots)]
    assert splits == ["train", "train", "val", "val", "test", "test"]
    done = convert(tmp_path / "SECOND", tmp_path / "out", split="Test")
    assert [sample.id for sample in load_samples(done.file, done.roots)] == [f"second/test/{stem}" for stem in STEMS]


def test_split_folders(tmp_path: Path) -> None:
    source = tmp_path / "SECOND"
    for split in ("train", "test"):
        second(source / split)
    assert convert(source, tmp_path / "out").samples == 4
    done = convert(source, tmp_path / "out", split="test", limit=1)
    assert [sample.id for sample in load_samples(done.file, done.roots)] == ["second/test/00003"]
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        convert(source, tmp_path / "out", split="val")
    with pytest.raises(InputError, match="no split 'test'; leave --split out"):
        convert(source / "train", tmp_path / "out", split="test")
    with pytest.raises(InputError, match=r"'\.\./x' in --split is not a plain file name"):
        convert(source, tmp_path / "out", split="../x")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
    source = second(tmp_path / "SECOND", coloured=False)
    write_png(source / "label1" / "00003.png", np.array([[7]], np.uint8))
    with pytest.raises(InputError, match=r"label1/00003.png holds neither the colours of SECOND nor indices below 7"):
        convert(source, tmp_path / "out")
    (source / "im2" / "00012.png").unlink()
    write_png(source / "label1" / "00003.png", BEFORE)
    with pytest.raises(InputError, match=r"the image 00012 was expected in .*im2"):
        convert(source, tmp_path / "out")
    shutil.rmtree(source / "im1")
    with pytest.raises(InputError, match="should hold im1, im2, label1 and label2"):
        convert(source, tmp_path / "out")


def test_scenes() -> None:
    assert (scene_of("00003"), scene_of("tile_1", "qag_360k")) == ("second/00003", "qag_360k/tile_1")
    assert (crop_scene("00001_0_1"), crop_scene("crop")) == ("second_cc/00001", "second_cc/crop")


CROPS = ("00001_0_0", "00001_0_1")
TEXTS = ("almost nothing is changed", "a road is built")


def second_cc(source: Path, flags: bool = True) -> Path:
    picture = np.zeros((1, 4, 3), np.uint8)
    roles = {"rgb/A": picture, "rgb/B": picture, "sem/A": COLOURS[BEFORE], "sem/B": COLOURS[AFTER]}
    for split in ("train", "test"):
        folders(source / split, roles, CROPS)
    records = [
        {
            "filename": f"{crop}.png", "split": split, "filepath": split, "sentences": [{"raw": f" {text} .", "tokens": text.split()}],
            **({"changeflag": n} if flags else {}),
        }
        for split in ("train", "test") for n, (crop, text) in enumerate(zip(CROPS, TEXTS, strict=True))
    ]  # fmt: skip
    (source / "SECOND-CC-AUG.json").write_text(json.dumps({"images": records}))
    return source


def test_captions_of_second_cc(tmp_path: Path) -> None:
    source = second_cc(tmp_path / "cc")
    done = convert_cc(source, tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [(sample.id, sample.scene, sample.kind) for sample in samples] == [
        ("second_cc/test/00001_0_0", "second_cc/00001", "unchanged"),
        ("second_cc/test/00001_0_1", "second_cc/00001", "changed"),
    ]
    assert samples[0].reference["captions"] == ["almost nothing is changed"]
    assert {tuple(sample.reference["no_change"]) for sample in samples} == {NO_CHANGE}
    assert all(image.pixels().shape == (1, 4, 3) for sample in samples for image in sample.images)
    assert done.notes == []
    (tmp_path / "cc" / "SECOND-CC-AUG.json").unlink()
    with pytest.raises(InputError, match=r"has no SECOND-CC-AUG.json"):
        convert_cc(source, tmp_path / "out")


def test_maps_of_second_cc(tmp_path: Path) -> None:
    source = second_cc(tmp_path / "cc")
    done = convert_cc(source, tmp_path / "out", task="semantic", split="train")
    samples = load_samples(done.file, done.roots)
    assert {sample.task for sample in samples} == {Task.SEMANTIC_CHANGE}
    assert np.array_equal(read_index(samples[1].reference["map_after"]), AFTER)
    write_png(source / "train" / "sem" / "B" / f"{CROPS[1]}.png", np.full((1, 4, 3), 208, np.uint8))
    with pytest.raises(ImageError, match=r"colour \(208, 208, 208\), which is not one of the 7"):
        read_index(samples[1].reference["map_after"])
    shutil.rmtree(source / "train" / "sem")
    with pytest.raises(InputError, match="should hold train/sem/A and train/sem/B"):
        convert_cc(source, tmp_path / "out", task="semantic")
    with pytest.raises(ConfigError, match="'caption' or 'semantic', not 'both'"):
        convert_cc(source, tmp_path / "out", task="both")


def test_augmented_copies_of_second_cc_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = second_cc(tmp_path / "cc")
    monkeypatch.setattr(second_cc_module, "ORIGINALS", 3)  # of the four entries, where the archive has 6,041 of 10,855
    (note,) = convert_cc(source, tmp_path / "out", split="test").notes
    assert "has 4 pairs, 3 of them original: the others are augmented copies" in note


def test_second_cc_without_imagery_or_changeflag(tmp_path: Path) -> None:
    source = second_cc(tmp_path / "cc", flags=False)
    shutil.rmtree(source / "test" / "rgb")
    with pytest.raises(InputError, match="should hold test/rgb/A and test/rgb/B"):
        convert_cc(source, tmp_path / "out")
    done = convert_cc(source, tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [sample.kind for sample in samples] == ["unchanged", "changed"]  # by the captions, not by a flag
    assert "changeflag" not in samples[0].metadata
    assert len(done.notes) == 1 and "imagery" in done.notes[0]
