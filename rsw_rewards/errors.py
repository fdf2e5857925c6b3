"""Errors a user can act on: one sentence saying what is wrong, where, and what to do. Commands print them and exit with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsw_rewards.core.records import ImageRef


class RswError(Exception):
    """Base of every error that is the user's to mend. Its text is shown without a traceback."""


class InputError(RswError):
    """A file or record cannot be used: malformed, missing, outside its roots, of the wrong kind."""


class ConfigError(RswError):
    """A configuration, command-line value or component name cannot be used."""


class MissingExtra(ConfigError):
    """What was asked for needs a library that the core does without; the message has the command that installs it."""


class RunStopped(RswError):
    """A run was stopped on purpose, because going on would waste or poison it (circuit breaker, no actor left)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the one known name that is nearly the same, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


class ImageError(InputError):
    """An image cannot be read: missing, not an image, too large, or of the wrong shape."""

    image: ImageRef | None = None
    """The reference that was being read, by which the engine tells an image of the sample's from one of the output's."""
