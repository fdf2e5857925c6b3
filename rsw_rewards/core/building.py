"""How a name or an object becomes a verifier with its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rsw_rewards.core.functions import verifier_class
from rsw_rewards.core.registry import Registry
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.errors import ConfigError, did_you_mean, reason_of
from rsw_rewards.verifiers import BUILT_IN


def _verifier(found: Any, use: str) -> type[Verifier]:
    if inspect.isfunction(found):
        return verifier_class(found)
    if not (isinstance(found, type) and issubclass(found, Verifier)):
        given = (
            f"an object of the class {type(found).__name__}"
            if not isinstance(found, type)
            else "a class of another kind"
        )
        raise ConfigError(
            f"{use!r} is not a verifier but {given}; give a function (sample, output), or a class derived from"
            " rsw_rewards.Verifier, with its settings under 'config'"
        )
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigError(f'the verifier {use!r} has no name; write name = "..." in its class')
    return found


VERIFIERS: Registry[type[Verifier]] = Registry(
    "verifier",
    "verifiers",
    {name: f"rsw_rewards.verifiers.{place}" for name, place in BUILT_IN.items()},
    _verifier,
    own_names=True,
)
"""All verifiers. A function ``(sample, output)`` is one as well, whether it is decorated or not."""


def build(use: str | Any, config: Mapping[str, Any] | None = None) -> Verifier:
    """The verifier that a name or an object stands for, with its configuration.

    Args:
        use: see :class:`Registry`.
        config: keys of its ``Config``; what is left out has its default.

    Raises:
        ConfigError: it cannot be found, or a key or a value of the configuration is wrong.

    >>> build("exact_match").name
    'exact_match'
    """
    cls = VERIFIERS.find(use)
    try:
        checked = cls.Config.model_validate(dict(config or {}))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            known = cls.Config.model_fields
            hint = did_you_mean(where, known) if known else "it has no configuration"
            raise ConfigError(f"the verifier {cls.name!r} has no option {where!r}; {hint}") from None
        raise ConfigError(
            f"the configuration of the verifier {cls.name!r} is wrong at {where!r}: {reason_of(problem)}"
        ) from None
    try:
        # A class without settings may have an __init__ without a parameter for them.
        none = not cls.Config.model_fields and len(inspect.signature(cls.__init__).parameters) == 1
        return cls() if none else cls(checked)
    except TypeError as error:
        if "__init__" not in str(error) and "abstract" not in str(error):
            raise
        raise ConfigError(f"the verifier {cls.name!r} cannot be made from its configuration: {error}") from error
