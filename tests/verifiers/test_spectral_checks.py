"""Forecasts in six bands: indices that move as they should, numbers that can be, and nothing hidden that moves a bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.verifiers.bands import read_units
from rsw_rewards.verifiers.spectral import (
    PhysicalRange,
    SpectralDirection,
    expected_of_text,
    movement_agreement,
    possible,
)
from tests.shared_data import shared
from tests.verifiers.made_forecasts import (
    blurred,
    grey,
    metrics,
    plain,
    ready,
    score_one,
    value_of,
    world,
)

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
REFLECTANCE = np.array(
    [
        [0.06, 0.05, 0.03, 0.02, 0.01, 0.01],  # water
        [0.03, 0.05, 0.03, 0.40, 0.16, 0.08],  # trees
        [0.04, 0.09, 0.06, 0.35, 0.22, 0.12],  # grass
        [0.12, 0.17, 0.24, 0.30, 0.36, 0.30],  # ground
        [0.10, 0.11, 0.12, 0.14, 0.16, 0.15],  # road
        [0.18, 0.20, 0.22, 0.24, 0.30, 0.28],  # building
        [0.08, 0.20, 0.12, 0.22, 0.25, 0.20],  # playground
    ]
)


def spectra(material: np.ndarray, seed: int) -> np.ndarray:
    """(H, W, 6) float32 reflectance of materials, under one light and with the noise of one day."""
    rng = np.random.default_rng(seed)
    light = 1 + 0.05 * rng.uniform(-1, 1)
    texture = 1 + 0.08 * rng.standard_normal(material.shape)[..., None]
    noise = 0.003 * rng.standard_normal((*material.shape, 6))
    return np.clip(REFLECTANCE[material] * light * texture + noise, 0.001, 1).astype(np.float32)


@cache
def pairs() -> list[tuple[Sample, np.ndarray, np.ndarray, np.ndarray]]:
    """(sample, before, future, honest forecast) of changed scenes in six bands."""
    found = []
    for row, scene in enumerate(world().scenes):
        if scene.changed:
            before, future, honest = (
                spectra(material, 3 * row + k)
                for k, material in enumerate((scene.material_before, scene.material_after, scene.material_after))
            )
            found.append((sample(before, future, scene.mask, str(row)), before, future, honest))
    return found


def sample(
    before: np.ndarray,
    future: np.ndarray,
    mask: np.ndarray | None = None,
    name: str = "s",
    nodata: float | None = None,
    metadata: dict[str, object] | None = None,
    **more: object,
) -> Sample:
    reference = {"images": [ImageRef(array=future, nodata=nodata)], **more}
    if mask is not None:
        reference["mask"] = grey(mask)
    said = {"bands": list(BANDS[: before.shape[-1]]), **(metadata or {})}
    return Sample(name, Task.FORECAST, (ImageRef(array=before, nodata=nodata),), reference=reference, metadata=said)


def ignorant(row: int) -> dict[str, np.ndarray]:
    """Forecasts that know nothing of what changes in a pair."""
    made = pairs()
    _, before, _, _ = made[row]
    rng = np.random.default_rng(row)
    return {
        "copy": before,
        "blurred copy": blurred(before),
        "noisy copy": np.clip(before + rng.normal(0, 0.05, before.shape), 0.001, 1).astype(np.float32),
        "mean picture": np.mean([future for _, _, future, _ in made], axis=0).astype(np.float32),
        "one colour": np.broadcast_to(before.mean((0, 1)), before.shape).astype(np.float32),
        "noise": rng.uniform(0.001, 1, before.shape).astype(np.float32),
        "another future": made[(row + 1) % len(made)][2],
    }


def test_an_honest_forecast_comes_first_in_nearly_every_changed_scene() -> None:
    """What the card claims: 95 % of changed scenes, against every policy that does not know the future."""
    verifier, first, values = ready(SpectralDirection), [], []
    for row, (one, _, future, honest) in enumerate(pairs()):
        others = {name: value_of(verifier, one, picture) for name, picture in ignorant(row).items()}
        mine = value_of(verifier, one, honest)
        first.append(mine > max(others.values()))
        values.append([mine, value_of(verifier, one, future), others["copy"], others["noise"], others["one colour"]])
    honest, truth, copied, noise, colour = np.mean(values, axis=0)
    assert np.mean(first) >= 0.95
    assert copied == 0.0 and truth == pytest.approx(1.0) and honest > 0.9 and max(noise, colour) < 0.6


def test_the_value_is_graded_by_direction_and_size() -> None:
    one, before, future, _ = pairs()[0]
    verifier = ready(SpectralDirection)
    found = [
        value_of(verifier, one, (before + share * (future - before)).astype(np.float32)) for share in (0, 0.2, 0.5, 1)
    ]
    assert found[0] == 0.0 and found == sorted(found) and found[-1] == pytest.approx(1.0) and found[1] > 0.1
    opposite = score_one(verifier, one, np.maximum(before - 0.5 * (future - before), 0.001).astype(np.float32))
    assert opposite.value == 0.0 and opposite.raw["agreement"] < 0.0
    assert score_one(verifier, one, before).stats["right"].sum() == opposite.stats["right"].sum() == 0


@given(st.floats(0.05, 20), arrays(np.float64, 30, elements=st.floats(-1, 1)))
def test_too_much_costs_what_too_little_does(factor: float, wanted: np.ndarray) -> None:
    wanted[0] = 0.5
    much, little = movement_agreement(factor * wanted, wanted), movement_agreement(wanted / factor, wanted)
    assert much == pytest.approx(little) and 0.0 < much <= 1.0 + 1e-12
    assert movement_agreement(-wanted, wanted) == pytest.approx(-1.0)


def test_where_nothing_should_move_a_copy_is_right() -> None:
    material = np.full((16, 16), 1)
    before = spectra(material, 1)
    one = sample(before, before * np.float32(1.001), np.zeros((16, 16), bool))
    verifier = ready(SpectralDirection)
    assert value_of(verifier, one, before) == pytest.approx(1.0, abs=1e-3)
    assert value_of(verifier, one, spectra(np.full((16, 16), 5), 2)) < 0.1
    assert metrics(verifier, [score_one(verifier, one, before)])["spectral_direction"] is None


def flat(green: float, red: float, nir: float, swir1: float) -> np.ndarray:
    return np.broadcast_to(np.array([0.1, green, red, nir, swir1, 0.1], np.float32), (8, 8, 6)).copy()


PLANTS, ROOFS, WATER = flat(0.08, 0.05, 0.45, 0.2), flat(0.2, 0.22, 0.24, 0.3), flat(0.08, 0.06, 0.02, 0.01)


def test_what_the_sample_says_chooses_the_indices() -> None:
    verifier = ready(SpectralDirection)
    built = {name: sample(PLANTS, ROOFS, metadata={"expected": said}) for name, said in EXPECTED.items()}
    assert set(score_one(verifier, built["both"], ROOFS).raw) == {"ndvi", "ndbi", "agreement"}
    assert set(score_one(verifier, built["ndvi"], ROOFS).raw) == {"ndvi", "agreement"}
    against = score_one(verifier, built["wrong"], ROOFS)
    assert against.status is Status.NOT_APPLICABLE and "way" in against.reason
    assert score_one(verifier, built["odd"], ROOFS).status is Status.ERROR
    told = sample(PLANTS, ROOFS, text="vegetation decreased, built-up land increased")
    assert set(score_one(verifier, told, ROOFS).raw) == {"ndvi", "ndbi", "agreement"}
    silent = sample(PLANTS, ROOFS, text="a house appears")
    assert {"ndvi", "ndwi", "mndwi", "ndbi"} <= set(score_one(verifier, silent, ROOFS).raw)


EXPECTED: dict[str, object] = {
    "both": {"ndvi": "down", "ndbi": "up"}, "ndvi": {"ndvi": "down"}, "wrong": {"ndvi": "up"}, "odd": {"evi": "up"},
}  # fmt: skip


def test_texts_of_the_raster_adapter_are_read() -> None:
    assert expected_of_text("vegetation decreased buildings increased") == {"ndvi": -1, "ndbi": 1}
    assert expected_of_text("water increased") == {"ndwi": 1, "mndwi": 1}
    assert expected_of_text("water increased, water decreased") == {}
    assert expected_of_text("nothing changes") == {} == expected_of_text("underwater increasedly")


def test_directions_are_counted_and_invalid_rows_are_the_worst() -> None:
    verifier = ready(SpectralDirection, indices=["ndvi", "mndwi"])
    one = sample(PLANTS, WATER)
    right, wrong = score_one(verifier, one, WATER), score_one(verifier, one, PLANTS)
    numbers = metrics(verifier, [right, wrong])
    assert numbers["spectral_direction"] == 0.5 and numbers["spectral_direction/mndwi"] == 0.5
    assert numbers["spectral_direction/ndbi"] is None and numbers["spectral_agreement"] == pytest.approx(0.5)
    lost = verifier.invalid(one, "gone")
    assert lost.status is Status.INVALID_OUTPUT and lost.reason == "gone"
    worst = metrics(verifier, [right, lost])
    for picture in (PLANTS, ROOFS, np.zeros_like(WATER), np.full_like(WATER, np.nan)):
        numbers = metrics(verifier, [right, score_one(verifier, one, picture)])
        assert all((numbers[key] or 0.0) >= (worst[key] or 0.0) for key in worst)
    # A forecast without a usable index earns nothing.
    assert score_one(verifier, one, np.full_like(WATER, np.nan)).value == 0.0
    assert score_one(verifier, one, -WATER).value == 0.0


def test_forecasts_without_the_bands_are_invalid_and_samples_without_them_are_not_asked() -> None:
    verifier = ready(SpectralDirection)
    one = sample(PLANTS, WATER)
    bare = score_one(verifier, one, WATER[..., :3])
    assert bare.status is Status.INVALID_OUTPUT and "3 bands" in bare.reason and "6 bands" in bare.reason
    assert score_one(verifier, one, WATER[:4]).status is Status.INVALID_OUTPUT
    rgb = sample(PLANTS[..., :3], WATER[..., :3])
    assert score_one(verifier, rgb, WATER[..., :3]).status is Status.NOT_APPLICABLE
    unnamed = sample(PLANTS, WATER, metadata={"bands": None})
    assert score_one(verifier, unnamed, WATER).status is Status.NOT_APPLICABLE
    for odd in (["nir"], ["nir"] * 6, "nir", ["nope"] * 6, 7):
        assert score_one(verifier, sample(PLANTS, WATER, metadata={"bands": odd}), WATER).status is Status.ERROR


@pytest.mark.parametrize("cls", [SpectralDirection, PhysicalRange])
@given(
    garbage=arrays(np.float32, (3, 8, 8, 6), elements=st.floats(width=32)),
    hidden=arrays(np.bool_, (8, 8)),
    by=st.sampled_from(["valid", "clouds", "nodata", "nan"]),
)
def test_what_does_not_count_moves_no_bit(
    cls: type[Verifier], garbage: np.ndarray, hidden: np.ndarray, by: str
) -> None:
    before, future = PLANTS.copy(), spectra(np.full((8, 8), 5), 2)
    output = spectra(np.full((8, 8), 5), 3)
    hidden[0, 0] = False
    spoil = [
        np.where(hidden[..., None], mess, part) for mess, part in zip(garbage, (before, future, output), strict=True)
    ]
    more: dict[str, object] = {}
    if by in ("valid", "clouds"):
        more[by] = grey(hidden if by == "clouds" else ~hidden)
    else:  # one band of one date is enough
        before[hidden, 4] = spoil[0][hidden, 4] = np.nan if by == "nan" else -9999
        more["nodata"] = -9999.0
    verifier = READY.setdefault(cls, ready(cls))
    first = score_one(verifier, sample(before, future, **more), output)  # type: ignore[arg-type]
    second = score_one(verifier, sample(spoil[0], spoil[1], **more), spoil[2])  # type: ignore[arg-type]
    assert plain([first]) == plain([second])


READY: dict[type[Verifier], Verifier] = {}


def test_physical_range_counts_what_no_sensor_measures() -> None:
    verifier = ready(PhysicalRange)
    one = sample(PLANTS, ROOFS)
    assert value_of(verifier, one, PLANTS) == 1.0 and value_of(verifier, one, np.zeros_like(PLANTS)) == 1.0
    for odd in (np.nan, np.inf, -0.01, 1.01):
        picture = ROOFS.copy()
        picture[:2, 0, 3] = odd
        score = score_one(verifier, one, picture)
        assert score.value == pytest.approx(62 / 64) and "2 of 64" in score.reason
    lost = verifier.invalid(one, "gone")
    assert metrics(verifier, [score_one(verifier, one, ROOFS), lost]) == {"physical_range": 0.5}


def test_the_range_is_that_of_the_sensor() -> None:
    verifier = ready(PhysicalRange)
    counts = (ROOFS * 10000).astype(np.uint16)
    high = counts.copy()
    high[0, 0] = 20000
    for metadata, value in (({}, 1.0), ({"valid_range": [1, 16000]}, 63 / 64)):
        assert value_of(verifier, sample(counts, counts, metadata=metadata), high) == pytest.approx(value)
    for metadata in ({"valid_range": [1]}, {"valid_range": [2, 1]}, {"valid_range": "0..1"}, {"scale_factor": -1}):
        assert score_one(verifier, sample(counts, counts, metadata=metadata), high).status is Status.ERROR
    # Where the truth itself is out of range, so may the forecast be.
    assert value_of(verifier, sample(counts, high, metadata={"valid_range": [1, 16000]}), high) == 1.0
    nothing = sample(counts, counts, metadata={"valid_range": [0.0, 1.0]})
    assert score_one(verifier, nothing, counts).status is Status.NOT_APPLICABLE


def test_an_index_leaves_its_range_where_a_band_is_negative() -> None:
    units = read_units(
        {"bands": list(BANDS), "valid_range": [-2000, 16000], "add_offset": -0.1, "scale_factor": 1e-4},
        np.dtype("int16"),
    )
    pixels = np.full((1, 3, 6), 2000, np.int16)
    pixels[0, 1, 3] = 900  # nir of -0.01
    pixels[0, 2, 0] = 900  # blue is in no index
    assert possible(pixels, units).tolist() == [[True, False, True]]


def test_offsets_are_taken_off_before_indices() -> None:
    stored = [np.rint(picture * 10000 + 1000).astype(np.uint16) for picture in (PLANTS, ROOFS)]
    scale = {"scale_factor": 1e-4, "add_offset": -0.1}
    verifier = ready(SpectralDirection)
    plainly = score_one(verifier, sample(PLANTS, ROOFS), ROOFS)
    scaled = score_one(verifier, sample(*stored, metadata=scale), stored[1])
    assert scaled.raw["ndvi"] == pytest.approx(plainly.raw["ndvi"], abs=1e-3)
    assert score_one(verifier, sample(*stored), stored[1]).raw["ndvi"] != pytest.approx(plainly.raw["ndvi"], abs=0.05)


def write_tiff(
    path: Path, pixels: np.ndarray, west: float = 0.0, side: float = 30.0, crs: str = "EPSG:32650"
) -> ImageRef:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    with rasterio.open(
        path, "w", driver="GTiff", height=8, width=8, count=6, dtype=pixels.dtype, crs=crs,
        transform=from_origin(west, 5000, side, side),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
    return ImageRef(path=path)


def test_a_georeferenced_forecast_must_lie_where_the_sample_does(tmp_path: Path) -> None:
    before, future = write_tiff(tmp_path / "before.tif", PLANTS), write_tiff(tmp_path / "after.tif", ROOFS)
    one = Sample("s", Task.FORECAST, (before,), reference={"images": [future]}, metadata={"bands": list(BANDS)})
    verifier = ready(SpectralDirection)
    near = write_tiff(tmp_path / "near.tif", ROOFS, west=10.0)
    assert score_one(verifier, one, near).value == pytest.approx(1.0)  # a third of a pixel
    np.savez(tmp_path / "after.npz", ROOFS)
    assert score_one(verifier, one, ImageRef(path=tmp_path / "after.npz")).value == pytest.approx(1.0)
    for name, how in (("far", {"west": 20.0}), ("coarse", {"side": 60.0}), ("zone", {"crs": "EPSG:32651"})):
        score = score_one(verifier, one, write_tiff(tmp_path / f"{name}.tif", ROOFS, **how))  # type: ignore[arg-type]
        assert score.status is Status.INVALID_OUTPUT, name


def test_samples_of_rasters_come_from_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "before.npz", PLANTS)
    np.savez(tmp_path / "after.npz", WATER)
    (tmp_path / "samples.jsonl").write_text(
        '{"id": "s", "task": "forecast", "images": [{"path": "before.npz", "nodata": -1}], '
        '"reference": {"images": ["after.npz"]}, '
        '"metadata": {"bands": ["blue", "green", "red", "nir", "swir1", "swir2"], "expected": {"mndwi": "up"}}}\n'
    )
    (one,) = load_samples(tmp_path / "samples.jsonl")
    assert value_of(ready(SpectralDirection), one, WATER) == pytest.approx(1.0)


def test_a_real_pair_moves_as_it_did() -> None:
    """Landsat-7, Taizhou, six bands of counts: plants and water give way to buildings where change is labelled."""
    from PIL import Image

    folder = shared("data/landsat_taizhou")
    with np.load(folder / "bands_uint8.npz") as bands:
        before, after = (np.ascontiguousarray(np.moveaxis(bands[key], 0, -1)) for key in ("t1", "t2"))
    changed, unchanged = (np.asarray(Image.open(folder / f"{name}.png")) > 127 for name in ("change", "unchanged"))
    one = sample(before, after, changed, valid=grey(changed | unchanged))
    verifier = ready(SpectralDirection)
    truth, copied = score_one(verifier, one, after), score_one(verifier, one, before)
    assert truth.value == pytest.approx(1.0) and copied.value == 0.0
    half = ((before.astype(np.float64) + after) / 2).astype(np.uint8)
    assert 0.5 < value_of(verifier, one, half) < 1.0
    assert value_of(ready(PhysicalRange), one, after) == 1.0
