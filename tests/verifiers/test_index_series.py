from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context
from rsw_rewards.data.ndvi_series import convert
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.rollouts.baselines import make_baseline
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.verifiers.index_series import IndexSeries, nnse
from tests.shared_data import shared


def frames(values: np.ndarray, nodata: float | None = None) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(array=np.asarray(frame), nodata=nodata) for frame in values)


def course(seed: int = 0, steps: int = 6, side: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (steps, side, side)).astype(np.float32)


def ready() -> IndexSeries:
    verifier = IndexSeries()
    verifier.setup(Context(FeatureBank()))
    return verifier


def score(observed: np.ndarray, predicted: np.ndarray | None, **reference: object) -> Score:
    sample = Sample("s", Task.FORECAST, (), "", {"images": list(frames(observed)), **reference})
    output = Output("s", images=None if predicted is None else frames(predicted))
    return ready().score(Batch.of([sample], [output]))[0]


def test_the_mean_of_a_pixel_scores_one_half_and_the_truth_one() -> None:
    observed = course()
    assert score(observed, observed).value == pytest.approx(1.0)
    mean = np.repeat(observed.mean(0, keepdims=True), len(observed), 0)
    assert score(observed, mean).value == pytest.approx(0.5, abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.0, 0.8))
@settings(max_examples=40, deadline=None)
def test_what_a_cloud_hides_changes_nothing(seed: int, share: float) -> None:
    observed, predicted = course(seed, 12), course(seed + 1, 12)
    hidden = np.random.default_rng(seed).random(observed.shape) < share
    clouded = np.where(hidden, np.nan, observed)
    first = score(clouded, predicted)
    second = score(clouded, np.where(hidden, 1e9, predicted))
    third = score(clouded, np.where(hidden, np.nan, predicted))
    assert first == second == third and first.raw == second.raw == third.raw


def test_efficiency_is_that_of_its_definition() -> None:
    observed, predicted = course(1), course(2)
    ratio = ((observed - predicted) ** 2).sum(0) / ((observed - observed.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(nnse(observed.astype(float), predicted.astype(float)), 1 / (1 + ratio), rtol=1e-5)


@pytest.mark.parametrize("bad", ["missing", "short", "hole", "size", "colours", "scale"])
def test_what_cannot_be_compared_is_invalid_with_no_efficiency_anywhere(bad: str) -> None:
    observed = course()
    predicted: np.ndarray | None = observed.copy()
    if bad == "missing":
        predicted = None
    elif bad == "short":
        predicted = observed[:-1]
    elif bad == "hole":
        predicted[0, 0, 0] = np.nan  # type: ignore[index]
    elif bad == "size":
        predicted = observed[:, :-1]
    elif bad == "scale":
        predicted = (observed * 10_000).astype(np.int16)
    else:
        predicted = np.repeat(observed[..., None], 3, -1)
    found = score(observed, predicted)
    assert found.status is Status.INVALID_OUTPUT and found.reason
    assert found.stats["nnse"] == 0 and found.stats["pixels"] == 25


def test_whether_a_sample_counts_does_not_depend_on_the_forecast() -> None:
    """A horizon of two frames gives no efficiency, neither to the truth nor to what cannot be read."""
    observed = course(steps=2)
    found = [score(observed, observed), score(observed, observed[:1]), score(observed, None)]
    assert all(one.status is Status.NOT_APPLICABLE and "smaller 'least'" in one.reason for one in found)


def test_nodata_and_unchanging_pixels_do_not_count() -> None:
    observed = course()
    observed[:, 0, 0] = 0.4
    coded = np.where(np.arange(len(observed))[:, None, None] == 2, -9999.0, observed)
    sample = Sample("s", Task.FORECAST, (), "", {"images": list(frames(coded, nodata=-9999.0))})
    (found,) = ready().score(Batch.of([sample], [Output("s", images=frames(observed))]))
    assert found.value == pytest.approx(1.0) and found.stats["pixels"] == 24 and found.stats["values"] == 5 * 25


def test_the_mask_of_a_frame_says_what_was_observed(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    observed = course()
    data = np.full(observed.shape[1:], 255, np.uint8)
    data[0] = 0
    for step, frame in enumerate(observed):
        profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 5, "width": 5}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(tmp_path / f"{step}.tif", "w", **profile) as file,
        ):
            file.write(np.where(data > 0, frame, 0), 1)
            file.write_mask(data)
    stored = tuple(ImageRef(path=tmp_path / f"{step}.tif") for step in range(len(observed)))
    sample = Sample("s", Task.FORECAST, (), "", {"images": list(stored)})
    (found,) = ready().score(Batch.of([sample], [Output("s", images=frames(observed))]))
    assert found.value == pytest.approx(1.0) and found.stats["pixels"] == 20
    whole = Sample("s", Task.FORECAST, (), "", {"images": list(frames(observed))})
    with pytest.raises(ImageError, match="no number at 30 pixels"):
        ready().compare(ready().truth(whole), Output("s", images=stored))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    days = [f"{2020 + n // 12}-{1 + n % 12:02d}-15T10:00:00" for n in range(36)]
    season = 5000 + 3000 * np.sin(np.arange(36) / 12 * 2 * np.pi)
    values = (season[:, None, None] + rng.normal(0, 100, (36, 32, 32))).astype(np.int16)
    clouds = (rng.random(values.shape) < 0.1).astype(np.uint8)
    np.savez_compressed(tmp_path / "series.npz", ndvi_int16_x10000=values, cloud_mask=clouds)
    (tmp_path / "timestamps.json").write_text(json.dumps(days))
    return tmp_path


def test_climatology_beats_persistence_where_there_are_seasons(folder: Path, tmp_path: Path) -> None:
    conversion = convert(folder, tmp_path / "out", horizon=12)
    samples = load_samples(conversion.file, conversion.roots)
    assert len(samples) == 4 and len(samples[0].images) == 24 and len(samples[0].reference["images"]) == 12
    outputs = make_baseline("climatology", samples).generate([Request(sample) for sample in samples])
    summary = rsw.evaluate(PROTOCOLS.find("ndvi-series"), samples, outputs, tmp_path / "run").summary
    rows = summary["baselines"]
    assert rows["oracle"]["metrics"]["nnse"]["value"] == 1.0
    assert rows["climatology"]["metrics"]["nnse"]["value"] == summary["metrics"]["nnse"]["value"] > 0.8
    assert rows["persistence"]["metrics"]["nnse"]["value"] < 0.5


def test_a_folder_that_holds_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "timestamps.json").write_text("[]")
    with pytest.raises(InputError, match="36 dates"):
        convert(folder, tmp_path / "out")
    (folder / "series.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        convert(folder, tmp_path / "out")


def test_the_real_series_has_its_rows_in_order(tmp_path: Path) -> None:
    conversion = convert(shared("data/sentinel2_ndvi_series"), tmp_path / "out")
    samples = load_samples(conversion.file, conversion.roots)
    outputs = make_baseline("persistence", samples).generate([Request(sample) for sample in samples])
    summary = rsw.evaluate(PROTOCOLS.find("ndvi-series"), samples, outputs, tmp_path / "run").summary
    rows = {name: row["metrics"]["nnse"]["value"] for name, row in summary["baselines"].items()}
    assert rows["persistence"] < rows["climatology"] < rows["oracle"] == 1.0
