"""Where a run's samples come from: the ``source`` of a data section, by name or as ``module:function``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import NonNegativeInt, PositiveInt

from rsw_rewards.config import DataSpec
from rsw_rewards.core.fields import limit_of
from rsw_rewards.core.plugins import check_flags, resolve_object, user_code
from rsw_rewards.core.records import Sample
from rsw_rewards.core.settings import Strict, validated
from rsw_rewards.data.registry import ADAPTERS
from rsw_rewards.data.sources import load_from_adapter
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.records_io import load_samples

Source = TypeVar("Source", bound=Strict)


class FileSource(Strict):
    """``source: samples``."""

    path: Path
    roots: list[Path] = []
    limit: PositiveInt | None = None


class SceneWorldSource(Strict):
    """``source: scene-world``: samples made on the spot, their pictures in memory. Every scene gives one of each task."""

    split: str = "rl"
    seed: NonNegativeInt | None = None
    """Data set within the split; the run's seed where left out."""
    questions: NonNegativeInt = 1000
    forecasts: NonNegativeInt = 1000


OWN: Mapping[str, type[Strict]] = {"samples": FileSource, "scene-world": SceneWorldSource}
"""Sources of this module, beside the adapters of data sets and functions, and their keys."""
GLANCE = 20
"""Samples that :func:`glance` reads where reading all may take long."""


def load_source(spec: DataSpec, seed: int, where: str = "train") -> list[Sample]:
    """The samples of a data section.

    Args:
        spec: the section.
        seed: of the run; sources that generate samples use it where the section gives none.
        where: the section's name, for messages.

    Raises:
        RswError: an unknown source, options it does not take, or data that cannot be read.
    """
    if spec.source == "samples":
        file = _options(spec, FileSource, where)
        return load_samples(file.path, file.roots, file.limit)
    if spec.source == "scene-world":
        return _scene_world(_options(spec, SceneWorldSource, where), seed, where)
    if _is_adapter(spec.source):
        return load_from_adapter(spec.source, spec.options, where)
    if ":" not in spec.source:
        known = ", ".join((*OWN, *sorted(ADAPTERS.names())))
        raise ConfigError(
            f"{where}: no source is named {spec.source!r}; known are {known}, or write hf:NAME, package.module:function or"
            " file.py:function"
        )
    return _from_function(spec.source, spec.options, where)


def glance(spec: DataSpec, seed: int, where: str = "train") -> tuple[list[Sample], bool]:
    """The samples of a data section, or the first few where reading all may take long; and whether these are all.

    Raises:
        RswError: as :func:`load_source`.
    """
    few: dict[str, Any] = {}
    if spec.source == "scene-world":
        source = _options(spec, SceneWorldSource, where)
        few = {"questions": min(source.questions, GLANCE), "forecasts": min(source.forecasts, GLANCE)}
    elif _is_adapter(spec.source):
        few = {"limit": min(limit_of(spec.options.get("limit")) or GLANCE, GLANCE)}
    shorter = DataSpec(source=spec.source, **{**spec.options, **few})
    return load_source(shorter, seed, where), not few


def _is_adapter(source: str) -> bool:
    return source in ADAPTERS or source.startswith("hf:")


def _options(spec: DataSpec, model: type[Source], where: str) -> Source:
    """The options of a source of this module. Raises :class:`ConfigError` that names its keys."""
    try:
        return validated(model, spec.options, where)
    except ConfigError as error:
        raise ConfigError(f"{error} (the source {spec.source!r} takes {', '.join(model.model_fields)})") from None


def _from_function(name: str, options: Mapping[str, Any], where: str) -> list[Sample]:
    function = resolve_object(name, "source of samples")
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise ConfigError(f"{where}: {name} cannot be called with {dict(options)!r}: {error}") from error
    check_flags(function, options, f"{where}: {name}")
    with user_code(f"{where}: {name} raised"):
        samples = list(function(**options))
    if not samples or not all(isinstance(sample, Sample) for sample in samples):
        raise ConfigError(f"{where}: {name} must give a list of samples that is not empty")
    return samples


def _scene_world(source: SceneWorldSource, seed: int, where: str) -> list[Sample]:
    from rsw_rewards.data.scene_world import SPLITS, scene_world_samples

    if source.split not in SPLITS:
        raise ConfigError(f"{where}: the scene world has no split {source.split!r}; choose one of {', '.join(SPLITS)}")
    if not source.questions + source.forecasts:
        raise ConfigError(f"{where}: 'questions' and 'forecasts' are both 0")
    number = seed if source.seed is None else source.seed
    return [
        sample
        for task, count in (("change_qa", source.questions), ("forecast", source.forecasts))
        if count
        for sample in scene_world_samples(count, number, split=source.split, tasks=(task,))
    ]
