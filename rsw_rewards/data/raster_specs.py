"""What a pair of rasters may say of itself, how pairs are cut and asked about, and how both are read for a folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from rsw_rewards.core.settings import Strict, validated
from rsw_rewards.data.raster_folders import find_pairs
from rsw_rewards.data.raster_questions import CLOSED_KINDS, KINDS, Wording
from rsw_rewards.data.spectral import BANDS
from rsw_rewards.errors import ConfigError, InputError

Threshold = float | tuple[float, float]
MaskEntry = str | dict[str, Any]
"""A mask as a record names an image: its path, or an object that says what its values mean as well."""
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
    nodata: float | MaskEntry | None = None
    """A value that stands for "no data" (beside the file's own), or a mask of the pixels that hold none."""
    change: MaskEntry | None = None
    """Mask of what changed: a path, or ``{path, threshold or levels or nodata}`` as an image entry of a record."""
    unchanged: MaskEntry | None = None
    """Mask of what did not. With it, pixels in neither mask are unlabelled; without it, they are unchanged."""
    sensor: str | None = None
    units: str | None = None
    """What the numbers are, such as ``"surface reflectance x 10000"``. Integers of 8 bits are called digital numbers."""
    valid_range: tuple[float, float] | None = None
    """Least and greatest number that the sensor can give, as stored (this key and the next two as the CF conventions name them)."""
    scale_factor: PositiveFloat | None = None
    """Reflectance = stored number * scale_factor + add_offset, from which indices are computed."""
    add_offset: FiniteFloat | None = None
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
        if self.valid_range is not None and not self.valid_range[0] < self.valid_range[1]:
            raise ValueError("'valid_range' must be [least, greatest]")
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
    keep_bands: bool = False
    """Write tiles with every band in the raster's own numbers (GeoTIFF) in place of RGB pictures; both dates are shown by one stretch."""
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


def read_specs(folder: Path, split: str | None, options: Mapping[str, Any]) -> tuple[list[PairSpec], RasterOptions]:
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
