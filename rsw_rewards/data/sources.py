"""Samples straight from a data set's own folder, for runs that name an adapter as their source instead of a samples file."""

from __future__ import annotations

import atexit
import inspect
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.records import Sample
from rsw_rewards.data.raster_specs import expand
from rsw_rewards.data.registry import converted, resolve_adapter
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.records_io import load_samples


def load_from_adapter(name: str, options: Mapping[str, Any], where: str) -> list[Sample]:
    """The samples that ``rsw data from NAME PATH`` would write.

    Args:
        name: a key of ``ADAPTERS``.
        options: ``path`` (in which ``${NAME:-default}`` stands for an environment variable), and what the adapter takes.
        where: the configuration's section, for messages.

    Raises:
        RswError: no ``path``, an option that the adapter does not take, or data that cannot be read.
    """
    known = f"{where}: the source {name!r}"
    left = dict(options)
    path = left.pop("path", None)
    if not isinstance(path, str):
        raise ConfigError(f"{known} needs 'path', the folder that holds the data (of hf:NAME, '-' for the hub itself)")
    folder = Path(expand(path))
    from_hub = name.startswith("hf:") and path == "-"
    if not from_hub and not folder.exists():
        raise ConfigError(
            f"{known} wants its data in {folder}, which does not exist; put it there, or name its place by --set {where}.path=FOLDER"
            + (f" (the path reads environment variables: {path})" if "$" in path else "")
        )
    if name == "raster-pairs":  # makes its samples without writing a file
        from rsw_rewards.data.raster_pairs import load

        _check_options(load, known, left, folder)
        return load(folder, **left)
    # Some adapters draw files that their samples name, which must be there for as long as the samples are used.
    out = Path(tempfile.mkdtemp(prefix="rsw-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    _check_options(resolve_adapter(name), known, left, folder, out)
    conversion = converted(name, folder, out, left)
    return load_samples(conversion.file, conversion.roots)


def _check_options(function: Callable[..., Any], known: str, options: Mapping[str, Any], *places: Path) -> None:
    """Refuse options that the function does not take beside the places. Raises :class:`ConfigError`."""
    try:
        inspect.signature(function).bind(*places, **options)
    except TypeError as error:
        found = inspect.signature(function).parameters.values()
        keys = [parameter.name for parameter in found if parameter.kind is parameter.KEYWORD_ONLY]
        raise ConfigError(
            f"{known} cannot take its options: {error}; its keys are {', '.join(['path', *keys])}"
        ) from None
