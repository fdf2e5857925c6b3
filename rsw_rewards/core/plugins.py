"""Objects that a user names as ``pkg.mod:obj`` or ``file.py:obj``: verifiers, policies, encoders, detectors, sources of samples."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from rsw_rewards.errors import ConfigError

_USER_PREFIX = "rsw_user_"
"""How modules are named that a user gave as a file."""


def load_file(path: Path) -> ModuleType:
    """Import a Python file that a user names, so that Ray workers get its contents by value rather than by import.

    Raises:
        ConfigError: the file does not exist or fails to import.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ConfigError(f"the file {path} does not exist")
    name = f"{_USER_PREFIX}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    return module


def resolve_object(name: str, what: str = "object") -> Any:
    """The object that ``pkg.mod:obj`` or ``file.py:obj`` names. Raises :class:`ConfigError`."""
    place, _, attribute = name.rpartition(":")
    if not place:
        raise ConfigError(f"{name!r} names no {what}; write pkg.mod:name or file.py:name")
    if place.endswith(".py"):
        module = load_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise ConfigError(f"the {what} {name!r} cannot be imported: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f"{place} has no {attribute!r} (wanted: {what})") from None


def user_file(module: str) -> Path | None:
    """The file of a module that :func:`load_file` made; None for other modules, and where the file is gone."""
    file = getattr(sys.modules.get(module), "__file__", None) if module.startswith(_USER_PREFIX) else None
    return Path(file) if file and Path(file).is_file() else None
