"""GreenEarthNet's score against the authors' own code, on cubes with clouds, odd pixels and forecasts without numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.io.records_io import load_samples
from tests import originals
from tests.evaluation.made_samples import MAKERS

SIDE, FRAMES = 24, 30
NAMES = {"nse": "nse", "R2": "R2", "rmse": "rmse", "biasabs": "biasabs"}
NAMES |= {f"{key}_{cover}": f"{key}/{cover}" for key in NAMES for cover in ("forest", "shrub", "grass", "crop")}
NAMES |= {f"rmse_{start}_{start + 5}": f"rmse/{start}_{start + 5}" for start in (0, 5, 10, 15)}


def cube(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The variables of a cube of 150 days, and (20, H, W) forecasts, without numbers here and there."""
    chance = np.random.default_rng(seed)
    shape = (FRAMES, SIDE, SIDE)
    course = 0.45 + 0.4 * np.sin(np.arange(FRAMES) / 4 + seed)[:, None, None] * chance.uniform(0, 1, shape[1:])
    index = (course + chance.normal(0, 0.06, shape)).astype(np.float32)
    index[:, :3] -= 0.5  # below 0 at times
    red = chance.uniform(0.02, 0.2, shape).astype(np.float32)
    near = red * (1 + index) / (1 - np.clip(index, -0.9, 0.95))
    near[:, 5] = np.where(chance.random((FRAMES, SIDE)) < 0.2, np.nan, near[:, 5])  # not masked, and no number
    clouds = np.where(chance.random(shape) < 0.25, chance.integers(1, 5, shape), 0).astype(np.float32)
    clouds[:, 8:10] = np.where(chance.random((FRAMES, 2, SIDE)) < 0.8, 1, 0)  # seldom seen
    clouds[:10, 10] = 1  # never seen before
    scene = chance.choice([4, 5, 6, 8, 11, 2], shape, p=[0.5, 0.2, 0.1, 0.05, 0.05, 0.1]).astype(np.float32)
    scene[4] = np.nan
    cover = chance.choice([10, 20, 30, 40, 50, 60, 80, 100], shape[1:]).astype(np.float32)
    if seed % 2:
        cover[cover == 20] = 10  # a land cover that not all cubes have
    cover[0, 0] = np.nan
    said = np.clip(index[10:] + chance.normal(0, 0.15, (20, SIDE, SIDE)), -1.4, 1.3).astype(np.float32)
    said[:, 12] = np.nan
    said[3, 14] = np.nan
    said[:, 16] = index[10:, 16]
    layers = {"s2_B8A": near, "s2_B04": red, "s2_dlmask": clouds, "s2_SCL": scene}
    days = {name: np.full((150, SIDE, SIDE), np.nan, np.float32) for name in layers}
    for name, values in layers.items():
        days[name][4::5] = values
    return {**days, "esawc_lc": cover}, said


def write(folder: Path, seeds: range) -> None:
    xarray = pytest.importorskip("xarray", reason="needs pip install 'rsw_rewards[cubes]'")
    for seed in seeds:
        variables, said = cube(seed)
        time = np.datetime64("2021-03-01") + np.arange(150).astype("timedelta64[D]")
        where = {"time": time, "lat": np.linspace(50, 49.9, SIDE), "lon": np.linspace(7, 7.1, SIDE)}
        flat = {"geom_cls": np.ones((SIDE, SIDE)), "cop_dem": np.zeros((SIDE, SIDE))}
        made = {
            name: (("time", "lat", "lon") if values.ndim == 3 else ("lat", "lon"), values)
            for name, values in {**variables, **flat}.items()
        }
        name = f"JJA{seed % 2}/32UQC_2021-03-01_2021-07-28_{seed}_129_1_129_1_9_1_9.nc"
        for part in ("data/ood-t_chopped", "said"):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        xarray.Dataset(made, coords=where).to_netcdf(folder / "data/ood-t_chopped" / name)
        said_at = {"time": time[4::5][10:], "lat": where["lat"], "lon": where["lon"]}
        xarray.Dataset({"ndvi_pred": (("time", "lat", "lon"), said)}, coords=said_at).to_netcdf(folder / "said" / name)


def test_all_numbers_are_those_of_the_authors_code(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="needs pip install 'rsw_rewards[cubes]'")
    frames = pytest.importorskip("dask.dataframe", reason="the original needs dask")
    import pandas

    write(tmp_path, range(6))
    names = ("compute_metrics", "summarize_scores")
    np_then = type("np", (), {"NaN": np.nan})  # NumPy 2 took that name away
    given = {"xr": xarray, "np": np_then, "pd": pandas, "dd": frames, "Path": Path}
    original = originals.parts("vitusbenson/greenearthnet", "a032963", "eval.py", *names, **given)
    (tmp_path / "scores").mkdir()
    for region in ("JJA0", "JJA1"):
        tables = []
        for target in sorted((tmp_path / "data/ood-t_chopped" / region).glob("*.nc")):
            forecast = xarray.open_dataset(tmp_path / "said" / region / target.name)
            table = original.compute_metrics(xarray.open_dataset(target), forecast)
            tables.append(table.assign(id=target.stem, season=region))
        pandas.concat(tables).reset_index().to_parquet(tmp_path / "scores" / f"scores_en21x_{region}.parquet")
    expected = original.summarize_scores(tmp_path / "scores", verbose=False)
    done = rsw.data.convert("greenearthnet", tmp_path / "data", tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    said = rsw.predictions.read("cubes", tmp_path / "said", samples, frames=tmp_path / "frames")
    assert (len(said), said.problems) == (len(samples), [])
    assert rsw.validate("greenearthnet", samples).failed == []
    found = rsw.evaluate(
        "greenearthnet", samples, said.save(tmp_path / "said.jsonl"), roots=[tmp_path / "frames"]
    ).metrics
    assert {key: found[NAMES[key]].value for key in expected} == pytest.approx(expected, abs=1e-6)


def test_an_invalid_forecast_has_no_efficiency_and_the_filter_needs_a_changing_pixel() -> None:
    samples = MAKERS["greenearthnet"]()
    outputs = [{"id": one.id, "images": list(one.reference["images"])} for one in samples]
    outputs[1]["images"] = outputs[1]["images"][:5]
    found = rsw.evaluate("greenearthnet", samples, outputs).metrics
    covers = [set(np.unique(one.reference["land_cover"].pixels())) for one in samples]
    assert all(len(one) == 4 for one in covers)
    assert found["valid_rate"].value == 0.75
    assert found["rmse"].value == 0.0
    means = [
        np.mean([0.0 if number == 1 else 1.0 for number in range(4) if code in covers[number]])
        for code in (10, 20, 30, 40)
    ]
    assert found["nnse"].value == pytest.approx(np.mean(means), abs=1e-6)


def test_a_future_in_which_nothing_counts_is_not_applicable() -> None:
    one = MAKERS["greenearthnet"]()[0]
    still = rsw.image(np.full((16, 16), 0.5, np.float32), range="stored")
    bare = rsw.image(np.full((16, 16), 50, np.uint8), range="stored")
    for changed in ({"images": [still] * 20}, {"land_cover": bare}):
        sample = replace(one, reference={**one.reference, **changed})
        found = rsw.evaluate("greenearthnet", [sample], [{"id": one.id, "images": [still] * 20}])
        (row,) = found.scores.to_dict("records")
        assert (row["status"], row["reason"][:22]) == ("not_applicable", "no pixel is vegetated,")
