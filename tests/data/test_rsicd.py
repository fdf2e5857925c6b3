"""The rsicd adapter on a small folder in the official layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsw_rewards.core.records import Task
from rsw_rewards.data.rsicd import convert
from rsw_rewards.errors import InputError
from rsw_rewards.io.records_io import load_samples

NAMES = {"airport_1": "train", "park_2": "test", "00001": "test"}


def official(source: Path, below: str = "") -> Path:
    (source / "RSICD_images").mkdir(parents=True)
    (source / below).mkdir(exist_ok=True)
    records = []
    for name, split in NAMES.items():
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(source / "RSICD_images" / f"{name}.jpg")
        raw = f"this is {name} ."
        records.append(
            {
                "filename": f"{name}.jpg", "imgid": 0, "sentids": [0], "split": split,
                "sentences": [{"tokens": raw.split()[:-1], "raw": raw, "imgid": 0, "sentid": 0}] * 2,
            }
        )  # fmt: skip
    (source / below / "dataset_rsicd.json").write_text(json.dumps({"images": records, "dataset": "rsicd"}))
    return source


@pytest.mark.parametrize("below", ["", "annotations_rsicd"])
def test_samples(tmp_path: Path, below: str) -> None:
    source = official(tmp_path / "RSICD", below)
    done = convert(source, tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [(sample.id, sample.scene) for sample in samples] == [(f"rsicd/{n}",) * 2 for n in ("park_2", "00001")]
    assert {sample.task for sample in samples} == {Task.CHANGE_CAPTION}
    assert samples[0].reference == {"captions": ["this is park_2"] * 2}
    assert [len(sample.images) for sample in samples] == [1, 1]
    assert samples[0].images[0].pixels().shape == (8, 8, 3)
    assert convert(source, tmp_path / "out").samples == 3
    assert convert(source, tmp_path / "out", limit=1).samples == 1


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = official(tmp_path / "RSICD")
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        convert(source, tmp_path / "out", split="val")
    (source / "RSICD_images" / "park_2.jpg").unlink()
    with pytest.raises(InputError, match=r"the image park_2.jpg was expected in .*RSICD_images"):
        convert(source, tmp_path / "out")
    shutil.rmtree(source / "RSICD_images")
    done = convert(source, tmp_path / "out")
    assert "no folder RSICD_images" in done.notes[0]
    assert len(load_samples(done.file, done.roots)) == 3
    (source / "dataset_rsicd.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="has no entry in 'images'"):
        convert(source, tmp_path / "out")
    (source / "dataset_rsicd.json").unlink()
    with pytest.raises(InputError, match=r"has no dataset_rsicd.json, and neither has annotations_rsicd below it"):
        convert(source, tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
