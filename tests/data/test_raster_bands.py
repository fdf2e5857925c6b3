"""Tiles that keep their bands: the numbers of the raster, what they mean, where they lie, and what verifiers make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.verifier import Batch
from rsw_rewards.data.raster_pairs import convert, load
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.io.images import read_mask, read_rgb
from rsw_rewards.io.records_io import load_outputs, load_samples, write_jsonl
from rsw_rewards.rollouts.baselines import make_baseline
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.verifiers.bands import check_numbers
from rsw_rewards.verifiers.spectral import index_map
from tests.data.test_raster_pairs import BANDS, describe, six_bands, write_tiff
from tests.scoring import score_in_process
from tests.shared_data import shared

OFFSET = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sentinel-like numbers, reflectance x 10000 + 1000, nodata 0: roofs grow, and a corner of the first date is missing."""
    before, after = six_bands(0.25, 0.125) + OFFSET, six_bands(0.5, 0.125, noise=1) + OFFSET
    before[2, :8, :8] = 0
    write_tiff(tmp_path / "a.tif", before, nodata=0)
    write_tiff(tmp_path / "b.tif", after, nodata=0)
    pair = {
        "scene": "made", "before": "a.tif", "after": "b.tif", "bands": BANDS, "dates": ["2020-05-03", "2022-07-12"],
        "scale_factor": 1e-4, "add_offset": -0.1, "valid_range": [1, 17000],
    }  # fmt: skip
    return describe(tmp_path, pair, tasks=["forecast"], keep_bands=True, tile=32, min_valid=0.5)


def scored(sample: Sample, output: Output, *uses: str, **config: Any) -> dict[str, Any]:
    components = tuple(Component(use=use, config=config.get(use, {})) for use in uses)
    frame = score_in_process(Rubric(components=components), Batch.of([sample], [output])).frame
    return {row.verifier: row for row in frame.itertuples()}


def test_tiles_hold_the_numbers_and_say_what_they_are(folder: Path, tmp_path: Path) -> None:
    import rasterio

    out = tmp_path / "out"
    first = load_samples(convert(folder, out).file)[0]
    held = load(folder)[0]
    shown, true = first.images[0], first.reference["images"][0]
    assert shown.path is not None and shown.path.suffix == ".tif" and shown.nodata == 0
    assert shown.bands == (2, 1, 0) and shown.stretch == true.stretch == held.images[0].stretch
    assert (shown.pixels() == held.images[0].pixels()).all() and shown.pixels().dtype == np.uint16
    with rasterio.open(folder / "a.tif") as raster, rasterio.open(shown.path) as tile:
        usable = read_mask(first.reference["valid"])
        assert (tile.read()[:, usable] == raster.read()[:, :32, :32][:, usable]).all() and not tile.read()[
            :, ~usable
        ].any()
        assert tile.crs == raster.crs and list(tile.descriptions) == BANDS and tile.nodata == 0
    with rasterio.open(load_samples(out / "samples.jsonl")[3].images[0].path) as tile:
        assert tile.transform.c == 500000 + 32 * 30 and tile.transform.f == 3_600_000 - 32 * 30
    assert (
        first.metadata["bands"] == BANDS
        and first.metadata["gsd_m"] == 30
        and first.metadata["valid_range"] == [1, 17000]
    )
    again = convert(folder, tmp_path / "again")
    for file in out.rglob("*.*"):
        assert (again.file.parent / file.relative_to(out)).read_bytes() == file.read_bytes()
    assert (read_rgb(shown) == read_rgb(held.images[0])).all() and read_rgb(shown).max() > 100


def test_indices_are_those_of_reflectance(folder: Path) -> None:
    """An offset that is not taken off would leave nearly no plants."""
    one = load(folder, tile=None)[0]
    raw = np.moveaxis(one.images[0].pixels().astype(float), -1, 0) / 1e4 - 0.1
    ndvi = index_map("ndvi", dict(zip(BANDS, raw, strict=True)))
    usable = read_mask(one.reference["valid"])
    share = (ndvi > 0.3)[usable].mean()
    assert one.metadata["shares_before"]["vegetation"] == pytest.approx(share, abs=1e-6) and share > 0.5


def test_verifiers_of_bands_and_of_pictures_read_the_same_tile(folder: Path) -> None:
    one = load(folder, tile=None)[0]
    uses = ("spectral_direction", "physical_range", "gain_over_copy", "ssim")
    policies = {name: make_baseline(name, [one]) for name in ("oracle", "copy_before", "blurred_copy", "noise")}
    rows = {name: scored(one, policy.generate([Request(one)])[0], *uses) for name, policy in policies.items()}
    assert [rows["oracle"][use].value for use in uses] == pytest.approx([1.0] * 4)
    assert rows["copy_before"]["spectral_direction"].value == 0.0 and rows["copy_before"]["gain_over_copy"].value == 0.5
    assert rows["noise"]["physical_range"].value < 0.9 and rows["noise"]["gain_over_copy"].value < 0.4
    assert all(row.status == "ok" for found in rows.values() for row in found.values())


def test_predictions_are_shown_as_the_future_is(folder: Path, tmp_path: Path) -> None:
    """A file of predictions says nothing of stretch and bands, or something else than the sample: the sample's hold."""
    sample = load_samples(convert(folder, tmp_path / "out").file)[0]
    true = sample.reference["images"][0].pixels()
    np.save(tmp_path / "true.npy", true)
    np.save(tmp_path / "scaled.npy", true.astype(np.float32))
    np.save(tmp_path / "reflectance.npy", true.astype(np.float32) / 1e4)
    np.save(tmp_path / "bytes.npy", (true // 64).astype(np.uint8))
    np.save(tmp_path / "rgb.npy", read_rgb(sample.reference["images"][0]))
    images: list[Any] = [f"{name}.npy" for name in ("true", "scaled", "reflectance", "bytes", "rgb")]
    images.append({"path": "true.npy", "bands": [5, 4, 3], "stretch": [[0, 1]] * 6})
    records = [{"id": sample.id, "candidate": number, "image": image} for number, image in enumerate(images)]
    write_jsonl(tmp_path / "predictions.jsonl", records)
    outputs, problems = load_outputs(tmp_path / "predictions.jsonl", [sample])
    assert not problems
    whole, scaled, reflectance, eight, rgb, other = (
        scored(sample, one, "spectral_direction", "gain_over_copy") for one in outputs
    )
    for row in (whole, scaled, other):
        assert row["gain_over_copy"].value == 1.0
        assert row["spectral_direction"].value is None or row["spectral_direction"].status in ("ok", "not_applicable")
    for row in (reflectance, eight):
        assert row["spectral_direction"].status in ("invalid_output", "not_applicable")
        assert row["gain_over_copy"].status == "invalid_output" and "another scale" in row["gain_over_copy"].reason
    assert rgb["gain_over_copy"].value == 1.0 and rgb["spectral_direction"].status in (
        "invalid_output",
        "not_applicable",
    )


def test_a_forecast_on_another_scale_is_refused_in_a_sentence(folder: Path) -> None:
    one = load(folder, tile=None)[0]
    true = one.reference["images"][0].pixels()
    for pixels in (true.astype(np.float32) / 1e4, (true // 64).astype(np.uint8)):
        row = scored(one, Output(one.id, image=type(one.images[0])(array=pixels)), "spectral_direction")[
            "spectral_direction"
        ]
        assert row.status == "invalid_output" and "another scale" in row.reason and "uint16" in row.reason


def test_integers_of_a_wider_type_are_the_same_numbers(folder: Path) -> None:
    one = load(folder, tile=None)[0]
    true = one.reference["images"][0].pixels()
    for kind in (np.int32, np.int64, np.uint32):
        row = scored(one, Output(one.id, image=type(one.images[0])(array=true.astype(kind))), "gain_over_copy")
        assert row["gain_over_copy"].value == 1.0
    below = true.astype(np.int16)
    below[0, 0] = -2  # an undershoot is no other scale
    row = scored(one, Output(one.id, image=type(one.images[0])(array=below)), "gain_over_copy")
    assert row["gain_over_copy"].status == "ok"


@given(st.floats(0.05, 20.0), st.floats(1e-3, 1e4), st.integers(0, 99))
def test_a_forecast_is_on_the_scale_of_its_truth_unless_far_from_it(factor: float, unit: float, seed: int) -> None:
    """Whatever the unit: leaf area, decibels, reflectance, counts."""
    true = np.random.default_rng(seed).gamma(2.0, 0.5, (8, 8, 2)) * unit
    valid = np.ones((8, 8), bool)
    check_numbers(true * factor, true, valid)
    check_numbers(np.zeros_like(true), true, valid)
    for other in (1e-4, 1e4):
        with pytest.raises(ImageError, match="another scale"):
            check_numbers(true * other, true, valid)


def test_a_raster_with_holes_is_no_dark_picture(folder: Path) -> None:
    """Shown between two numbers, NaN would be black, which beats a copy where the future is dark."""
    one = load(folder, tile=None)[0]
    true = one.reference["images"][0].pixels().astype(np.float64)
    for pixels in (
        np.full_like(true, np.nan),
        np.full_like(true, -np.inf),
        np.where(np.arange(true.size).reshape(true.shape) % 97, true, np.nan),
    ):
        row = scored(one, Output(one.id, image=type(one.images[0])(array=pixels)), "gain_over_copy", "clip_score")
        for score in row.values():
            assert score.status == "invalid_output" and "has no number at" in score.reason


@pytest.mark.parametrize("how", ["alpha", "mask"])
def test_a_raster_whose_own_mask_has_holes_is_invalid(folder: Path, tmp_path: Path, how: str) -> None:
    """The numbers below the holes are right, and say nothing. One row of it holds no data in the sample itself."""
    rasterio = pytest.importorskip("rasterio")
    one = load(folder, tile=None)[0]
    bands = np.moveaxis(one.reference["images"][0].pixels(), -1, 0)
    data = np.full(bands.shape[1:], 255, bands.dtype if how == "alpha" else np.uint8)
    found = {}
    for holes in (0, 5):
        data[:, :holes] = 0
        stored = np.concatenate([bands, data[None]]) if how == "alpha" else bands
        size = {"count": len(stored), "height": data.shape[0], "width": data.shape[1], "dtype": bands.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(tmp_path / f"{holes}.tif", "w", driver="GTiff", **size) as file,
        ):
            if how == "alpha":
                file.colorinterp = [*file.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
            file.write(stored)
            if how == "mask":
                file.write_mask(data)
        image = type(one.images[0])(path=tmp_path / f"{holes}.tif")
        found[holes] = scored(one, Output(one.id, image=image), "gain_over_copy", "physical_range")
    assert {score.status for score in found[0].values()} == {"ok"} and found[0]["gain_over_copy"].value == 1.0
    for score in found[5].values():
        assert score.status == "invalid_output" and "no data at 280 of 4032 pixels" in score.reason


def test_haze_is_taken_off_the_stored_numbers(tmp_path: Path) -> None:
    before, after = (six_bands(share, 0.125, noise=k) // 50 for k, share in ((0, 0.25), (1, 0.5)))
    np.savez(tmp_path / "b.npz", t1=(before + 40).astype(np.uint8), t2=(after + 20).astype(np.uint8))
    pair = {"scene": "s", "before": "b.npz:t1", "after": "b.npz:t2", "bands": BANDS}
    describe(tmp_path, pair, tasks=["forecast"], keep_bands=True, dark_object=0.1)
    one = load(tmp_path)[0]
    stored = one.images[0].pixels()
    assert stored.dtype == np.uint8 and stored.min() == 0
    haze = np.array(one.metadata["dark_object"]["subtracted"][0])
    assert (haze == np.rint(haze)).all()
    raw = np.moveaxis(np.load(tmp_path / "b.npz")["t1"], 0, -1).astype(float)
    assert (stored == np.maximum(raw - haze, 0)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stretch": "raster"}, "write stretch: pair"),
        ({"dark_object": 0.1}, "leave one out"),
        ({"pairs": {"made": {"after": "c.tif"}}}, "needs one type"),
    ],
)
def test_what_would_mix_meanings_is_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    write_tiff(folder / "c.tif", six_bands(0.5, 0.1).astype(np.float32))
    with pytest.raises(InputError, match=words):
        load(folder, **change)


def test_real_bands_are_scored(tmp_path: Path) -> None:
    folder = shared("data/landsat_taizhou")
    options = {"keep_bands": True, "tasks": ["forecast"], "forecast_labels": False, "limit": 6}
    samples = load_samples(convert(folder, tmp_path / "out", **options).file)
    found = []
    for one in samples:
        assert one.images[0].pixels().shape == (64, 64, 6)
        outputs = [make_baseline(name, samples).generate([Request(one)])[0] for name in ("oracle", "copy_before")]
        rows = [scored(one, output, "spectral_direction")["spectral_direction"] for output in outputs]
        found += [[row.value for row in rows]] if rows[0].status == "ok" else []
    assert len(found) > 2 and np.allclose(found, [1.0, 0.0])
