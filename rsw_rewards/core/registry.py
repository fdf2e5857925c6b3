"""How everything that can be plugged in is found: one :class:`Registry` for each kind, that of the verifiers among them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from rsw_rewards.core.plugins import entry_points, named, not_imported, resolve_object
from rsw_rewards.errors import ConfigError, RswError, did_you_mean

T = TypeVar("T")

log = logging.getLogger("rsw_rewards")


class Registry(Generic[T]):
    """Everything of one kind that can be named: what is built in, and what installed packages plug in.

    A name stands for a built-in one, for an entry point of the group ``rsw_rewards.<plural>`` of an installed package, for
    ``package.module:object`` or for ``file.py:object``. The object itself may be given in place of a name.

    Args:
        kind: what one of them is called, in messages: ``"verifier"``.
        plural: the last part of the group of entry points: ``"verifiers"``.
        built_in: name -> the object, or where it is (``module:object``), which is imported when it is asked for.
        check: gives the object as it is used, or raises :class:`ConfigError`; it is called with the object and its name. A built-in
            one is taken as it is.
        own_names: whether an object that has the ``name`` of a built-in one is refused, since results are kept under that name.
        others: what else may be written, at the end of the names that a message lists.
    """

    def __init__(
        self,
        kind: str,
        plural: str,
        built_in: Mapping[str, Any],
        check: Callable[[Any, str], T] | None = None,
        own_names: bool = False,
        others: str = "package.module:object or file.py:object",
    ) -> None:
        self.kind, self.group, self.built_in = kind, f"rsw_rewards.{plural}", built_in
        self._check, self._own_names = check, own_names
        self._others = others
        self.warned: set[str] = set()
        """What a warning was given of, which is given once in a process."""

    def names(self) -> list[str]:
        """All names, the built-in ones first; nothing is imported for it."""
        return [*self.built_in, *self._plugged()]

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._plugged()

    def find(self, use: str | Any) -> T:
        """The object that a name stands for, or the object itself, checked.

        Raises:
            ConfigError: nothing has that name, it cannot be imported, it is of another kind, or it has the name of a built-in one.
        """
        if not isinstance(use, str):
            return self._checked(use, named(use))
        if ":" in use:
            return self._checked(resolve_object(use, self.kind), use)
        plugged = self._plugged()
        if use in self.built_in:
            return self._built_in(use)
        if use not in plugged:
            raise ConfigError(f"no {self.kind} is named {use!r}; {did_you_mean(use, [*self.names(), self._others])}")
        return self._load(plugged[use])

    def all(self) -> dict[str, T]:
        """Name -> object of all that can be imported. A plug-in that cannot is left out with one line of warning."""
        found = {name: self._built_in(name) for name in self.built_in}
        for name, entry in self._plugged().items():
            try:
                found[name] = self._load(entry)
            except RswError as error:
                self._warn(name, f"{error}; it is left out")
        return found

    def _built_in(self, name: str) -> T:
        known: Any = self.built_in[name]
        return resolve_object(known, self.kind) if isinstance(known, str) else known

    def _plugged(self) -> dict[str, EntryPoint]:
        """Entry points by name, without those that are refused, each with one line of warning."""
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(self.group):
            if entry.name in self.built_in:
                why = f"there is a built-in {self.kind} of that name"
            elif entry.name in found and found[entry.name].value != entry.value:
                why = f"{_package(found[entry.name])} has one of that name"
            else:
                found[entry.name] = entry
                continue
            self._warn(
                f"{entry.name} {entry.value}", f"the {self.kind} {entry.name!r} of {_package(entry)} is refused: {why}"
            )
        return found

    def _load(self, entry: EntryPoint) -> T:
        try:
            found = entry.load()
        except Exception as error:  # a package of somebody else's may raise anything
            raise not_imported(f"the {self.kind} {entry.name!r} of {_package(entry)}", error) from error
        return self._checked(found, f"{entry.name} of {_package(entry)}")

    def _checked(self, found: Any, use: str) -> T:
        checked: Any = self._check(found, use) if self._check else found
        name: Any = getattr(checked, "name", None) if self._own_names else None
        if name in self.built_in and checked is not self._built_in(name):
            raise ConfigError(f"{use!r} has the name of the built-in {self.kind} {name!r}; give it a name of its own")
        return checked

    def _warn(self, about: str, text: str) -> None:
        if about not in self.warned:
            self.warned.add(about)
            log.warning("%s", " ".join(text.split()))


def a_function(found: Any, use: str) -> Any:
    """The check of kinds whose objects are called. Raises :class:`ConfigError` for what cannot be."""
    if not callable(found):
        raise ConfigError(f"{use!r} cannot be called; give a name, a function or a class")
    return found


def _package(entry: EntryPoint) -> str:
    """The package of an entry point, with its version, for messages."""
    return f"the package {entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
