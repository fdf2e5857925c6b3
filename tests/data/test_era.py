"""The era adapter on a small folder of extracted frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Task
from rsw_rewards.data.era import convert, evenly
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples


def layout(folder: Path, frames: int = 12) -> Path:
    for split, classes in (("Train", ("Fire", "Flood", "Police_chase")), ("Test", ("Fire", "Flood"))):
        for name in classes:
            clip = folder / split / name / f"{name}_001"
            clip.mkdir(parents=True)
            for number in range(1, frames + 1):
                write_png(clip / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
    return folder


@given(st.integers(1, 200), st.integers(1, 40))
def test_frames_are_evenly_spaced(total: int, wanted: int) -> None:
    chosen = evenly(total, wanted)
    assert len(chosen) == min(total, wanted)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < total
    assert chosen[0] == total - 1 - chosen[-1] or abs(chosen[0] - (total - 1 - chosen[-1])) <= 1


def test_samples(tmp_path: Path) -> None:
    source = layout(tmp_path / "era")
    done = convert(source, tmp_path / "out", split="test", frames=3)
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == ["era/test/Fire/Fire_001", "era/test/Flood/Flood_001"]
    assert samples[0].task is Task.CLASSIFICATION
    assert samples[0].reference["label"] == "Fire"
    assert samples[0].reference["vocabulary"] == ["Fire", "Flood", "Police chase"]  # those of both splits
    assert "Fire, Flood, Police chase" in samples[0].prompt
    assert [image.path.name for image in samples[0].images if image.path] == ["3.png", "7.png", "11.png"]
    assert "3 classes were found, where the data set has 25" in done.notes[0]
    assert convert(source, tmp_path / "out").samples == 5
    assert convert(source / "Test", tmp_path / "out").samples == 2


def test_videos_are_not_decoded(tmp_path: Path) -> None:
    source = layout(tmp_path / "era")
    (source / "Test" / "Fire" / "Fire_001.mp4").write_bytes(b"")
    assert convert(source, tmp_path / "out", split="Test").samples == 2
    (source / "Test" / "Fire" / "Fire_002.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"Fire_002.mp4 is a video, which is not decoded.*ffmpeg -i Fire_002.mp4"):
        convert(source, tmp_path / "out", split="Test")


@pytest.mark.parametrize("frames", [0, "8", True])
def test_a_bad_number_of_frames(tmp_path: Path, frames: Any) -> None:
    with pytest.raises(ConfigError, match="'frames' must be a whole number from 1"):
        convert(layout(tmp_path / "era"), tmp_path / "out", frames=frames)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="should hold Train and Test, in each a folder per class"):
        convert(tmp_path / "empty", tmp_path / "out")
    source = layout(tmp_path / "era")
    with pytest.raises(InputError, match="holds the splits Train, Test, not 'val'"):
        convert(source, tmp_path / "out", split="val")
    (source / "Test" / "Fire" / "Fire_002").mkdir()
    with pytest.raises(InputError, match="Fire_002 holds no images"):
        convert(source, tmp_path / "out")
    (source / "Test" / "Fire" / "Fire_002").rmdir()
    (source / "Test" / "Fire" / "Fire_003").symlink_to(tmp_path / "empty")
    with pytest.raises(InputError, match="leads out of"):
        convert(source, tmp_path / "out")
