"""Cubes of Sentinel-2 series: EarthNet2021 (npz, four bands) and GreenEarthNet (NetCDF, NDVI), as forecasts of the twenty last dates and more.

A record names one image a frame, so frames are written to ``out/frames`` as ``.npy`` files. A pixel that was not seen at a date is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import choose_parts, data_folder, find_folder, inside
from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.extras import need
from rsw_rewards.pixels import MAX_BYTES

CONTEXT = 10
"""Frames of a cube that are shown, where one file holds the whole cube."""
STEP_DAYS = 5
_CUBE = re.compile(r"(?:[^_]*_)?((\d{2}[A-Z]{3})_.*)")
_TILE = re.compile(r"(?:^|_)(\d{2}[A-Z]{3})(?:_|$)")
_TRACKS = {name: f"{name}_test_split" for name in ("iid", "ood", "extreme", "seasonal")}
_CLEAR = (1, 2, 4, 5, 6, 7)
"""Classes of Sen2Cor's scene classification in which the ground is seen."""


def _named(file: Path) -> tuple[str, str]:
    """The name of a cube, without what stands before its tile, and the tile. Raises :class:`InputError`."""
    found = _CUBE.fullmatch(file.stem)
    if found is None:
        raise InputError(
            f"{file} should be called after a Sentinel-2 tile, such as 29SND_2018-09-03_..., with one word before it at most"
        )
    return found[1], found[2]


def _days(cube: str, frames: int) -> list[str | None]:
    """The dates of the frames, where the cube's name tells its first day: frame i is of day 5 i + 4."""
    try:
        first = date.fromisoformat(cube.split("_")[1])
    except (ValueError, IndexError):
        return [None] * frames
    return [str(first + timedelta(days=STEP_DAYS * number + STEP_DAYS - 1)) for number in range(frames)]


def write_frames(
    frames: np.ndarray, out: Path, folder: str, days: Sequence[str | None] = (), **fields: Any
) -> list[dict[str, Any]]:
    """Entries of the frames (T, ...), each written as a file of its own, with their dates where those are known."""
    (out / folder).mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (frame, day) in enumerate(zip(frames, days or [None] * len(frames), strict=True)):
        path = f"{folder}/{number:03d}.npy"
        np.save(out / path, np.ascontiguousarray(frame), allow_pickle=False)
        entries.append({"path": path, **({"date": day} if day else {}), **fields})
    return entries


@contextmanager
def opened_npz(file: Path, what: str, hint: str = "") -> Iterator[Any]:
    """The arrays of an npz file of a bounded size. Raises :class:`InputError` where it, or what is taken of it, cannot be read.

    Args:
        file: the file.
        what: how it cannot be read then, as a sentence's end; ``hint`` that of one that is too large.
    """
    with (
        as_input_error(f"{file} cannot be read as {what}", OSError, ValueError, KeyError, IndexError),
        np.load(file, allow_pickle=False) as stored,
    ):
        if sum(info.file_size for info in stored.zip.infolist()) > MAX_BYTES:
            raise InputError(f"{file} unpacks to more than {MAX_BYTES:,} bytes{hint}")
        yield stored


def _highres(file: Path, source: Path) -> np.ndarray:
    """(T, H, W, 4) reflectance of an npz file, NaN where its mask, the last channel, says that a pixel is bad. Raises :class:`InputError`."""
    with opened_npz(inside(file, source), "a cube with highresdynamic") as stored:
        values = stored["highresdynamic"]
    if values.ndim != 4 or values.shape[2] not in (5, 7) or values.dtype.kind != "f":
        raise InputError(
            f"{file}: highresdynamic should be (H, W, 5 or 7, T) of floats, not {values.dtype} {values.shape}"
        )
    bands, bad = values[:, :, :4], values[:, :, -1:] == 1
    return np.moveaxis(
        np.where(bad, np.nan, np.nan_to_num(bands, nan=0.0)).astype(values.dtype), (3, 0, 1, 2), (0, 1, 2, 3)
    )


def _cubes_2021(place: Path, source: Path) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
    """The file, the frames shown and those to come of every cube of a split."""
    context, target = find_folder(place, "context"), find_folder(place, "target")
    if context is None or target is None:
        for file in sorted(place.glob("*/*.npz")):
            frames = _highres(file, source)
            yield file, frames[:CONTEXT], frames[CONTEXT:]
        return
    shown = {_named(file)[0]: file for file in sorted(context.glob("*/*.npz"))}
    for file in sorted(target.glob("*/*.npz")):
        if _named(file)[0] not in shown:
            raise InputError(f"{context} has no cube for {file}")
        yield file, _highres(shown[_named(file)[0]], source), _highres(file, source)


def _samples_2021(source: Path, out: Path, places: dict[str, Path]) -> Iterator[dict[str, Any]]:
    for split, place in places.items():
        for file, context, target in _cubes_2021(place, source):
            cube, tile = _named(file)
            if not len(target) or context.shape[1:] != target.shape[1:]:
                raise InputError(
                    f"{file}: {len(context)} frames {context.shape[1:]} and {len(target)} {target.shape[1:]} are no cube to forecast"
                )
            both = np.concatenate([context, target])
            frames = write_frames(both, out, f"frames/{split}/{cube}", _days(cube, len(both)), bands=[2, 1, 0])
            prompt = "Forecast the four bands of the following dates."
            yield _sample("earthnet2021", split, tile, cube, frames, len(context), {}, prompt)


def _sample(
    name: str,
    split: str,
    tile: str,
    cube: str,
    frames: list[dict[str, Any]],
    shown: int,
    reference: dict[str, Any],
    prompt: str,
) -> dict[str, Any]:
    return {
        "id": f"{name}/{split}/{cube}",
        "task": "forecast",
        "scene": f"{name}/{tile}",
        "images": frames[:shown],
        "prompt": prompt,
        "reference": {"images": frames[shown:], **reference},
        "metadata": {"dataset": name, "split": split, "gsd_m": 20.0, "tile": tile},
    }


def earthnet2021(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write EarthNet2021's cubes (arXiv 2104.10066) as forecasts of four bands. See :class:`rsw_rewards.data.adapter.Adapter`.

    Read in the package earthnet 0.3.11 ``parallel_score.py:268-310,361-410`` and in github.com/earthnet2021/earthnet-models-pytorch@f4a12cc
    ``earthnet_models_pytorch/data/en21_data.py:47-140,145-151``. ``train/<tile>/<cube>.npz`` is cut after ten frames; ``<track>_test_split`` has
    ``context/<tile>/context_<cube>.npz`` and ``target/<tile>/target_<cube>.npz``. ``highresdynamic`` is (H, W, bands, T); its last channel is 1 where a pixel is bad.

    Args:
        source, out, limit: as there.
        split: ``train``, ``iid``, ``ood``, ``extreme`` or ``seasonal``.
    """
    source = data_folder(source, "train and iid_test_split")
    places = {name: find_folder(source, folder) for name, folder in {"train": "train", **_TRACKS}.items()}
    return _converted(source, Path(out), places, split, limit, _samples_2021, "train, iid_test_split and so on")


def _converted(
    source: Path, out: Path, places: Mapping[str, Path | None], split: str | None, limit: int | None,
    samples: Callable[[Path, Path, dict[str, Path]], Iterator[dict[str, Any]]], what: str,
) -> Conversion:  # fmt: skip
    records = samples(source, out, choose_parts(places, split, source, what))
    notes = ["cubes of one Sentinel-2 tile count as one scene"]
    return conversion(out, records, limit, f"{source} holds no cube", [out], notes)


def _minicube(file: Path) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """(T, H, W) float32 NDVI, NaN where masked and infinite where not masked but without a number; (H, W) uint8 land cover; T dates."""
    import xarray

    with (
        as_input_error(f"{file} cannot be read as a cube of GreenEarthNet", OSError, ValueError, KeyError),
        xarray.open_dataset(file) as cube,
    ):
        wanted = {name: cube[name] for name in ("s2_B8A", "s2_B04", "s2_dlmask", "s2_SCL")}
        near, red, clouds, scene = (
            one.transpose("time", "lat", "lon")[STEP_DAYS - 1 :: STEP_DAYS].to_numpy() for one in wanted.values()
        )
        cover = cube["esawc_lc"].transpose("lat", "lon").to_numpy()
        times = cube["time"].to_numpy()[STEP_DAYS - 1 :: STEP_DAYS]
    with np.errstate(invalid="ignore", divide="ignore"):
        index = np.clip((near - red) / (near + red + 1e-8), -1, 1)
        clear = (clouds < 1) & np.isin(scene, _CLEAR)
    frames = np.where(clear, np.where(np.isnan(index), np.inf, index), np.nan).astype(np.float32)
    days = np.datetime_as_string(times, unit="D").tolist() if times.dtype.kind == "M" else [None] * len(times)
    return frames, np.where((cover >= 0) & (cover < 255), cover, 255).astype(np.uint8), days


def _samples_green(source: Path, out: Path, places: dict[str, Path]) -> Iterator[dict[str, Any]]:
    for split, place in places.items():
        for file in sorted(place.glob("*/*.nc")):
            frames, cover, days = _minicube(inside(file, source))
            found = _TILE.search(file.stem)
            tile = found[1] if found else file.stem
            name = f"{file.parent.name}/{file.stem}"
            if len(frames) <= CONTEXT:
                raise InputError(
                    f"{file} has {len(frames)} frames, and {CONTEXT} are shown; give the splits that end in _chopped"
                )
            entries = write_frames(frames, out, f"frames/{split}/{name}", days)
            np.save(out / f"frames/{split}/{name}/land_cover.npy", cover, allow_pickle=False)
            reference = {"land_cover": f"frames/{split}/{name}/land_cover.npy"}
            prompt = "Forecast the NDVI of the following dates."
            yield _sample("greenearthnet", split, tile, name, entries, CONTEXT, reference, prompt)


def greenearthnet(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write GreenEarthNet's cubes (arXiv 2303.16198) as forecasts of NDVI. See :class:`rsw_rewards.data.adapter.Adapter`.

    Read in github.com/vitusbenson/greenearthnet@a032963 ``eval.py:17-73,116-150`` and in github.com/earthnet2021/earthnet-models-pytorch@f4a12cc
    ``earthnet_models_pytorch/data/en21x_data.py:61,162-197,241-246``: ``<split>/<region>/<cube>.nc``, such as ``minicube_0_29SND_39.29_-8.56.nc``, with a frame on every
    fifth day from the fifth on, of which ten are shown. A cube whose name has no tile is a scene of its own.

    Args:
        source, out, limit: as there.
        split: a folder of regions, such as ``ood-t_chopped``.
    """
    need("a cube of GreenEarthNet", "xarray")
    source = data_folder(source, "ood-t_chopped or another split")
    places = {
        place.name: place for place in sorted(source.iterdir()) if place.is_dir() and next(place.glob("*/*.nc"), None)
    }
    return _converted(source, Path(out), places, split, limit, _samples_green, "ood-t_chopped/<region>/<cube>.nc")
