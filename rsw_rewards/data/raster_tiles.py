"""From an opened pair of rasters to tiles: masks, stretch, haze, and the shares of land cover that each tile holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.data.raster_bands import check_kept, how_shown, kept_bands, meaning, storable, tile_place, whole_haze
from rsw_rewards.data.raster_questions import TileFacts
from rsw_rewards.data.raster_specs import MaskEntry, PairSpec, RasterOptions, StretchRule
from rsw_rewards.data.rasters import (
    Georeference,
    Raster,
    Stretch,
    check_same_grid,
    fit_stretch,
    open_raster,
    present,
    tile_origins,
)
from rsw_rewards.data.spectral import INDICES, Rule, class_shares, classify, dark_object, make_rules
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import read_mask
from rsw_rewards.io.paths import Roots


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
    keep_bands: bool
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
    pixels: dict[str, NDArray[Any]]
    """``before``, ``after`` (H, W, 3) uint8, and where they apply ``change``, ``labelled``, ``valid`` (H, W), 0 or 255. Where bands are
    kept, ``before`` and ``after`` are (H, W, C) numbers of the raster's type."""
    facts: TileFacts
    metadata: dict[str, Any]
    shown: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of kept bands, by name: what an image reference says of how they are shown."""
    place: Georeference | None = None


@dataclass(slots=True)
class Tally:
    """What was left out, to be told at the end."""

    tiles: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        return [*self.notes, *(f"{count} tiles left out: {why}" for why, count in sorted(self.skipped.items()))]


def _reference(name: str) -> tuple[str, str | None]:
    """File and key of ``file.npz:key``."""
    file, mark, key = name.rpartition(".npz:")
    return (f"{file}.npz", key) if mark else (name, None)


def _mask(roots: Roots, entry: MaskEntry, like: Raster) -> NDArray[np.bool_]:
    image = roots.image(entry)
    mask = read_mask(image)
    if mask.shape != (like.height, like.width):
        raise InputError(
            f"{image} is {mask.shape[1]} x {mask.shape[0]} pixels, its raster {like.width} x {like.height}"
        )
    return mask


def _rgb(bands: Sequence[str]) -> list[int]:
    return [bands.index(name) for name in ("red", "green", "blue")]


def _usable_values(raster: Raster, nodata: float | None) -> NDArray[Any]:
    """(bands, n) usable pixels of the whole raster."""
    pixels, data = raster.overview()
    usable = present(pixels, (nodata, raster.nodata), data)
    if not usable.any():
        raise InputError(f"{raster.name} holds no usable pixel (all are NaN, nodata or masked)")
    values: NDArray[Any] = pixels[:, usable]
    return values


def _choose_stretches(
    rule: StretchRule, values: Sequence[NDArray[Any]], shown_bands: Sequence[int], percentiles: tuple[float, float]
) -> tuple[Stretch, Stretch]:
    if rule == "none":
        if any(value.dtype != np.uint8 for value in values):
            raise InputError(f"'stretch: none' needs uint8 rasters, these hold {values[0].dtype} and {values[1].dtype}")
        same = Stretch((0,) * len(shown_bands), (255,) * len(shown_bands))
        return same, same
    shown = [value[list(shown_bands)] for value in values]
    if rule == "pair":
        same = fit_stretch(np.concatenate(shown, axis=1), percentiles)
        return same, same
    return fit_stretch(shown[0], percentiles), fit_stretch(shown[1], percentiles)


def _nodata_value(spec: PairSpec) -> float | None:
    return spec.nodata if isinstance(spec.nodata, (int, float)) else None


def _change_masks(
    roots: Roots, spec: PairSpec, like: Raster
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """What changed, and what is labelled at all: None where that is every pixel."""
    if not spec.change:
        return None, None
    change = _mask(roots, spec.change, like)
    if not spec.unchanged:
        return change, None
    unchanged = _mask(roots, spec.unchanged, like)
    # A pixel that is labelled both ways is labelled neither way.
    return change & ~unchanged, change ^ unchanged


def _scene_facts(spec: PairSpec, before: Raster, after: Raster) -> dict[str, Any]:
    """What the pair or its rasters say of place, time and sensor."""
    place = before.georeference or after.georeference
    return {
        "gsd_m": spec.gsd_m or (place.gsd_m if place else None),
        "sensor": spec.sensor,
        "dates": [day.isoformat() for day in spec.dates] if spec.dates else None,
        "lat": spec.lat,
        "lon": spec.lon,
        "units": spec.units or ("digital numbers, not reflectance" if before.dtype == np.uint8 else None),
    }


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
    value = _nodata_value(spec)
    lacking = _mask(roots, spec.nodata, before) if isinstance(spec.nodata, str | dict) else None
    change, labelled = _change_masks(roots, spec, before)

    def said(key: str) -> Any:
        """What the pair says, else what holds for all."""
        return getattr(spec if key in spec.model_fields_set else options, key)

    values = [_usable_values(raster, value) for raster in opened]
    eight_bit_rgb = len(spec.bands) == 3 and all(raster.dtype == np.uint8 for raster in opened)
    usual: StretchRule = "none" if eight_bit_rgb else "pair" if options.keep_bands else "raster"
    rule: StretchRule = said("stretch") or usual
    thresholds: dict[str, tuple[float, float]] = {
        str(name): (float(limit), float(limit)) if isinstance(limit, (int, float)) else limit
        for name, limit in {**options.thresholds, **spec.thresholds}.items()
    }
    rules = make_rules(spec.bands, thresholds, said("water_index"))
    percentile = said("dark_object")
    haze = None if percentile is None else (dark_object(values[0], percentile), dark_object(values[1], percentile))
    shown_bands = _rgb(spec.bands)
    if options.keep_bands:
        check_kept(spec, (before, after), rule, percentile)
        shown_bands = list(range(len(spec.bands)))
        if haze is not None:
            haze = (whole_haze(haze[0], before.dtype), whole_haze(haze[1], after.dtype))
            if rule != "none":
                values = [np.maximum(part - dark[:, None], 0.0) for part, dark in zip(values, haze, strict=True)]
    stretches = _choose_stretches(rule, values, shown_bands, said("percentiles"))
    metadata = {
        **_scene_facts(spec, before, after),
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
        **(meaning(spec) if options.keep_bands else {}),
    }
    metadata = {key: item for key, item in metadata.items() if item is not None}
    return Pair(spec, (before, after), lacking, change, labelled, options.keep_bands, rules, stretches, haze, metadata)


def _floats(pair: Pair, pixels: NDArray[Any], moment: int) -> dict[str, NDArray[np.float64]]:
    """Reflectance by name in float64, haze subtracted where that is asked for; not below zero then."""
    bands = pixels.astype(np.float64)
    if pair.haze is not None:
        bands = np.maximum(bands - pair.haze[moment][:, None, None], 0.0)
    bands = bands * (pair.spec.scale_factor or 1.0) + (pair.spec.add_offset or 0.0)
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
    place = first.georeference or last.georeference
    for row, col in origins:
        here = slice(row, row + size[0]), slice(col, col + size[1])
        windows, usable = _read_tile(pair, here)
        share = float(usable.mean())
        if share < options.min_valid or not usable.any():
            tally.skipped[f"less than {options.min_valid:.0%} of the pixels usable in {spec.scene}"] += 1
            continue
        tally.tiles += 1
        pixels, shown = _pictures(pair, windows, usable)
        if not usable.all():
            pixels["valid"] = _grey(usable)
        changed, seen_changed, masks = _changed(pair, here, usable, options.min_labelled)
        pixels |= masks
        facts = _facts(pair, windows, usable, options.min_valid, changed, seen_changed)
        if pair.rules and not facts.classes:
            tally.notes.append(f"{spec.scene} r{row} c{col}: indices undefined at most pixels, no class is asked about")
        metadata: dict[str, Any] = {"row": row, "col": col, "valid_share": round(share, 6)}
        if place is not None:
            metadata["lat"], metadata["lon"] = place.lat_lon(row + size[0] / 2, col + size[1] / 2)
        for name, shares in (("shares_before", facts.before), ("shares_after", facts.after)):
            metadata[name] = {key: round(item, 6) for key, item in zip(facts.classes, shares, strict=True)}
        name = f"{spec.scene}/r{row:05d}_c{col:05d}"
        yield Tile(
            name, pixels, facts, {**pair.metadata, **metadata}, shown, tile_place(place, row, col) if shown else None
        )


def _read_tile(pair: Pair, here: tuple[slice, slice]) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
    """(bands, H, W) of both rasters at a place, and (H, W) where both can be used."""
    rows, cols = here
    size = rows.stop - rows.start, cols.stop - cols.start
    read = [raster.window(rows.start, cols.start, *size) for raster in pair.rasters]
    value = _nodata_value(pair.spec)
    first, second = (
        present(window, (value, raster.nodata), data) for raster, (window, data) in zip(pair.rasters, read, strict=True)
    )
    usable = np.logical_and(first, second)
    if pair.lacking is not None:
        usable &= ~pair.lacking[here]
    return [window for window, _ in read], usable


def _pictures(
    pair: Pair, windows: Sequence[NDArray[Any]], usable: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[Any]], dict[str, Mapping[str, Any]]]:
    """``before`` and ``after`` of a tile, and how they are shown where bands are kept."""
    if not pair.keep_bands:
        rgb = _rgb(pair.spec.bands)
        return {name: pair.stretches[k](windows[k][rgb], usable) for k, name in enumerate(("before", "after"))}, {}
    value, as_it_is = _nodata_value(pair.spec), pair.metadata["stretch"]["rule"] == "none"
    pixels: dict[str, NDArray[Any]] = {}
    shown: dict[str, Mapping[str, Any]] = {}
    for k, name in enumerate(("before", "after")):
        own = storable(pair.rasters[k].nodata if value is None else value, pair.rasters[k].dtype)
        nodata, haze = (own, None) if pair.haze is None else (None, pair.haze[k])
        pixels[name] = kept_bands(windows[k], usable, haze, nodata)
        shown[name] = how_shown(pair.spec.bands, None if as_it_is else pair.stretches[k], nodata)
    return pixels, shown


def _changed(
    pair: Pair, here: tuple[slice, slice], usable: NDArray[np.bool_], min_labelled: int
) -> tuple[float | None, bool, dict[str, NDArray[np.uint8]]]:
    """The share of a tile that changed, where all of it is labelled; whether any of it did; and its masks."""
    if pair.change is None:
        return None, False, {}
    change = pair.change[here]
    labelled = usable if pair.labelled is None else usable & pair.labelled[here]
    masks = {}
    if labelled.sum() >= min(min_labelled, usable.sum()):
        masks["change"] = _grey(change & labelled)
        if not labelled.all():
            masks["labelled"] = _grey(labelled)
    share = float(change[usable].mean()) if pair.labelled is None else None
    return share, bool((change & labelled).any()), masks


def _facts(
    pair: Pair,
    windows: Sequence[NDArray[Any]],
    usable: NDArray[np.bool_],
    min_valid: float,
    changed: float | None,
    seen_changed: bool,
) -> TileFacts:
    """What was measured on a tile; no class where the indices are undefined at most of its pixels."""
    if pair.rules:
        maps = [classify(_floats(pair, windows[k], k), pair.rules, k) for k in (0, 1)]
        before, after, counted = class_shares(maps[0], maps[1], usable, len(pair.rules))
        if counted >= min_valid * usable.sum() and counted:
            return TileFacts(tuple(rule.name for rule in pair.rules), before, after, changed, seen_changed)
    return TileFacts((), (), (), changed, seen_changed)
