"""Code that a user plugs in: imported by ``package.module:object`` or ``file.py:object``, and named again by where it is from."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import operator
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any

from rsw_rewards.errors import ConfigError, RswError, did_you_mean
from rsw_rewards.extras import EXTRAS, missing

_USER_PREFIX = "rsw_user_"
"""How modules are named that a user gave as a file."""


def load_file(path: Path) -> ModuleType:
    """The module in a Python file that a user names. A file that was edited since it was loaded is loaded again.

    Raises:
        ConfigError: the file does not exist or fails to import.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ConfigError(f"the file {path} does not exist")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"{_USER_PREFIX}{hashlib.sha256(f'{path} {digest}'.encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__source_sha256__"] = digest
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise not_imported(str(path), error) from error
    return module


def not_imported(what: str, error: Exception) -> RswError:
    """What to raise where importing ``what`` raised ``error``."""
    if isinstance(error, RswError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return missing(what, error.name)
    return ConfigError(f"{what} cannot be imported: {type(error).__name__}: {error}")


def raised(error: BaseException) -> str:
    """What an exception is and says, as part of a sentence.

    >>> raised(ValueError("no such band"))
    'ValueError: no such band'
    """
    said = (str(error).strip().splitlines() or ["no reason given"])[0]
    return f"{type(error).__name__}: {said}"


@contextmanager
def user_code(sentence: str) -> Iterator[None]:
    """Runs code that a user plugged in: whatever it raises becomes a sentence, which goes on with what that is.

    >>> with user_code("the adapter 'mine' raised"):
    ...     [][0]
    Traceback (most recent call last):
    rsw_rewards.errors.ConfigError: the adapter 'mine' raised IndexError: list index out of range

    Raises:
        ConfigError: it raised something else than an :class:`RswError`, which is raised as it is.
    """
    try:
        yield
    except RswError:
        raise
    except Exception as error:  # code of somebody else's may raise anything
        raise ConfigError(f"{sentence} {raised(error)}") from error


def check_flags(function: Any, options: Mapping[str, Any], what: str) -> None:
    """Raise :class:`ConfigError` where a parameter that is annotated as ``bool`` is given something else.

    A text would do for Python, which takes ``"no"`` for true.
    """
    parameters = inspect.signature(function).parameters
    for name, value in options.items():
        known = parameters.get(name)
        if known is not None and known.annotation in (bool, "bool") and not isinstance(value, bool):
            raise ConfigError(f"{what}: {name!r} must be true or false, not {value!r:.80}")


def user_modules() -> list[ModuleType]:
    """The modules that :func:`load_file` made: no other process can import them, so they travel by value."""
    return [module for name, module in sys.modules.items() if name.startswith(_USER_PREFIX)]


def loaded_source(module: ModuleType) -> str | None:
    """SHA-256 (hex) of the text that :func:`load_file` made a module of; None for a module that it did not make."""
    return getattr(module, "__source_sha256__", None) if module.__name__.startswith(_USER_PREFIX) else None


def resolve_object(name: str, what: str = "object") -> Any:
    """The object that ``package.module:object`` or ``file.py:object`` names; the object may be ``Class.method``.

    Args:
        name: where it is.
        what: the kind of thing, for messages.

    Raises:
        ConfigError: the module cannot be imported, or has no such object.

    >>> resolve_object("math:floor")(2.5)
    2
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ConfigError(f"{name!r} names no {what}; write package.module:object or file.py:object")
    if place.endswith(".py"):
        module = load_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except Exception as error:  # a package of somebody else's may raise anything
            raise not_imported(f"the {what} {name!r}", error) from error
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        if place == "__main__" or "<" in attribute:
            raise ConfigError(
                f"the {what} {name!r} was an object of a notebook or a script; give the object again, or put it into a file and"
                " name it file.py:object"
            ) from None
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise ConfigError(f"{place} has no {attribute!r} (wanted: {what}); {did_you_mean(attribute, own)}") from None


def entry_points(group: str) -> EntryPoints:
    """What installed packages plug in under a group such as ``rsw_rewards.encoders``."""
    return _entry_points(group, tuple(sys.path))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> EntryPoints:
    found: EntryPoints = _all_entry_points(path).select(group=group)
    return found


@cache
def _all_entry_points(path: tuple[str, ...]) -> Any:
    """Those of all packages on the search path; looking through them takes tens of milliseconds."""
    return importlib.metadata.entry_points()


def named(use: Any) -> str:
    """How messages call what a user gave for a name: the name itself, or where the object is from.

    >>> named("exact_match"), named(3)
    ('exact_match', 'int object')
    """
    if isinstance(use, str):
        return use
    return place_of(use) if hasattr(use, "__qualname__") else f"{type(use).__name__} object"


def place_of(found: Any) -> str:
    """``package.module:object`` or ``file.py:object`` for a class or a function: what :func:`resolve_object` finds it by.

    >>> from fractions import Fraction
    >>> place_of(Fraction)
    'fractions:Fraction'
    """
    module = sys.modules.get(found.__module__)
    file = module.__file__ if module is not None and loaded_source(module) else None
    return f"{file or found.__module__}:{found.__qualname__}"
