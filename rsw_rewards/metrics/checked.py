"""How the public metrics report what they cannot use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rsw_rewards.errors import InputError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def public(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """The function with what it cannot use reported as an :class:`InputError` that names it."""

    @functools.wraps(function)
    def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise InputError(f"{function.__name__}: {error}") from error

    return checked
