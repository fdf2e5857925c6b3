"""Land cover of single images: class maps of LandCover.ai and GAMUS, labels of reBEN (BigEarthNet v2) and So2Sat LCZ42.

Each was read where its function says. What lies in HDF5 files or in a file a band is written to the output, since a record names one file an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    SPLITS,
    ImageFolder,
    choose_parts,
    choose_splits,
    data_folder,
    find_file,
    find_folder,
    inside,
    plain_name,
    read_list,
)
from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.extras import need
from rsw_rewards.io.images import write_png
from rsw_rewards.pixels import MAX_BYTES

LANDCOVER = ("background", "building", "woodland", "water", "road")
GAMUS = ("others", "ground", "low vegetation", "buildings", "water", "road", "tree")
ZONES = (
    "compact high rise", "compact mid rise", "compact low rise", "open high rise", "open mid rise", "open low rise", "lightweight low rise", "large low rise",
    "sparsely built", "heavy industry", "dense trees", "scattered trees", "bush, scrub", "low plants", "bare rock or paved", "bare soil or sand", "water",
)  # fmt: skip
"""The local climate zones of So2Sat, in the order of its one-hot labels."""
BEN = (
    "Urban fabric", "Industrial or commercial units", "Arable land", "Permanent crops", "Pastures", "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation", "Agro-forestry areas", "Broad-leaved forest",
    "Coniferous forest", "Mixed forest", "Natural grassland and sparsely vegetated areas", "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub", "Beaches, dunes, sands", "Inland wetlands", "Coastal wetlands", "Inland waters", "Marine waters",
)  # fmt: skip
"""The 19 classes of reBEN, which name labels and need no order."""
_SHOWN = 2000.0
"""Sentinel-2's numbers up to this are shown, as torchgeo plots them."""


def _map_sample(
    name: str, split: str | None, stem: str, scene: str, image: str, mask: str, classes: tuple[str, ...]
) -> dict[str, Any]:
    numbered = ", ".join(f"{number} {label}" for number, label in enumerate(classes))
    return {
        "id": f"{name}/{split}/{stem}" if split else f"{name}/{stem}",
        "task": "change_mask",
        "scene": f"{name}/{scene}",
        "images": [image],
        "prompt": f"Map the land cover of the image: {numbered}.",
        "reference": {"mask": mask, "classes": list(classes)},
        "metadata": {"dataset": name, **({"split": split} if split else {})},
    }


def _lines(file: Path, source: Path) -> list[str]:
    lines = read_list(inside(file, source)).split("\n")
    return [plain_name(line.strip(), str(file)) for line in lines if line.strip()]


def landcover_ai(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write LandCover.ai's tiles (arXiv 2005.02264) as maps of five classes, as the authors' ``split.py`` cuts them.

    Read in github.com/torchgeo/torchgeo@65507dc ``torchgeo/datasets/landcoverai.py:53-75,323-389``: ``output/<id>.jpg`` and ``output/<id>_m.png``, lists ``train.txt``, ``val.txt``
    and ``test.txt`` of ids. Tiles of one orthophoto are one scene.
    """
    source = data_folder(source, "output, train.txt, val.txt and test.txt")
    place = find_folder(source, "output")
    lists = {name: source / f"{name}.txt" for name in SPLITS if (source / f"{name}.txt").is_file()}
    if place is None or not lists:
        raise InputError(
            f"{source} should hold output and train.txt, val.txt or test.txt; run the archive's split.py first"
        )
    tiles = ImageFolder(place, source)
    records = (
        _map_sample(
            "landcover_ai",
            name,
            stem,
            stem.rpartition("_")[0] or stem,
            tiles[f"{stem}.jpg"],
            tiles[f"{stem}_m.png"],
            LANDCOVER,
        )
        for name in choose_splits(lists, split, source)
        for stem in _lines(lists[name], source)
    )
    return conversion(out, records, limit, f"the lists in {source} name no tile", [source])


def _array(file: Path, source: Path, key: str) -> np.ndarray:
    """One array of an HDF5 file. Raises :class:`InputError`."""
    import h5py

    with (
        as_input_error(f"{file} cannot be read as HDF5 with an array {key!r}", OSError, KeyError, AttributeError),
        h5py.File(inside(file, source), "r") as stored,
    ):
        found = stored[key]
        if found.nbytes > MAX_BYTES:
            raise InputError(f"{file} unpacks to more than {MAX_BYTES:,} bytes")
        return np.asarray(found[()])


def _gamus(source: Path, out: Path, splits: list[str]) -> Iterator[dict[str, Any]]:
    for split in splits:
        for file in sorted((source / "images" / split).glob("*.h5")):
            stem = file.name[: -len("IMG.h5")]  # as the loader does, since other cities' images end in RGB.h5
            image = _array(file, source, "image")
            labels = _array(source / "classes" / split / f"{stem}CLS.h5", source, "image")
            if image.ndim != 3 or image.shape[2] != 3 or labels.squeeze().shape != image.shape[:2]:
                raise InputError(
                    f"{file}: an image {image.shape} and classes {labels.shape} do not fit; (H, W, 3) and (H, W) are wanted"
                )
            labels = labels.squeeze()
            if not np.isin(labels, np.arange(len(GAMUS))).all():
                raise InputError(
                    f"{file}: its classes hold {np.unique(labels)[:9].tolist()}; 0 to {len(GAMUS) - 1} are known"
                )
            name = stem.strip("_-. ")
            paths = f"images/{split}/{name}.png", f"classes/{split}/{name}.png"
            for path, pixels in zip(paths, (image, labels), strict=True):
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                write_png(out / path, pixels.astype(np.uint8))
            yield _map_sample("gamus", split, name, name, *paths, GAMUS)


def gamus(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write GAMUS (arXiv 2305.14914) as maps of seven classes; heights are not shown, images become PNG files.

    Read in github.com/EarthNets/RSI-MMSegmentation@6ed44ba ``gamus_dataset.py:10-43`` and ``README.md`` ("Dataset classes"): ``images/<split>/<base>IMG.h5`` (or
    ``RGB.h5``: three letters) and ``classes/<split>/<base>CLS.h5``, each with one array ``image``.
    """
    need("the HDF5 files of GAMUS", "h5py")
    source = data_folder(source, "images and classes")
    place = find_folder(source, "images")
    found = [name for name in SPLITS if place is not None and (place / name).is_dir()]
    if not found or find_folder(source, "classes") is None:
        raise InputError(f"{source} should hold images/<split> and classes/<split> with HDF5 files")
    records = _gamus(source, Path(out), choose_splits(found, split, source))
    notes = ["every tile counts as a scene"]
    return conversion(out, records, limit, f"{place} holds no *IMG.h5 or *RGB.h5", [Path(out)], notes)


def _bands(out: Path, path: str, pixels: np.ndarray, bands: list[int], shown: float) -> dict[str, Any]:
    """The entry of an image of many bands (H, W, C), written as ``.npy``."""
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    np.save(out / path, np.ascontiguousarray(pixels), allow_pickle=False)
    return {"path": path, "bands": bands, "stretch": [[0.0, shown]] * pixels.shape[2]}


def _reben(source: Path, out: Path, rows: Iterator[Any]) -> Iterator[dict[str, Any]]:
    from rsw_rewards.data.rasters import open_raster

    for row in rows:
        name, split = (plain_name(value, "metadata.parquet") for value in (row.patch_id, row.split))
        place = source / "BigEarthNet-S2" / "_".join(name.split("_")[:-2]) / name
        files = [
            next(iter(sorted(place.glob(f"*_{band}.tif"))), place / f"{name}_{band}.tif")
            for band in ("B04", "B03", "B02")
        ]
        rasters = [open_raster(inside(file, source), bands=1) for file in files]
        if any(raster.array is None for raster in rasters):
            raise InputError(f"{place}: its bands are larger than a patch")
        pixels = np.stack([raster.array[0] for raster in rasters if raster.array is not None], axis=-1)
        labels = list(row.labels)
        if unknown := sorted(set(labels) - set(BEN)):
            raise InputError(f"{source / 'metadata.parquet'}: the label {unknown[0]!r} of {name} is none of reBEN's 19")
        yield {
            "id": f"reben/{split}/{name}",
            "task": "classification",
            "scene": f"reben/{'_'.join(name.split('_')[:-2])}",
            "images": [_bands(out, f"images/{split}/{name}.npy", pixels, [0, 1, 2], _SHOWN)],
            "prompt": f"Which of these classes does the image show? Answer with all that are there, as a JSON list: {'; '.join(BEN)}.",
            "reference": {"labels": labels, "vocabulary": list(BEN)},
            "metadata": {"dataset": "reben", "split": split, "country": str(getattr(row, "country", ""))},
        }


def reben(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write reBEN (BigEarthNet v2, arXiv 2407.03653): Sentinel-2 patches in red, green and blue, with up to 19 labels.

    Read in github.com/torchgeo/torchgeo@65507dc ``torchgeo/datasets/bigearthnet.py:602-691,729-862`` and github.com/rsim-tu-berlin/ConfigILM@3269d43
    ``configilm/extra/BENv2_utils.py:537-545``: ``metadata.parquet`` with ``patch_id``, ``labels`` and ``split``; ``BigEarthNet-S2/<tile>/<patch_id>/*_B04.tif`` and so on. The three bands of a
    patch become one ``.npy`` file. Patches of one Sentinel-2 scene are one scene.

    Args:
        source, out, limit: as in :class:`rsw_rewards.data.adapter.Adapter`.
        split: ``train``, ``validation`` (or ``val``) or ``test``.
    """
    import pandas as pd

    need("the bands of reBEN", "rasterio")
    source = data_folder(source, "metadata.parquet and BigEarthNet-S2")
    file = source / "metadata.parquet"
    with as_input_error(f"{file} cannot be read", OSError, ValueError):
        table = pd.read_parquet(inside(file, source))
    if missing := {"patch_id", "labels", "split"} - set(table.columns):
        raise InputError(f"{file} has no column {min(missing)!r}; it has {', '.join(map(str, table.columns))}")
    known = list(dict.fromkeys(table["split"]))
    chosen = choose_splits(known, "validation" if split == "val" else split, file)
    rows = table[table["split"].isin(chosen)].itertuples(index=False)
    return conversion(out, _reben(source, Path(out), rows), limit, f"{file} has no row", [Path(out)])


_SO2SAT = {"train": "training.h5", "validation": "validation.h5", "test": "testing.h5"}


def _so2sat(source: Path, out: Path, places: dict[str, Path]) -> Iterator[dict[str, Any]]:
    import h5py

    for split, file in places.items():
        with (
            as_input_error(f"{file} cannot be read as HDF5 with sen2 and label", OSError, KeyError, AttributeError),
            h5py.File(inside(file, source), "r") as stored,
        ):
            images, labels = stored["sen2"], stored["label"]
            if images.ndim != 4 or images.shape[-1] != 10 or labels.shape != (len(images), len(ZONES)):
                raise InputError(
                    f"{file}: sen2 {images.shape} and label {labels.shape} should be (N, H, W, 10) and (N, {len(ZONES)})"
                )
            for number in range(len(images)):
                pixels = np.asarray(images[number], np.float32)
                yield {
                    "id": f"so2sat/{split}/{number:06d}",
                    "task": "classification",
                    "scene": f"so2sat/{split}/{number:06d}",
                    "images": [_bands(out, f"images/{split}/{number:06d}.npy", pixels, [2, 1, 0], _SHOWN / 10_000)],
                    "prompt": f"Which local climate zone is it? Answer with one of: {'; '.join(ZONES)}.",
                    "reference": {"label": ZONES[int(np.argmax(labels[number]))], "vocabulary": list(ZONES)},
                    "metadata": {"dataset": "so2sat", "split": split, "gsd_m": 10.0},
                }


def so2sat(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write So2Sat LCZ42's Sentinel-2 patches with their local climate zone; the ten bands of a patch become a ``.npy`` file.

    Read in github.com/torchgeo/torchgeo@65507dc ``torchgeo/datasets/so2sat.py:109-186,261-294``: ``training.h5``, ``validation.h5`` and ``testing.h5`` with ``sen2`` (N, 32, 32, 10) and one-hot
    ``label``. Version 3 has them in ``random``, ``block`` and ``culture_10``: give that folder.
    """
    need("the HDF5 files of So2Sat", "h5py")
    source = data_folder(source, "training.h5 and testing.h5")
    places = {name: find_file(source / file) for name, file in _SO2SAT.items()}
    chosen = choose_parts(places, split, source, ", ".join(_SO2SAT.values()))
    notes = ["every patch counts as a scene: the files do not say where one lies"]
    return conversion(out, _so2sat(source, Path(out), chosen), limit, f"{source} holds no patch", [Path(out)], notes)
