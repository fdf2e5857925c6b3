"""Source ``raster-pairs``: two co-registered rasters of one place become tiles, questions and forecasts.

A folder describes its pairs in ``pairs.yaml`` (or ``pairs.json``), or holds ``t1.*`` and ``t2.*`` by themselves; see
:class:`PairSpec` for what a pair may say and :class:`RasterOptions` for how it is cut and asked about.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from rsw_rewards.config import Strict, validated
from rsw_rewards.data.adapter import Conversion, write_samples
from rsw_rewards.data.raster_folders import find_pairs
from rsw_rewards.data.raster_questions import CLOSED_KINDS, KINDS, TileFacts, Wording, candidates, change_text, choose
from rsw_rewards.data.rasters import (
    Raster,
    Stretch,
    check_same_grid,
    fit_stretch,
    open_raster,
    present,
    tile_origins,
)
from rsw_rewards.data.spectral import BANDS, INDICES, Rule, class_shares, classify, dark_object, make_rules
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.images import ImageRef, content_hash, read_mask, write_png
from rsw_rewards.samples import Roots, Sample, Task, sample_to_json

Threshold = float | tuple[float, float]
StretchRule = Literal["raster", "pair", "none"]


class _Measures(Strict):
    """What may be said for all pairs, and otherwise for one of them."""

    thresholds: dict[Literal["ndvi", "ndwi", "mndwi", "ndbi"], Threshold] = {}
    """Index value above which a pixel belongs to the class, one number or [before, after]. The defaults are for reflectance."""
    water_index: Literal["mndwi", "ndwi"] | None = None
    dark_object: float | None = Field(None, ge=0, le=50)
    """For raw counts: percentile (in percent) of each band that is taken for haze and subtracted before indices (Chavez 1988)."""
    stretch: StretchRule | None = None
    """Percentile limits per raster, per pair, or none (uint8 shown as it is). By default none for uint8 RGB, else per raster."""
    percentiles: tuple[float, float] = (1.0, 99.0)


class PairSpec(_Measures):
    """One pair in ``pairs.yaml``. Paths are relative to the folder and may not leave it."""

    scene: str = Field(min_length=1)
    """The place. Intervals resample scenes, and a scene belongs to one split only."""
    before: str
    """A raster file; ``file.npz:name`` is one array of several."""
    after: str
    bands: list[str]
    """Names of all bands in their order in the file, from :data:`rsw_rewards.data.spectral.BANDS`."""
    dates: tuple[date, date] | None = None
    gsd_m: PositiveFloat | None = None
    """Metres a pixel; by default from the georeference."""
    lat: float | None = Field(None, ge=-90, le=90)
    """Latitude of the centre, for rasters without georeference."""
    lon: float | None = Field(None, ge=-180, le=180)
    nodata: float | str | None = None
    """A value that stands for "no data" (beside the file's own), or a mask file whose values over 127 are "no data"."""
    change: str | None = None
    """Mask, over 127 = changed."""
    unchanged: str | None = None
    """Mask, over 127 = unchanged. With it, pixels in neither mask are unlabelled; without it, they are unchanged."""
    sensor: str | None = None
    units: str | None = None
    """What the numbers are, such as ``"surface reflectance x 10000"``. Integers of 8 bits are called digital numbers."""
    split: str | None = None

    @field_validator("bands")
    @classmethod
    def _known(cls, bands: list[str]) -> list[str]:
        unknown = [band for band in bands if band not in BANDS]
        if unknown:
            raise ValueError(f"unknown band {unknown[0]!r}; known are {', '.join(BANDS)}")
        named = [band for band in bands if band != "other"]
        if len(set(named)) != len(named):
            raise ValueError("a band is named twice")
        if not {"red", "green", "blue"} <= set(named):
            raise ValueError("red, green and blue must be among the bands, to make the pictures")
        return bands

    @model_validator(mode="after")
    def _whole(self) -> PairSpec:
        if self.unchanged is not None and self.change is None:
            raise ValueError("'unchanged' without 'change' labels nothing as changed; name both masks")
        return self


class RasterOptions(_Measures):
    """How pairs are cut into tiles and asked about."""

    tile: PositiveInt | None = 64
    """Side of a tile in pixels; null for the whole raster as one."""
    stride: PositiveInt | None = None
    """Pixels from tile to tile; by default the tile's side, so that tiles do not overlap."""
    min_valid: float = Field(0.9, ge=0, le=1)
    """Tiles with a smaller share of usable pixels are left out and counted."""
    tasks: list[Literal["change_qa", "forecast", "change_mask"]] = ["change_qa", "forecast"]
    kinds: list[str] = list(CLOSED_KINDS)
    """Kinds of question; see :mod:`rsw_rewards.data.raster_questions`. By default all with a closed set of answers."""
    per_kind: PositiveInt | None = 1
    """Questions of one kind per tile; null for all."""
    dead_band: float = Field(0.02, gt=0, lt=1)
    """A class whose share of the tile moves by less has neither increased nor decreased, and nothing is asked about it."""
    edge_margin: float = Field(0.005, ge=0, lt=0.05)
    """Shares this close to the edge of a bin are not asked about."""
    min_labelled: PositiveInt = 64
    """A tile with fewer labelled pixels is treated as one without labels."""
    forecast_labels: bool = True
    """Give forecasts the change mask. With partial labels only labelled pixels then count in every one of their scores."""
    wording: Wording = "scene-world"
    seed: int = Field(0, ge=0)
    """Chooses among the questions of a tile."""
    pairs: dict[str, dict[str, Any]] = {}
    """Keys of a pair to add or replace, by scene."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: list[str]) -> list[str]:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"unknown kind {unknown[0]!r}; known are {', '.join(KINDS)}")
        return kinds


@dataclass(frozen=True, slots=True)
class Pair:
    """An opened pair: rasters on one grid, masks of the whole scene, and what was fitted to it once."""

    spec: PairSpec
    rasters: tuple[Raster, Raster]
    lacking: NDArray[np.bool_] | None
    """(H, W) True where a nodata mask says so."""
    change: NDArray[np.bool_] | None
    labelled: NDArray[np.bool_] | None
    """(H, W), None where the change mask labels every pixel."""
    rules: tuple[Rule, ...]
    stretches: tuple[Stretch, Stretch]
    haze: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    metadata: dict[str, Any]
    """What is the same for all tiles."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One place of a pair: pictures and masks by name, and what was measured on it."""

    name: str
    """``scene/r<row>_c<col>``."""
    pixels: dict[str, NDArray[np.uint8]]
    """``before``, ``after`` (H, W, 3), and where they apply ``change``, ``labelled``, ``valid`` (H, W), 0 or 255."""
    facts: TileFacts
    metadata: dict[str, Any]


@dataclass(slots=True)
class Tally:
    """What was left out, to be told at the end."""

    tiles: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        return [*self.notes, *(f"{count} tiles left out: {why}" for why, count in sorted(self.skipped.items()))]


def expand(text: str) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}`` by environment variables, as a shell does.

    Raises:
        ConfigError: a variable that is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1]) or match[2]
        if found is None:
            raise ConfigError(
                f"the environment variable {match[1]} in {text!r} is not set; set it to the data's folder"
            )
        return found

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


def _reference(name: str) -> tuple[str, str | None]:
    """File and key of ``file.npz:key``."""
    file, mark, key = name.rpartition(".npz:")
    return (f"{file}.npz", key) if mark else (name, None)


def _mask(roots: Roots, name: str, like: Raster) -> NDArray[np.bool_]:
    path = roots.resolve(name)
    mask = read_mask(ImageRef(path=path))
    if mask.shape != (like.height, like.width):
        raise InputError(f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, its raster {like.width} x {like.height}")
    return mask


def _rgb(bands: Sequence[str]) -> list[int]:
    return [bands.index(name) for name in ("red", "green", "blue")]


def _usable_values(raster: Raster, nodata: float | None) -> NDArray[Any]:
    """(bands, n) usable pixels of the whole raster."""
    pixels = raster.overview()
    usable = present(pixels, (nodata, raster.nodata))
    if not usable.any():
        raise InputError(f"{raster.name} holds no usable pixel (all are NaN or nodata)")
    values: NDArray[Any] = pixels[:, usable]
    return values


def _choose_stretches(
    rule: StretchRule, values: Sequence[NDArray[Any]], bands: Sequence[str], percentiles: tuple[float, float]
) -> tuple[Stretch, Stretch]:
    if rule == "none":
        if any(value.dtype != np.uint8 for value in values):
            raise InputError(f"'stretch: none' needs uint8 rasters, these hold {values[0].dtype} and {values[1].dtype}")
        same = Stretch((0, 0, 0), (255, 255, 255))
        return same, same
    shown = [value[_rgb(bands)] for value in values]
    if rule == "pair":
        same = fit_stretch(np.concatenate(shown, axis=1), percentiles)
        return same, same
    return fit_stretch(shown[0], percentiles), fit_stretch(shown[1], percentiles)


def open_pair(spec: PairSpec, folder: Path, options: RasterOptions) -> Pair:
    """Open the rasters and masks of a pair, check that they fit, and fit what belongs to the scene as a whole.

    Raises:
        InputError: a file that is missing, broken, of another size or grid, or has no usable pixel.
    """
    roots = Roots(folder)
    opened = []
    for name in (spec.before, spec.after):
        file, key = _reference(name)
        opened.append(open_raster(roots.resolve(file), key, len(spec.bands)))
    before, after = opened
    check_same_grid(before, after)
    value = spec.nodata if isinstance(spec.nodata, (int, float)) else None
    lacking = _mask(roots, spec.nodata, before) if isinstance(spec.nodata, str) else None
    change = _mask(roots, spec.change, before) if spec.change else None
    labelled = None
    if change is not None and spec.unchanged:
        unchanged = _mask(roots, spec.unchanged, before)
        # A pixel that is labelled both ways is labelled neither way.
        labelled = change ^ unchanged
        change = change & ~unchanged

    def said(key: str) -> Any:
        """What the pair says, else what holds for all."""
        return getattr(spec if key in spec.model_fields_set else options, key)

    values = [_usable_values(raster, value) for raster in opened]
    eight_bit_rgb = len(spec.bands) == 3 and all(raster.dtype == np.uint8 for raster in opened)
    rule: StretchRule = said("stretch") or ("none" if eight_bit_rgb else "raster")
    thresholds: dict[str, tuple[float, float]] = {
        str(name): (float(limit), float(limit)) if isinstance(limit, (int, float)) else limit
        for name, limit in {**options.thresholds, **spec.thresholds}.items()
    }
    rules = make_rules(spec.bands, thresholds, said("water_index"))
    stretches = _choose_stretches(rule, values, spec.bands, said("percentiles"))
    percentile = said("dark_object")
    haze = None if percentile is None else (dark_object(values[0], percentile), dark_object(values[1], percentile))
    place = before.georeference or after.georeference
    metadata: dict[str, Any] = {
        "gsd_m": spec.gsd_m or (place.gsd_m if place else None),
        "sensor": spec.sensor,
        "dates": [day.isoformat() for day in spec.dates] if spec.dates else None,
        "lat": spec.lat,
        "lon": spec.lon,
        "units": spec.units or ("digital numbers, not reflectance" if before.dtype == np.uint8 else None),
        "indices": {rule.index: INDICES[rule.index].formula for rule in rules},
        "classes": {rule.name: {"index": rule.index, "above": list(rule.above)} for rule in rules},
        "class_order": "a pixel belongs to the first class that claims it",
        "dark_object": None
        if haze is None
        else {"percentile": percentile, "subtracted": [h.round(3).tolist() for h in haze]},
        "stretch": {
            "rule": rule,
            "percentiles": None if rule == "none" else list(said("percentiles")),
            "low": [list(stretch.low) for stretch in stretches],
            "high": [list(stretch.high) for stretch in stretches],
        },
        "dead_band": options.dead_band,
    }
    metadata = {key: item for key, item in metadata.items() if item is not None}
    return Pair(spec, (before, after), lacking, change, labelled, rules, stretches, haze, metadata)


def _floats(pair: Pair, pixels: NDArray[Any], moment: int) -> dict[str, NDArray[np.float64]]:
    """Bands by name in float64, haze subtracted where that is asked for; not below zero then."""
    bands = pixels.astype(np.float64)
    if pair.haze is not None:
        bands = np.maximum(bands - pair.haze[moment][:, None, None], 0.0)
    return {name: bands[k] for k, name in enumerate(pair.spec.bands) if name != "other"}


def _grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * 255


def cut_tiles(pair: Pair, options: RasterOptions, tally: Tally) -> Iterator[Tile]:
    """The usable tiles of a pair, row by row; those left out are counted in ``tally``.

    Raises:
        InputError: a raster smaller than one tile.
    """
    spec, (first, last) = pair.spec, pair.rasters
    size = (first.height, first.width) if options.tile is None else (options.tile, options.tile)
    if size[0] > first.height or size[1] > first.width:
        raise InputError(
            f"{first.name} is {first.width} x {first.height} pixels, smaller than one tile of {options.tile}; choose a smaller 'tile'"
        )
    origins: Iterator[tuple[int, int]] = iter([(0, 0)])
    if options.tile is not None:
        origins = tile_origins(first.height, first.width, options.tile, options.stride or options.tile)
    value = spec.nodata if isinstance(spec.nodata, (int, float)) else None
    rgb = _rgb(spec.bands)
    for row, col in origins:
        here = slice(row, row + size[0]), slice(col, col + size[1])
        windows = [raster.window(row, col, *size) for raster in pair.rasters]
        usable = present(windows[0], (value, first.nodata)) & present(windows[1], (value, last.nodata))
        if pair.lacking is not None:
            usable &= ~pair.lacking[here]
        share = float(usable.mean())
        if share < options.min_valid or not usable.any():
            tally.skipped[f"less than {options.min_valid:.0%} of the pixels usable in {spec.scene}"] += 1
            continue
        tally.tiles += 1
        pixels = {name: pair.stretches[k](windows[k][rgb], usable) for k, name in enumerate(("before", "after"))}
        if not usable.all():
            pixels["valid"] = _grey(usable)
        changed, seen_changed = None, False
        if pair.change is not None:
            change = pair.change[here]
            labelled = usable if pair.labelled is None else usable & pair.labelled[here]
            seen_changed = bool((change & labelled).any())
            if pair.labelled is None:
                changed = float(change[usable].mean())
            if labelled.sum() >= min(options.min_labelled, usable.sum()):
                pixels["change"] = _grey(change & labelled)
                if not labelled.all():
                    pixels["labelled"] = _grey(labelled)
        maps = [classify(_floats(pair, windows[k], k), pair.rules, k) if pair.rules else None for k in (0, 1)]
        facts = TileFacts((), (), (), changed, seen_changed)
        if maps[0] is not None and maps[1] is not None:
            before, after, counted = class_shares(maps[0], maps[1], usable, len(pair.rules))
            if counted >= options.min_valid * usable.sum() and counted:
                facts = TileFacts(tuple(rule.name for rule in pair.rules), before, after, changed, seen_changed)
            else:
                tally.notes.append(
                    f"{spec.scene} r{row} c{col}: indices undefined at most pixels, no class is asked about"
                )
        metadata: dict[str, Any] = {"row": row, "col": col, "valid_share": round(share, 6)}
        place = first.georeference or last.georeference
        if place is not None:
            metadata["lat"], metadata["lon"] = place.lat_lon(row + size[0] / 2, col + size[1] / 2)
        for name, shares in (("shares_before", facts.before), ("shares_after", facts.after)):
            metadata[name] = {key: round(item, 6) for key, item in zip(facts.classes, shares, strict=True)}
        yield Tile(f"{spec.scene}/r{row:05d}_c{col:05d}", pixels, facts, {**pair.metadata, **metadata})


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


def _image(name: str, spec: PairSpec, **where: Any) -> ImageRef:
    day = (
        spec.dates[("before", "after").index(name)].isoformat() if spec.dates and name in ("before", "after") else None
    )
    return ImageRef(date=day, role=name if day else None, **where)


def _specs(folder: Path, split: str | None, options: Mapping[str, Any]) -> tuple[list[PairSpec], RasterOptions]:
    """The pairs of a folder that belong to a split, and the options; those given here win over the folder's own."""
    raw, defaults, where = find_pairs(folder)
    settings = validated(RasterOptions, {**defaults, **options}, "raster-pairs")
    unknown = set(settings.pairs) - {str(pair.get("scene")) for pair in raw}
    if unknown:
        raise ConfigError(f"raster-pairs: 'pairs' speaks of the scene {min(unknown)!r}, which {where} does not have")
    specs = [
        validated(PairSpec, {**pair, **settings.pairs.get(str(pair.get("scene")), {})}, f"{where}, pair {number}")
        for number, pair in enumerate(raw, start=1)
    ]
    splits: dict[str, set[str | None]] = {}
    for spec in specs:
        splits.setdefault(spec.scene, set()).add(spec.split)
    torn = [scene for scene, names in splits.items() if len(names) > 1]
    if torn:
        raise InputError(
            f"{where}: the scene {torn[0]!r} stands in several splits; train and test need different scenes"
        )
    doubled = [scene for scene, count in Counter(spec.scene for spec in specs).items() if count > 1]
    if doubled:
        raise InputError(f"{where}: two pairs are of the scene {doubled[0]!r}; a scene has one pair")
    if split is None:
        return specs, settings
    wanted = {name.strip() for name in split.split(",")}
    chosen = [spec for spec in specs if wanted & {spec.split, spec.scene}]
    if not chosen:
        known = sorted({spec.scene for spec in specs} | {spec.split for spec in specs if spec.split})
        raise InputError(f"{where} has no split or scene {split!r}; it has {', '.join(known)}")
    return chosen, settings


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
    specs, settings = _specs(folder, split, options)
    samples: list[Sample] = []
    tally = Tally()
    for spec, tile in _tiles(folder, specs, settings, tally):
        images = {
            name: _image(name, spec, array=pixels, sha256=content_hash(pixels)) for name, pixels in tile.pixels.items()
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
    specs, settings = _specs(folder, split, options)
    tally = Tally()
    files = {spec.scene: re.sub(r"[^\w.-]+", "-", spec.scene) for spec in specs}
    if len(set(files.values())) < len(files):
        raise InputError(f"{folder}: two scenes have names that differ only in characters a file name cannot hold")

    def records() -> Iterator[dict[str, Any]]:
        written = 0
        (out / "tiles").mkdir(exist_ok=True)
        for spec, tile in _tiles(folder, specs, settings, tally):
            images = {}
            for name, pixels in tile.pixels.items():
                file = out / "tiles" / f"{files[spec.scene]}_{tile.name.rpartition('/')[2]}_{name}.png"
                write_png(file, pixels)
                images[name] = _image(name, spec, path=file)
            for sample in tile_samples(tile, images, spec, settings, tally):
                yield sample_to_json(sample, out)
                written += 1
                if written == limit:
                    return

    count, file = write_samples(out, records(), f"the rasters in {folder} gave no tile with anything to ask")
    return Conversion(count, file, [out], [f"{tally.tiles} tiles", *tally.sentences()])
