"""The levir-cd adapter on small folders in the layouts that are in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.levir_cd import convert, scene_of
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples
from tests.shared_data import shared

CROPS = ["test_2_0000_0512", "test_10_0000_0000", "train_3_0256_0000"]


def layout(folder: Path, stems: list[str], names: tuple[str, str, str] = ("A", "B", "label")) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for stem in stems:
            write_png(folder / name / f"{stem}.png", np.zeros((4, 4), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("stem", "scene"),
    [
        ("test_102_0512_0000", "test_102"), ("train_7_12", "train_7"), ("val_9", "val_9"), ("0001", "0001"),
        ("test_102_0512_0000_extra", "test_102_0512_0000_extra"),
    ],
)  # fmt: skip
def test_crops_of_one_tile_are_one_scene(stem: str, scene: str) -> None:
    assert scene_of(stem) == f"levir_cd/{scene}"


@pytest.mark.parametrize("names", [("A", "B", "label"), ("t1", "t2", "mask")])
def test_flat_folders(tmp_path: Path, names: tuple[str, str, str]) -> None:
    source = layout(tmp_path / "levir", CROPS, names)
    (source / names[0] / "Thumbs.db").write_bytes(b"")
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == [f"levir_cd/{stem}" for stem in CROPS]
    assert [sample.scene for sample in samples] == ["levir_cd/test_2", "levir_cd/test_10", "levir_cd/train_3"]
    assert {sample.task for sample in samples} == {Task.CHANGE_MASK}
    assert [image.path.parent.name for image in samples[0].images if image.path] == list(names[:2])
    assert samples[0].reference["mask"].pixels().shape == (4, 4)


def test_splits_by_name_and_by_list(tmp_path: Path) -> None:
    source = layout(tmp_path / "levir", CROPS)
    assert convert(source, tmp_path / "out", split="test").samples == 2
    assert convert(source, tmp_path / "out", split="test", limit=1).samples == 1
    with pytest.raises(InputError, match=r"no list/val.txt and no image named val_\*"):
        convert(source, tmp_path / "out", split="val")
    (source / "list").mkdir()
    (source / "list" / "val.txt").write_text("train_3_0256_0000.png\n")
    done = convert(source, tmp_path / "out", split="val")
    assert [sample.id for sample in load_samples(done.file, done.roots)] == ["levir_cd/val/train_3_0256_0000"]
    (source / "list" / "val.txt").write_text("none.png\n")
    with pytest.raises(InputError, match="lacks an image named none"):
        convert(source, tmp_path / "out", split="val")


def test_split_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        layout(tmp_path / "levir" / split, [f"{split}_1", "1"])
    done = convert(tmp_path / "levir", tmp_path / "out")
    ids = [sample.id for sample in load_samples(done.file, done.roots)]
    assert ids == ["levir_cd/train/1", "levir_cd/train_1", "levir_cd/test/1", "levir_cd/test_1"]
    assert convert(tmp_path / "levir", tmp_path / "out", split="test").samples == 2
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        convert(tmp_path / "levir", tmp_path / "out", split="val")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty" / "A").mkdir(parents=True)
    with pytest.raises(InputError, match="should hold folders A, B and label"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="hold no images"):
        convert(layout(tmp_path / "bare", []), tmp_path / "out")
    source = layout(tmp_path / "levir", CROPS)
    (source / "label" / f"{CROPS[1]}.png").unlink()
    with pytest.raises(InputError, match=f"label lacks an image named {CROPS[1]}"):
        convert(source, tmp_path / "out")
    write_png(source / "B" / f"{CROPS[0]}.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="differ in more than the suffix"):
        convert(source, tmp_path / "out")


def test_real_crops(tmp_path: Path) -> None:
    done = convert(shared("data/levir_cd"), tmp_path)
    samples = load_samples(done.file, done.roots)
    assert len(samples) == 11
    assert all(sample.scene.count("_") == 2 for sample in samples)
    assert all(image.pixels().shape == (256, 256, 3) for image in samples[0].images)
