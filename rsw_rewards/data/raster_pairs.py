"""Source ``raster-pairs``: two co-registered rasters of one place become tiles, questions and forecasts.

A folder describes its pairs in ``pairs.yaml`` (or ``pairs.json``), or holds ``t1.*`` and ``t2.*`` by themselves; see
``PairSpec`` in :mod:`rsw_rewards.data.raster_specs` for what a pair may say, ``RasterOptions`` for how it is cut and asked about.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.raster_bands import write_raster
from rsw_rewards.data.raster_questions import candidates, change_text, choose
from rsw_rewards.data.raster_specs import PairSpec, RasterOptions, expand, read_specs
from rsw_rewards.data.raster_tiles import Tally, Tile, cut_tiles, open_pair
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import sample_to_json
from rsw_rewards.pixels import content_hash


def tile_samples(
    tile: Tile, images: Mapping[str, ImageRef], spec: PairSpec, options: RasterOptions, tally: Tally
) -> Iterator[Sample]:
    """The samples of one tile over ``images``, which stand for its ``pixels``. Ids and choice depend on nothing but names and seed."""
    shown = (images["before"], images["after"])
    common: dict[str, Any] = {"scene": spec.scene, "metadata": tile.metadata}
    if "change_qa" in options.tasks:
        seed = int.from_bytes(hashlib.sha256(f"{options.seed}/{tile.name}".encode()).digest()[:8], "big")
        found = candidates(
            tile.facts, dead_band=options.dead_band, edge_margin=options.edge_margin, wording=options.wording
        )
        for question in choose(found, np.random.default_rng(seed), options.kinds, options.per_kind):
            reference: dict[str, Any] = {"answers": [question.answer]}
            if question.vocabulary:
                reference["vocabulary"] = list(question.vocabulary)
            if question.unit:
                reference["unit"] = question.unit
            name = f"{tile.name}/{question.kind}/{question.about}"
            yield Sample(name, Task.CHANGE_QA, shown, question.prompt, reference, kind=question.kind, **common)
    labels: dict[str, Any] = {}
    if "valid" in images:
        labels["valid"] = images["valid"]
    if "change_mask" in options.tasks and "change" in images:
        counted = images.get("labelled") or images.get("valid")
        reference = {"mask": images["change"]} | ({"valid": counted} if counted else {})
        yield Sample(f"{tile.name}/change_mask", Task.CHANGE_MASK, shown, "", reference, **common)
    if "forecast" in options.tasks:
        text = change_text(tile.facts, options.dead_band, options.wording)
        if text is None and tile.facts.classes:
            tally.skipped["no forecast where labels show a change and no class leaves the dead band"] += 1
            return
        if options.forecast_labels and "change" in images:
            labels["mask"] = images["change"]
            if "labelled" in images:
                labels["valid"] = images["labelled"]
        reference = {"images": [images["after"]], **labels}
        if text is not None:
            reference["text"] = text
        if spec.dates:
            common["metadata"] = {**tile.metadata, "target_date": spec.dates[1].isoformat()}
        kind = "unknown" if text is None else "unchanged" if text == "nothing changes" else "changed"
        yield Sample(
            f"{tile.name}/forecast", Task.FORECAST, (images["before"],), text or "", reference, kind=kind, **common
        )


def _image(name: str, spec: PairSpec, tile: Tile, **where: Any) -> ImageRef:
    day = (
        spec.dates[("before", "after").index(name)].isoformat() if spec.dates and name in ("before", "after") else None
    )
    return ImageRef(date=day, role=name if day else None, **tile.shown.get(name, {}), **where)


def _tiles(
    folder: Path, specs: Sequence[PairSpec], options: RasterOptions, tally: Tally
) -> Iterator[tuple[PairSpec, Tile]]:
    for spec in specs:
        pair = open_pair(spec, folder, options)
        if not pair.rules:
            tally.notes.append(
                f"{spec.scene}: no index can be computed from {', '.join(spec.bands)}; no class is asked about"
            )
        if pair.rasters[0].dtype == np.uint8 and pair.rules and spec.units is None:
            tally.notes.append(
                f"{spec.scene}: indices come from 8-bit digital numbers, not reflectance "
                f"({'as stored' if pair.haze is None else 'less the dark object of each band'}); "
                f"check that the thresholds suit them"
            )
        if (pair.rasters[0].georeference is None) != (pair.rasters[1].georeference is None):
            tally.notes.append(f"{spec.scene}: only one date has a georeference, so the grids could not be compared")
        step = options.stride or options.tile
        if options.tile and step:
            rest = [(n - options.tile) % step for n in (pair.rasters[0].height, pair.rasters[0].width)]
            if any(rest):
                tally.notes.append(f"{spec.scene}: the last {rest[0]} rows and {rest[1]} columns hold no whole tile")
        for tile in cut_tiles(pair, options, tally):
            yield spec, tile


def load(path: str | Path, *, split: str | None = None, limit: int | None = None, **options: Any) -> list[Sample]:
    """The samples of a folder, their tiles held in memory. Nothing is written.

    Args:
        path: the folder; ``${NAME:-default}`` in it is replaced by environment variables.
        split: names of splits or scenes, separated by commas; None for all.
        limit: stop after this many samples.
        options: fields of :class:`RasterOptions`.

    Raises:
        RswError: a folder, description, option or raster that cannot be used.
    """
    folder = Path(expand(str(path)))
    specs, settings = read_specs(folder, split, options)
    samples: list[Sample] = []
    tally = Tally()
    for spec, tile in _tiles(folder, specs, settings, tally):
        images = {
            name: _image(name, spec, tile, array=pixels, sha256=content_hash(pixels))
            for name, pixels in tile.pixels.items()
        }
        samples.extend(tile_samples(tile, images, spec, settings, tally))
        if limit is not None and len(samples) >= limit:
            return samples[:limit]
    if not samples:
        raise InputError(f"{folder} gives no samples: {'; '.join(tally.sentences()) or 'nothing could be asked'}")
    return samples


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, **options: Any
) -> Conversion:
    """Write ``out/samples.jsonl`` and its tiles in ``out/tiles``; the same input gives the same bytes.

    Args:
        source: folder with ``pairs.yaml``, or with ``t1.*`` and ``t2.*``, or with such folders in it.
        out: folder to write to.
        split: names of splits or scenes, separated by commas; None for all.
        limit: stop after this many samples.
        options: fields of :class:`RasterOptions`; they win over ``options`` in ``pairs.yaml``.

    Raises:
        RswError: a folder, description, option or raster that cannot be used.
    """
    out = Path(out)
    folder = Path(expand(str(source)))
    specs, settings = read_specs(folder, split, options)
    tally = Tally()
    files = {spec.scene: re.sub(r"[^\w.-]+", "-", spec.scene) for spec in specs}
    if len(set(files.values())) < len(files):
        raise InputError(f"{folder}: two scenes have names that differ only in characters a file name cannot hold")

    def records() -> Iterator[dict[str, Any]]:
        (out / "tiles").mkdir(exist_ok=True)
        for spec, tile in _tiles(folder, specs, settings, tally):
            images = {}
            for name, pixels in tile.pixels.items():
                stem = f"{files[spec.scene]}_{tile.name.rpartition('/')[2]}_{name}"
                if name in tile.shown:
                    file = out / "tiles" / f"{stem}.tif"
                    write_raster(file, pixels, spec.bands, tile.shown[name]["nodata"], tile.place)
                else:
                    file = out / "tiles" / f"{stem}.png"
                    write_png(file, pixels)
                images[name] = _image(name, spec, tile, path=file)
            for sample in tile_samples(tile, images, spec, settings, tally):
                yield sample_to_json(sample, out)

    what = f"the rasters in {folder} gave no tile with anything to ask"
    done = conversion(out, records(), limit, what, [out])
    done.notes.extend([f"{tally.tiles} tiles", *tally.sentences()])
    return done
