"""The s2looking and whu-cd adapters on small folders in the official layouts; levir-cd, of the same form, has its own tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.change_sets import ONE_PLACE, s2looking, whu_cd
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import read_mask, write_png
from rsw_rewards.io.records_io import load_samples


def layout(folder: Path, names: tuple[str, ...], stems: tuple[str, ...]) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for stem in stems:
            write_png(folder / name / f"{stem}.png", np.full((4, 4), 255, np.uint8))
    return folder


def test_s2looking(tmp_path: Path) -> None:
    for split in ("train", "test"):
        layout(tmp_path / "s2" / split, ("Image1", "Image2", "label", "label1", "label2"), ("2", "10"))
    done = s2looking(tmp_path / "s2", tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == ["s2looking/test/2", "s2looking/test/10"]
    assert [sample.scene for sample in samples] == [sample.id for sample in samples]
    assert samples[0].task is Task.CHANGE_MASK
    assert [image.path.parent.name for image in samples[0].images if image.path] == ["Image1", "Image2"]
    assert samples[0].reference["mask"].path.parent.name == "label"
    assert read_mask(samples[0].reference["mask"]).all()
    assert s2looking(tmp_path / "s2", tmp_path / "out").samples == 4


def test_whu_cd(tmp_path: Path) -> None:
    source = layout(tmp_path / "whu", ("A", "B", "label"), ("whucd_00001", "whucd_00002"))
    (source / "list").mkdir()
    (source / "list" / "test.txt").write_text("whucd_00002.png\n")
    done = whu_cd(source, tmp_path / "out", split="test")
    assert [sample.id for sample in load_samples(done.file, done.roots)] == ["whu_cd/test/whucd_00002"]
    assert done.notes == [ONE_PLACE]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "bare", ("A", "B"), ("1",))
    with pytest.raises(InputError, match="should hold folders Image1, Image2 and label, or train, val and test"):
        s2looking(source, tmp_path / "out")
    with pytest.raises(InputError, match="whole rasters must be cut into tiles first"):
        whu_cd(source, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (source / "label").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        whu_cd(source, tmp_path / "out")
