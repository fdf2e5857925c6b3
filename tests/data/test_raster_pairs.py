"""Raster pairs of every format become tiles and samples whose answers agree with counts made by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rsw_rewards.core.records import Sample
from rsw_rewards.data.bins import ratio_bin
from rsw_rewards.data.raster_pairs import convert, load
from rsw_rewards.data.raster_questions import (
    CLOSED_KINDS,
    KINDS,
    NUMERIC_KINDS,
    TileFacts,
    candidates,
    change_text,
    clear_bin,
)
from rsw_rewards.data.raster_specs import expand
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import read_mask, read_rgb, write_png
from rsw_rewards.io.records_io import load_samples
from tests.shared_data import shared

BANDS = ["blue", "green", "red", "nir", "swir1", "swir2"]
WATER, PLANTS, ROOFS = (
    (0.08, 0.10, 0.08, 0.03, 0.01, 0.01),
    (0.03, 0.08, 0.05, 0.45, 0.20, 0.1),
    (0.2, 0.2, 0.25, 0.28, 0.35, 0.3),
)


def six_bands(roofs: float, water: float, size: int = 64, noise: int = 0) -> np.ndarray:
    """(6, size, size) reflectance x 10000: roofs from the top, water from the bottom, plants between."""
    rng = np.random.default_rng(noise)
    surface = np.full((size, size), 1)
    surface[: round(roofs * size)] = 2
    surface[size - round(water * size) :] = 0
    pixels = np.moveaxis(np.array([WATER, PLANTS, ROOFS])[surface], -1, 0) * 10000
    return (pixels * rng.uniform(0.95, 1.05, pixels.shape)).astype(np.uint16)


def write_tiff(
    path: Path, bands: np.ndarray, *, crs: str | None = "EPSG:32650", left: float = 500000, **profile: Any
) -> None:
    import rasterio
    from rasterio.transform import from_origin

    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype, crs=crs,
        transform=from_origin(left, 3_600_000, 30, 30), **profile,
    ) as file:  # fmt: skip
        file.write(bands)


def describe(folder: Path, *pairs: dict[str, Any], **options: Any) -> Path:
    (folder / "pairs.yaml").write_text(yaml.safe_dump({"pairs": list(pairs), "options": options}))
    return folder


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """A pair in one .npz: roofs grow from 1/4 to 1/2, water stays at 1/8, plants shrink."""
    np.savez(tmp_path / "bands.npz", t1=six_bands(0.25, 0.125), t2=six_bands(0.5, 0.125, noise=1))
    pair = {
        "scene": "made", "before": "bands.npz:t1", "after": "bands.npz:t2", "bands": BANDS,
        "dates": ["2000-05-03", "2002-07-12"], "gsd_m": 30, "sensor": "made", "lat": 32.0, "lon": 118.8,
    }  # fmt: skip
    return describe(tmp_path, pair, per_kind=None, kinds=list(KINDS))


def answers(samples: list[Sample]) -> dict[str, str]:
    return {
        sample.id.split("/", 2)[2]: sample.reference["answers"][0] for sample in samples if sample.task == "change_qa"
    }


def test_answers_follow_from_the_bands(six: Path) -> None:
    found = answers(load(six))
    assert found["increase_or_not/built_up"] == "yes" and found["decrease_or_not/built_up"] == "no"
    assert found["increase_or_not/vegetation"] == "no" and found["decrease_or_not/vegetation"] == "yes"
    assert found["increase_or_not/water"] == "no" and found["decrease_or_not/water"] == "no"
    assert found["share_bin/built_up-before"] == "20_to_30"
    assert "share_bin/built_up-after" not in found  # exactly on the edge of a bin
    assert found["share_percent/built_up-after"] == "50.0"
    assert found["growth_bin/vegetation"] == "20_to_30" and found["growth_percent/vegetation"] == "25.0"
    assert "largest_change/all" not in found  # plants lost what roofs gained
    forecast = load(six)[-1]
    assert forecast.task == "forecast"
    assert sorted(forecast.prompt.replace("vegetation decreased", "-").split()) == ["-", "buildings", "increased"]
    assert forecast.reference["text"] == forecast.prompt
    assert len(forecast.images) == 1 and forecast.images[0].date == "2000-05-03"
    assert forecast.metadata["target_date"] == "2002-07-12"
    assert forecast.metadata["classes"]["water"] == {"index": "mndwi", "above": [0.0, 0.0]}
    assert {forecast.metadata[key] for key in ("lat", "lon", "gsd_m", "sensor")} == {32.0, 118.8, 30, "made"}


def test_shares_equal_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    before, after = (rng.integers(0, 256, (6, 40, 48), dtype=np.uint8) for _ in range(2))
    before[:, :5, :7] = 0
    np.savez(tmp_path / "b.npz", t1=before, t2=after)
    describe(tmp_path, {"scene": "s", "before": "b.npz:t1", "after": "b.npz:t2", "bands": BANDS, "nodata": 0})
    samples = load(tmp_path, tile=16, stride=8, min_valid=0.5, tasks=["forecast"], dead_band=0.01)
    assert len(samples) == 4 * 5 - sum(s.metadata["valid_share"] < 0.5 for s in samples)
    for sample in samples:
        row, col = sample.metadata["row"], sample.metadata["col"]
        counts: list[Counter[str]] = [Counter(), Counter()]
        n = 0
        for y in range(row, row + 16):
            for x in range(col, col + 16):
                pair = [[float(v) for v in raster[:, y, x]] for raster in (before, after)]
                if any(0 in pixel for pixel in pair):
                    continue
                n += 1
                for count, (_, green, red, nir, swir, _) in zip(counts, pair, strict=True):
                    if green > swir:
                        count["water"] += 1
                    elif (nir - red) / (nir + red) > 0.3:
                        count["vegetation"] += 1
                    elif swir > nir:
                        count["built_up"] += 1
        for key, count in zip(("shares_before", "shares_after"), counts, strict=True):
            assert sample.metadata[key] == {
                name: pytest.approx(count[name] / n, abs=1e-6) for name in ("water", "vegetation", "built_up")
            }


def test_written_tiles_load_again_and_are_the_same_bytes(six: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        conversion = convert(six, out)
        assert conversion.samples == len(load(six)) and conversion.roots == [out]
    files = [{str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.*")} for out in outs]
    assert files[0] == files[1] and "tiles/made_r00000_c00000_before.png" in files[0]
    for written, held in zip(load_samples(outs[0] / "samples.jsonl"), load(six), strict=True):
        assert (written.id, written.prompt, written.kind) == (held.id, held.prompt, held.kind)
        assert [image.date for image in written.images] == [image.date for image in held.images]
        assert (read_rgb(written.images[0]) == read_rgb(held.images[0])).all()
        assert json.loads(json.dumps(dict(held.metadata))) == written.metadata
    assert convert(six, tmp_path / "few", limit=3).samples == 3


def test_geotiffs_carry_their_place(tmp_path: Path) -> None:
    pixels = six_bands(0.25, 0.25)[:4]
    write_tiff(tmp_path / "a.tif", pixels)
    write_tiff(tmp_path / "b.tif", six_bands(0.25, 0.5)[:4])
    describe(tmp_path, {"scene": "s", "before": "a.tif", "after": "b.tif", "bands": BANDS[:4]})
    samples = load(tmp_path, tile=32)
    metadata = samples[0].metadata
    assert metadata["gsd_m"] == 30 and "sensor" not in metadata
    # Zone 50's central meridian is 117 degrees east, where easting is 500,000 m.
    assert metadata["lon"] == pytest.approx(117.0, abs=0.01) and metadata["lat"] == pytest.approx(32.53, abs=0.02)
    assert set(metadata["shares_before"]) == {"water", "vegetation"}  # no SWIR, no NDBI
    assert metadata["classes"]["water"]["index"] == "ndwi"


def test_rasters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pixels = six_bands(0.25, 0.25)[:4]
    pair = {"scene": "s", "before": "a.tif", "after": "b.tif", "bands": BANDS[:4]}
    write_tiff(tmp_path / "a.tif", pixels)

    def refused(match: str, **change: Any) -> None:
        describe(tmp_path, pair | change)
        with pytest.raises((InputError, ConfigError), match=match):
            load(tmp_path)

    refused("b.tif does not exist")
    write_tiff(tmp_path / "b.tif", pixels[:, :32])
    refused("64 x 32")
    write_tiff(tmp_path / "b.tif", pixels, crs="EPSG:32651")
    refused("warp one of them")
    write_tiff(tmp_path / "b.tif", pixels, left=500015)
    refused("different transforms")
    write_tiff(tmp_path / "b.tif", pixels)
    refused("4 bands, but 6 are declared", bands=BANDS)
    refused("must be among the bands", bands=["red", "green", "nir", "swir1"])
    refused("unknown band 'infrared'", bands=["blue", "green", "red", "infrared"])
    refused("leaves every root", after="../b.tif")
    refused("'unchanged' without 'change'", unchanged="u.png")
    refused("unknown key", colour=3)
    write_png(tmp_path / "mask.png", np.zeros((10, 10), np.uint8))
    refused("10 x 10 pixels, its raster 64 x 64", change="mask.png")
    describe(tmp_path, pair)
    with pytest.raises(InputError, match="smaller than one tile of 128"):
        load(tmp_path, tile=128)
    with pytest.raises(ConfigError, match="did you mean 'tile'"):
        load(tmp_path, tilt=64)
    (tmp_path / "b.tif").write_bytes(b"not a raster")
    refused("cannot be read as a raster")


def test_nan_and_nodata_pixels_count_nowhere(tmp_path: Path) -> None:
    before, after = six_bands(0.25, 0.25).astype(np.float32), six_bands(0.25, 0.25).astype(np.float32)
    before[2, :16, :16] = np.nan
    after[5, -8:, -8:] = -9999
    write_tiff(tmp_path / "a.tif", before)
    write_tiff(tmp_path / "b.tif", after, nodata=-9999)
    lacking = np.zeros((64, 64), np.uint8)
    lacking[30, 30] = 255
    write_png(tmp_path / "clouds.png", lacking)
    pair = {"scene": "s", "before": "a.tif", "after": "b.tif", "bands": BANDS, "nodata": "clouds.png"}
    describe(tmp_path, pair)
    forecast = load(tmp_path, min_valid=0.5)[-1]
    usable = read_mask(forecast.reference["valid"])
    assert (~usable).sum() == 16 * 16 + 8 * 8 + 1
    assert forecast.metadata["valid_share"] == pytest.approx(usable.mean(), abs=1e-6)
    roofs = np.arange(64)[:, None] < 16
    assert forecast.metadata["shares_before"]["built_up"] == pytest.approx(
        (roofs & usable).sum() / usable.sum(), abs=1e-6
    )
    assert not read_rgb(forecast.images[0])[~usable].any() and forecast.prompt == "nothing changes"
    conversion = convert(tmp_path, tmp_path / "out", tile=16, min_valid=0.9)
    assert "2 tiles left out: less than 90% of the pixels usable in s" in conversion.notes
    before[:] = np.nan
    write_tiff(tmp_path / "a.tif", before)
    with pytest.raises(InputError, match="no usable pixel"):
        load(tmp_path)


def test_partial_labels_leave_the_rest_out(tmp_path: Path, six: Path) -> None:
    change, unchanged = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    change[20:30] = 255
    unchanged[28:40] = 255  # two rows are labelled both ways, so neither
    write_png(tmp_path / "change.png", change)
    write_png(tmp_path / "unchanged.png", unchanged)
    masks = {"made": {"change": "change.png", "unchanged": "unchanged.png"}}
    forecast, mask = None, None
    for sample in load(six, pairs=masks, tasks=["forecast", "change_mask", "change_qa"]):
        forecast = sample if sample.task == "forecast" else forecast
        mask = sample if sample.task == "change_mask" else mask
        assert sample.kind not in ("change_ratio", "change_or_not")
    assert forecast is not None and mask is not None and len(mask.images) == 2
    for sample in (forecast, mask):
        assert read_mask(sample.reference["valid"]).sum() == (8 + 10) * 64
        assert read_mask(sample.reference["mask"]).sum() == 8 * 64
    write_png(tmp_path / "change.png", change // 255)
    with pytest.raises(InputError, match="the values 0 and 1; a mask holds 0 and 255"):
        load(six, pairs=masks, tasks=["change_mask"])
    coded = {"made": {**masks["made"], "change": {"path": "change.png", "threshold": 0}}}
    assert read_mask(load(six, pairs=coded, tasks=["change_mask"])[0].reference["mask"]).sum() == 8 * 64
    plain = load(six, pairs=coded, tasks=["forecast"], forecast_labels=False)[0]
    assert not {"mask", "valid"} & set(plain.reference)
    # Without 'unchanged' every pixel is labelled, so the whole tile can be asked about.
    found = answers(load(six, pairs={"made": {"change": coded["made"]["change"]}}))
    assert found["change_or_not/all"] == "yes" and found["change_ratio/all"] == "10_to_20"


def test_pngs_need_no_description(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("east", "west"):
        (tmp_path / place).mkdir()
        for name in ("t1", "t2"):
            write_png(tmp_path / place / f"{name}.png", rng.integers(0, 256, (64, 70, 3), dtype=np.uint8))
        change = np.zeros((64, 70), np.uint8)
        change[:32] = 255
        write_png(tmp_path / place / "change.png", change)
    samples = load(tmp_path)
    assert {sample.scene for sample in samples} == {"east", "west"}
    assert answers([s for s in samples if s.scene == "east"]) == {
        "change_or_not/all": "yes"
    }  # 0.5 is the edge of a bin
    shown = read_rgb(samples[0].images[0])
    assert (shown == read_rgb(load(tmp_path / "east")[0].images[0])).all() and samples[0].metadata["stretch"][
        "rule"
    ] == "none"
    conversion = convert(tmp_path, tmp_path / "out", split="west")
    assert {sample.scene for sample in load_samples(conversion.file)} == {"west"}
    assert any("the last 0 rows and 6 columns hold no whole tile" in note for note in conversion.notes)
    with pytest.raises(InputError, match="no split or scene 'north'; it has east, west"):
        load(tmp_path, split="north")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither pairs\.yaml nor files"):
        load(tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "absent")


def test_a_scene_belongs_to_one_split(six: Path) -> None:
    pair = yaml.safe_load((six / "pairs.yaml").read_text())["pairs"][0]
    describe(six, pair | {"split": "train"}, pair | {"split": "test"})
    with pytest.raises(InputError, match="stands in several splits"):
        load(six)
    describe(six, pair | {"split": "train"}, pair | {"split": "test", "scene": "other"})
    train, test = load(six, split="train"), load(six, split="test")
    assert {s.scene for s in train} == {"made"} and {s.scene for s in test} == {"other"}
    assert not {s.id for s in train} & {s.id for s in test}


def test_stretch_and_haze_are_declared(six: Path) -> None:
    by = {rule: load(six, stretch=rule, tasks=["forecast"])[0] for rule in ("raster", "pair")}
    low = by["pair"].metadata["stretch"]["low"]
    assert low[0] == low[1] and by["raster"].metadata["stretch"]["percentiles"] == [1.0, 99.0]
    assert by["raster"].metadata["stretch"]["low"][0] != by["raster"].metadata["stretch"]["low"][1]
    with pytest.raises(InputError, match="needs uint8"):
        load(six, stretch="none")
    hazy = load(six, dark_object=1.0, tasks=["forecast"])[0].metadata["dark_object"]
    assert hazy["percentile"] == 1.0 and len(hazy["subtracted"][0]) == 6
    own = load(six, pairs={"made": {"thresholds": {"ndvi": [0.1, 0.99]}}}, tasks=["forecast"])[0]
    assert own.metadata["classes"]["vegetation"]["above"] == [0.1, 0.99]
    assert own.metadata["shares_after"]["vegetation"] == 0


def test_broken_archives_and_arrays_are_refused(tmp_path: Path) -> None:
    pair = {"scene": "s", "before": "b.npz:t1", "after": "b.npz:t2", "bands": BANDS}
    describe(tmp_path, pair)
    np.savez(tmp_path / "b.npz", t1=six_bands(0.2, 0.2), t3=six_bands(0.2, 0.2))
    with pytest.raises(InputError, match="no array 't2'; it holds t1, t3"):
        load(tmp_path)
    np.savez(tmp_path / "b.npz", t1=np.array([{"a": 1}], object), t2=six_bands(0.2, 0.2))
    with pytest.raises(InputError, match=r"b\.npz"):
        load(tmp_path)
    np.savez(tmp_path / "b.npz", t1=six_bands(0.2, 0.2).astype(complex), t2=six_bands(0.2, 0.2))
    with pytest.raises(InputError, match="real numbers"):
        load(tmp_path)
    last = np.moveaxis(six_bands(0.25, 0.2), 0, -1)
    np.savez(tmp_path / "b.npz", t1=last, t2=last)
    assert load(tmp_path)[0].metadata["shares_before"]["built_up"] == pytest.approx(0.25)


def test_large_geotiffs_are_read_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsw_rewards.data import rasters

    for name, roofs in (("a", 0.25), ("b", 0.5)):
        write_tiff(tmp_path / f"{name}.tif", six_bands(roofs, 0.125), tiled=True, blockxsize=16, blockysize=16)
    describe(tmp_path, {"scene": "s", "before": "a.tif", "after": "b.tif", "bands": BANDS})
    whole = load(tmp_path, tile=16)
    monkeypatch.setattr(rasters, "MAX_PIXELS", 1000)
    windowed = load(tmp_path, tile=16)
    assert rasters.open_raster(tmp_path / "a.tif").array is None
    assert [(s.id, s.reference.get("answers")) for s in windowed] == [(s.id, s.reference.get("answers")) for s in whole]
    assert (read_rgb(windowed[0].images[0]) == read_rgb(whole[0].images[0])).all()


def test_noise_is_not_an_answer() -> None:
    facts = TileFacts(("water", "vegetation", "built_up"), (0.1, 0.5, 0.301), (0.11, 0.48, 0.301))
    found = candidates(facts, dead_band=0.02, edge_margin=0.005, wording="plain")
    asked = {(q.kind, q.about): q.answer for kind in KINDS for q in found[kind]}
    assert ("increase_or_not", "water") not in asked and asked["decrease_or_not", "water"] == "no"
    assert asked["decrease_or_not", "vegetation"] == "yes" and asked["growth_percent", "vegetation"] == "2.0"
    assert asked["increase_or_not", "built_up"] == "no"
    assert ("share_bin", "built_up-before") not in asked and ("largest_change", "all") not in asked
    assert change_text(facts, 0.02, "plain") == "vegetation decreased"
    still = TileFacts(("water",), (0.1,), (0.11,))
    assert change_text(still, 0.02, "plain") == "nothing changes"
    assert change_text(TileFacts(("water",), (0.1,), (0.11,), seen_changed=True), 0.02, "plain") is None


@pytest.mark.parametrize("share", [0.0, 0.05, 0.0951, 0.1, 0.1049, 0.11, 0.999, 1.0])
def test_a_clear_bin_is_stable_under_noise(share: float) -> None:
    name = clear_bin(share, 0.005)
    if name is not None and share:
        noisy = {ratio_bin(min(max(share + e, 0), 1)) for e in (-0.0049, 0, 0.0049)}
        assert noisy == {name}


def test_prompts_hold_only_words_the_shipped_model_knows(six: Path) -> None:
    from rsw_rewards.data.scene_world.questions import vocabulary

    known = set(vocabulary())
    for sample in load(six, kinds=list(CLOSED_KINDS)):
        words = sample.prompt.replace("?", "").split() + sample.reference.get("answers", [])
        assert set(words) <= known, sample.prompt


def test_verifiers_accept_the_true_answers(six: Path) -> None:
    from rsw_rewards.core.records import Output
    from rsw_rewards.core.rubric import build
    from rsw_rewards.core.verifier import Batch

    for name, kinds in (("exact_match", CLOSED_KINDS), ("numeric_match", NUMERIC_KINDS)):
        samples = load(six, kinds=list(kinds), tasks=["change_qa"])
        assert samples and {sample.kind for sample in samples} <= set(kinds)
        right = [Output(sample.id, text=sample.reference["answers"][0]) for sample in samples]
        assert [score.value for score in build(name).score(Batch.of(samples, right))] == [1.0] * len(samples)


def test_environment_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSW_NOWHERE", raising=False)
    assert expand("${RSW_NOWHERE:-../shared}/data") == "../shared/data"
    monkeypatch.setenv("RSW_NOWHERE", "/there")
    assert expand("${RSW_NOWHERE:-../shared}/data") == "/there/data"
    monkeypatch.delenv("RSW_NOWHERE")
    with pytest.raises(ConfigError, match="RSW_NOWHERE"):
        expand("${RSW_NOWHERE}/data")


def test_real_landsat_pairs_are_plausible() -> None:
    nanjing = load(shared("data/landsat_nanjing"), tasks=["change_qa", "forecast"])
    taizhou = load(shared("data/landsat_taizhou"), tasks=["change_mask", "forecast"], tile=None)
    assert {s.scene for s in nanjing} == {"landsat_nanjing"} and {s.scene for s in taizhou} == {"landsat_taizhou"}
    assert nanjing[0].images[0].date == "2000-05-03" and nanjing[0].metadata["gsd_m"] == 30
    assert len({(s.metadata["row"], s.metadata["col"]) for s in nanjing}) == 144
    yes_no = Counter(
        a
        for k, a in ((s.kind, s.reference["answers"][0]) for s in nanjing if s.task == "change_qa")
        if k == "increase_or_not"
    )
    assert min(yes_no.values()) / sum(yes_no.values()) > 0.3
    mask, forecast = taizhou
    labelled, changed = read_mask(mask.reference["valid"]), read_mask(mask.reference["mask"])
    assert (labelled.sum(), changed.sum()) == (21390, 4227)
    assert forecast.metadata["dark_object"]["percentile"] == 0.1
    shares = forecast.metadata["shares_before"]
    assert 0.005 < shares["water"] < 0.05 and 0.3 < shares["vegetation"] < 0.7 and 0.3 < shares["built_up"] < 0.7
