"""The levir-cd adapter on small folders in the layouts that are in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsw_rewards.core.records import Task
from rsw_rewards.data.levir_cd import convert, tile_of
from rsw_rewards.errors import ConfigError, InputError
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
    ("stem", "tile"),
    [
        ("test_102_0512_0000", "test_102"), ("train_7_12", "train_7"), ("val_9", "val_9"), ("0001", None),
        ("test_102_0512_0000_extra", None),
    ],
)  # fmt: skip
def test_the_tile_of_a_crop(stem: str, tile: str | None) -> None:
    assert tile_of(stem) == tile


def test_levir_cd_plus_is_not_levir_cd(tmp_path: Path) -> None:
    """Tile numbers repeat from one to the other, and are other places: LEVIR-CD+ has more of them, and no val."""
    for folder, last in (("LEVIR-CD", 128), ("LEVIR-CD+", 348)):
        layout(tmp_path / folder / "test", ["test_1", f"test_{last}"])
    found = {}
    for folder in ("LEVIR-CD", "LEVIR-CD+"):
        done = convert(tmp_path / folder, tmp_path / "out", split="test", limit=1)
        (found[folder],) = load_samples(done.file, done.roots)
    assert [sample.id for sample in found.values()] == ["levir_cd/test_1", "levir_cd_plus/test_1"]
    assert [sample.scene for sample in found.values()] == ["levir_cd/test_1", "levir_cd_plus/test_1"]
    assert [sample.metadata["dataset"] for sample in found.values()] == ["levir_cd", "levir_cd_plus"]


def test_another_data_set_in_this_layout_has_its_own_name(tmp_path: Path) -> None:
    source = layout(tmp_path / "dsifn" / "test", ["0", "1001"], ("t1", "t2", "mask")).parent
    with pytest.raises(InputError, match=r"LEVIR-CD calls none so; name the data set: --set dataset=dsifn_cd"):
        convert(source, tmp_path / "out")
    done = convert(source, tmp_path / "out", dataset="dsifn_cd")
    (first, _) = load_samples(done.file, done.roots)
    assert (first.id, first.scene) == ("dsifn_cd/test/0", "dsifn_cd/test/0")
    assert first.metadata == {"dataset": "dsifn_cd", "split": "test"}
    with pytest.raises(ConfigError, match="small letters, digits and underscores, not 'DSIFN-CD'"):
        convert(source, tmp_path / "out", dataset="DSIFN-CD")


def test_masks_of_0_and_1_are_refused_when_they_are_read(tmp_path: Path) -> None:
    """DSIFN's masks hold 0 and 1, those of its test part in TIFF; the first ones may mark nothing."""
    source = layout(tmp_path / "dsifn" / "test", ["1", "2"], ("t1", "t2", "mask")).parent
    (source / "test" / "mask" / "2.png").unlink()
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(source / "test" / "mask" / "2.tif")
    with pytest.raises(InputError, match=r"a mask of dsifn_cd cannot be scored: .*2\.tif.*values 0 and 1"):
        convert(source, tmp_path / "out", dataset="dsifn_cd")
    assert not list((tmp_path / "out").glob("*"))
    write_png(source / "test" / "mask" / "2.png", np.eye(4, dtype=np.uint8) * 255)
    (source / "test" / "mask" / "2.tif").unlink()
    assert convert(source, tmp_path / "out", dataset="dsifn_cd").samples == 2


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
    done = convert(tmp_path / "levir", tmp_path / "out", dataset="levir_cd")
    ids = [sample.id for sample in load_samples(done.file, done.roots)]
    assert ids == ["levir_cd/train/1", "levir_cd/train_1", "levir_cd/test/1", "levir_cd/test_1"]
    assert convert(tmp_path / "levir", tmp_path / "out", split="test", dataset="levir_cd").samples == 2
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        convert(tmp_path / "levir", tmp_path / "out", split="val", dataset="levir_cd")


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
