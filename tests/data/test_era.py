"""The era adapter on a small folder of extracted frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Task
from rsw_rewards.data.era import CLASSES, class_of, convert, evenly
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples

# Folders and clips as the authors' page calls them: class, source video, clip.
CLIPS = {
    "Train": ("Traffic_Jam/Traffic_Jam_017_01", "Normal/Normal_103_01", "Parade/Parade_022_01"),
    "Test": ("Traffic_Jam/Traffic_Jam_017_02", "Traffic_Jam/Traffic_Jam_017_03", "running/running_006_06"),
}


def layout(folder: Path, frames: int = 12) -> Path:
    for split, clips in CLIPS.items():
        for name in clips:
            clip = folder / split / name
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
    assert [sample.id for sample in samples] == [f"era/test/{clip}" for clip in CLIPS["Test"]]
    assert samples[0].task is Task.CLASSIFICATION
    assert [image.path.name for image in samples[0].images if image.path] == ["3.png", "7.png", "11.png"]
    assert "2 of the 25 classes were found" in done.notes[0]
    assert convert(source, tmp_path / "out").samples == 6
    assert convert(source / "Test", tmp_path / "out").samples == 3


def test_labels_and_choices_are_the_names_of_the_paper(tmp_path: Path) -> None:
    done = convert(layout(tmp_path / "era"), tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    labels = {sample.id.split("/")[2]: sample.reference["label"] for sample in samples}
    assert labels == {
        "Traffic_Jam": "traffic congestion", "Normal": "non-event", "Parade": "parade/protest", "running": "running",
    }  # fmt: skip
    assert len(set(CLASSES)) == 25
    for sample in samples:
        assert sample.reference["vocabulary"] == list(CLASSES)
        assert sample.prompt.endswith(f"one of: {', '.join(CLASSES)}.")


def test_clips_of_one_video_are_one_scene(tmp_path: Path) -> None:
    done = convert(layout(tmp_path / "era"), tmp_path / "out")
    scenes = [sample.scene for sample in load_samples(done.file, done.roots)]
    assert scenes.count("era/Traffic_Jam/Traffic_Jam_017") == 3  # in both splits, so that the leak is seen
    assert len(set(scenes)) == 4


@pytest.mark.parametrize("name", CLASSES)
def test_every_name_of_the_paper_names_its_folder(name: str) -> None:
    assert class_of(name.title().replace("/", "_").replace(" ", "_")) == name


def test_videos_are_not_decoded(tmp_path: Path) -> None:
    source = layout(tmp_path / "era")
    (source / "Test" / "running" / "running_006_06.mp4").write_bytes(b"")
    assert convert(source, tmp_path / "out", split="Test").samples == 3
    (source / "Test" / "running" / "running_006_07.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"_07.mp4 is a video, which is not decoded.*ffmpeg -i running_006_07.mp4"):
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
    (source / "Test" / "running" / "running_007_01").mkdir()
    with pytest.raises(InputError, match="running_007_01 holds no images"):
        convert(source, tmp_path / "out")
    (source / "Test" / "running" / "running_007_01").rmdir()
    (source / "Test" / "running" / "running_008_01").symlink_to(tmp_path / "empty")
    with pytest.raises(InputError, match="leads out of"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("name", ["Traffic", "Picnic", "Post-Earthquake"])
def test_a_folder_that_is_no_class_is_refused(tmp_path: Path, name: str) -> None:
    source = layout(tmp_path / "era")
    (source / "Test" / "Earthquake").mkdir()
    (source / "Test" / name).mkdir()
    with pytest.raises(InputError, match="folder of one of ERA's classes; rename it to one of: post-earthquake, flood"):
        convert(source, tmp_path / "out")
