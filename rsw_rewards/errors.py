"""Errors a user can act on: one sentence saying what is wrong, where, and what to do. Commands print them and exit with 2."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class RswError(Exception):
    """Base of all errors that the user can correct. The message is one line, and is shown without a traceback.

    >>> issubclass(rsw.InputError, rsw.RswError)
    True
    """

    def __str__(self) -> str:
        # It may quote what a library said in several lines.
        return " ".join(line.strip() for line in super().__str__().splitlines() if line.strip())


class InputError(RswError):
    """A file, record or value cannot be used: malformed, missing, outside its roots, of the wrong kind.

    >>> rsw.Sample(id="q1", task="change_qa", prompt=3)
    Traceback (most recent call last):
    rsw_rewards.errors.InputError: 'prompt' must be a string, not 3
    """


class Unreadable(ValueError):
    """A text or a number is not what it was to be, such as an answer without a number. Whose fault it is depends on who wrote it."""


class ConfigError(RswError):
    """A configuration, command-line value or component name cannot be used.

    >>> rsw.score("exact_mach", output="yes")
    Traceback (most recent call last):
    rsw_rewards.errors.ConfigError: no verifier is named 'exact_mach'; did you mean 'exact_match'?...
    """


class MissingExtra(ConfigError):
    """A library is needed that the core does not install; the message has the command that installs it.

    >>> issubclass(rsw.MissingExtra, rsw.ConfigError)
    True
    """


class RunStopped(RswError):
    """A run stopped itself, because continuing would waste time or spoil the result (circuit breaker, no actor left).

    >>> issubclass(rsw.RunStopped, rsw.RswError)
    True
    """


@contextmanager
def as_input_error(sentence: str, *caught: type[Exception]) -> Iterator[None]:
    """What a library raises over somebody's file or value, as an :class:`InputError`: the sentence, and the library's words.

    >>> with as_input_error("the limit is no number", ValueError):
    ...     int("x")
    Traceback (most recent call last):
    rsw_rewards.errors.InputError: the limit is no number: invalid literal for int() with base 10: 'x'
    """
    try:
        yield
    except caught as error:
        raise InputError(f"{sentence}: {error}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the one known name that is nearly the same, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def reason_of(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, as a clause, from pydantic's description of the problem.

    >>> reason_of({"type": "string_type", "msg": "Input should be a valid string", "input": 2})
    '2 is a number and no text; write "2"'
    """
    value, reason = problem["input"], problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_type" and isinstance(value, bool | int | float):
        written = json.dumps(value)
        return f'{written} is a {"flag" if isinstance(value, bool) else "number"} and no text; write "{written}"'
    return reason if problem["type"] == "value_error" else f"{reason} (it is {value!r:.80})"


class ImageError(InputError):
    """An image cannot be read: missing, not an image, too large, or of the wrong shape.

    >>> rsw.image("nowhere.png").pixels()
    Traceback (most recent call last):
    rsw_rewards.errors.ImageError: the image nowhere.png does not exist
    """

    def __init__(self, message: str, image: Any = None) -> None:
        super().__init__(message)
        self.image = image
        """The :class:`ImageRef` that was being read, by which the engine tells an image of the sample's from one of the output's."""
