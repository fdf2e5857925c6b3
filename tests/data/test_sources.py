"""A run's data section may name an adapter and a folder instead of a samples file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.config import DataSpec, load_config
from rsw_rewards.data.sources import load_from_adapter
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.images import write_png
from rsw_rewards.training.sources import load_source
from tests.shared_data import shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("t1", "t2"):
        write_png(tmp_path / f"{name}.png", np.full((64, 64, 3), 90, np.uint8))
    return tmp_path


def test_raster_pairs_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSW_MADE", str(folder))
    (sample,) = load_source(DataSpec(source="raster-pairs", path="${RSW_MADE}"), 0)
    assert sample.task == "forecast" and sample.images[0].array is not None


def test_files_that_an_adapter_draws_outlive_the_conversion(tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(
        "import numpy as np\n"
        "from rsw_rewards.data.adapter import Conversion, write_samples\n"
        "from rsw_rewards.io.images import write_png\n"
        "def convert(source, out, *, split=None, limit=None):\n"
        "    write_png(out / 'mask.png', np.zeros((4, 4), np.uint8))\n"
        "    record = {'id': 'a', 'task': 'change_mask', 'reference': {'mask': 'mask.png'}}\n"
        "    return Conversion(*write_samples(out, [record], 'nothing'), [])\n"
    )
    (sample,) = load_from_adapter(f"{tmp_path}/drawing.py:convert", {"path": str(tmp_path)}, "train")
    assert sample.reference["mask"].path.is_file()


def test_what_is_wrong_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs 'path'"):
        load_from_adapter("raster-pairs", {}, "train")
    with pytest.raises(ConfigError, match=r"does not exist.*--set heldout\.path=FOLDER"):
        load_from_adapter("raster-pairs", {"path": str(folder / "absent")}, "heldout")
    with pytest.raises(ConfigError, match="did you mean 'tile'"):
        load_from_adapter("raster-pairs", {"path": str(folder), "tiel": 3}, "train")
    with pytest.raises(ConfigError, match="cannot take its options"):
        load_from_adapter("levir-cd", {"path": str(folder), "tile": 3}, "train")
    with pytest.raises(ConfigError, match=r"known are samples, scene-world, .*cdvqa, .*levir-cd, .*raster-pairs"):
        load_source(DataSpec(source="raster-pears"), 0)


def test_the_landsat_recipe_keeps_its_scenes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSW_SHARED", str(shared("data/landsat_nanjing").parents[1]))
    config = load_config(Path(__file__).parents[2] / "configs" / "landsat.yaml")
    train, heldout = (load_source(getattr(config, part), 1, part) for part in ("train", "heldout"))
    assert {s.scene for s in train} == {"landsat_nanjing"} and {s.scene for s in heldout} == {"landsat_taizhou"}
    for samples in (train, heldout):
        assert {str(s.task) for s in samples} == {"change_qa", "forecast"}
        assert all(s.metadata["lat"] and s.metadata["gsd_m"] == 30 for s in samples)
