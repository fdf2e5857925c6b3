"""How verifiers are found by name."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.errors import ConfigError, did_you_mean

_REGISTRY: dict[str, type[Verifier]] = {}


def register(cls: type[Verifier]) -> type[Verifier]:
    """Class decorator: make a verifier known by its ``name``. Raises :class:`ConfigError` when the name is taken."""
    known = _REGISTRY.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(
            f"two verifiers are named {cls.name!r}: {known.__module__}.{known.__qualname__} and {cls.__module__}.{cls.__qualname__}"
        )
    _REGISTRY[cls.name] = cls
    return cls


def _load_built_in() -> None:
    """Import every module of ``rsw_rewards.verifiers``; what they register is built in."""
    package = importlib.import_module("rsw_rewards.verifiers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"rsw_rewards.verifiers.{module.name}")


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group="rsw_rewards.verifiers")}


def verifier_names() -> list[str]:
    """Names of all built-in verifiers and those of installed packages, sorted."""
    _load_built_in()
    return sorted({*_REGISTRY, *_entry_points()})


def resolve(name: str) -> type[Verifier]:
    """The verifier class for a built-in name, an entry point of an installed package, ``pkg.mod:obj`` or ``file.py:obj``.

    Raises:
        ConfigError: nothing of that name, or it is not a verifier.
    """
    if ":" in name:
        found = resolve_object(name, "verifier")
    else:
        _load_built_in()
        found = _REGISTRY.get(name)
        if found is None and (entry := _entry_points().get(name)) is not None:
            found = entry.load()
        if found is None:
            raise ConfigError(f"no verifier is named {name!r}; {did_you_mean(name, verifier_names())}")
    if not (isinstance(found, type) and issubclass(found, Verifier)):
        raise ConfigError(
            f"{name!r} is not a verifier; derive it from rsw_rewards.core.verifier.Verifier or decorate it with @verifier"
        )
    return found


def build(name: str, config: Mapping[str, Any] | None = None) -> Verifier:
    """An instance of the verifier that ``name`` resolves to, its configuration validated. Raises :class:`ConfigError`."""
    cls = resolve(name)
    try:
        return cls(cls.Config.model_validate(dict(config or {})))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            raise ConfigError(
                f"verifier {name!r} has no option {where!r}; {did_you_mean(where, cls.Config.model_fields)}"
            ) from None
        raise ConfigError(f"the configuration of verifier {name!r} is wrong at {where!r}: {problem['msg']}") from None
