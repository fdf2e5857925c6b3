"""Forecasts of series as cubes, one file each: npz as EarthNet2021 asks for them, NetCDF as GreenEarthNet does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.earthnet import opened_npz, write_frames
from rsw_rewards.data.importers.imported import Imported
from rsw_rewards.data.layout import inside
from rsw_rewards.errors import ConfigError, InputError, as_input_error, did_you_mean
from rsw_rewards.extras import need
from rsw_rewards.io.pairing import Problem, coverage

VARIABLE = "ndvi_pred"


def read_cubes(folder: Path, samples: Sequence[Sample], **options: Any) -> Imported:
    """The cubes below a folder as forecasts: ``<tile>/<cube>.npz``, also with words before the cube's name, or ``<region>/<cube>.nc``.

    Several files of one cube are its candidates, in the order of their names. An npz holds (H, W, bands, T), of which four bands are taken, as its
    ``highresdynamic`` or its first array; a NetCDF file holds ``ndvi_pred`` over time, lat and lon.

    Args:
        folder: holds the files, in folders of its own.
        samples: forecasts, whose ids end as the files are called.
        options: ``frames``, the folder that the frames are written to, one ``.npy`` file each; ``variable``, the name in NetCDF files.

    Raises:
        ConfigError: another option, or no ``frames``.
        InputError: no file is of a sample, or a file cannot be read.
    """
    if unknown := sorted(options.keys() - {"frames", "variable"}):
        raise ConfigError(
            f"a folder of cubes takes no option {unknown[0]!r}; {did_you_mean(unknown[0], ('frames', 'variable'))}"
        )
    if not options.get("frames"):
        raise ConfigError("say where the frames of the cubes are to be written: frames=FOLDER")
    out, variable = Path(options["frames"]), str(options.get("variable", VARIABLE))
    asked: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.task is Task.FORECAST:
            asked[sample.id.rpartition("/")[2]].append(sample)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".npz", ".nc") and file.is_file())
    outputs: list[Output] = []
    problems: list[Problem] = []
    counts: dict[str, int] = defaultdict(int)
    for file in files:
        found = _asked_for(file, asked)
        if isinstance(found, str):
            problems.append(Problem("unknown_id", file.relative_to(folder).as_posix(), found))
            continue
        bands = None if file.suffix.lower() == ".nc" else (2, 1, 0)
        values = _netcdf(inside(file, folder), variable) if bands is None else _npz(inside(file, folder))
        place = file.relative_to(folder).with_suffix("").as_posix()
        entries = write_frames(values, out, place)
        images = tuple(ImageRef(path=out / entry["path"], bands=bands) for entry in entries)
        outputs.append(Output(found.id, counts[found.id], images=images))
        counts[found.id] += 1
    if not outputs:
        why = problems[0] if problems else "it holds no .npz and no .nc file"
        raise InputError(f"no file in {folder} is the forecast of a sample ({why})")
    lacking = [sample.id for alike in asked.values() for sample in alike if sample.id not in counts]
    problems += [Problem("missing", name, "no forecast of this sample") for name in lacking]
    notes = [coverage(problems, sum(map(len, asked.values())))] if problems else []
    return Imported(outputs, problems, notes, out)


def _asked_for(file: Path, asked: dict[str, list[Sample]]) -> Sample | str:
    """The sample that a file is of: by its name, without words before it where needed, and by its folder where several end alike."""
    words = file.stem.split("_")
    name = next((name for start in range(len(words)) if (name := "_".join(words[start:])) in asked), None)
    if name is None:
        return f"no sample's id ends as {file.stem[:80]!r} does"
    alike = asked[name]
    if len(alike) > 1:
        alike = [sample for sample in alike if sample.id.endswith(f"/{file.parent.name}/{name}")]
    return (
        alike[0]
        if len(alike) == 1
        else f"the name {name[:80]!r} may mean {asked[name][0].id!r} or {asked[name][1].id!r}"
    )


def _npz(file: Path) -> np.ndarray:
    """(T, H, W, 4) float32."""
    with opened_npz(file, "a cube") as stored:
        values = stored["highresdynamic" if "highresdynamic" in stored.files else stored.files[0]]
    if values.ndim != 4 or values.shape[2] < 4 or values.dtype.kind != "f":
        raise InputError(
            f"{file}: a forecast should be (H, W, 4 bands, T) of floats, not {values.dtype} {values.shape}"
        )
    return np.moveaxis(values[:, :, :4], 3, 0).astype(np.float32)


def _netcdf(file: Path, variable: str) -> np.ndarray:
    """(T, H, W) float32."""
    need("a forecast in a NetCDF file", "xarray")
    import xarray

    with (
        as_input_error(
            f"{file} cannot be read as a forecast with {variable!r} over time, lat and lon",
            OSError,
            ValueError,
            KeyError,
        ),
        xarray.open_dataset(file) as cube,
    ):
        values = cube[variable].transpose("time", "lat", "lon").to_numpy()
    return np.asarray(values, np.float32)
