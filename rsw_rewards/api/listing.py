"""The names of everything that can be plugged in."""

from __future__ import annotations

from rsw_rewards.errors import ConfigError

KINDS = {
    "verifiers": "rsw_rewards.core.rubric:VERIFIERS",
    "protocols": "rsw_rewards.evaluation.protocols:PROTOCOLS",
    "policies": "rsw_rewards.rollouts.policies:POLICIES",
    "baselines": "rsw_rewards.rollouts.baselines:BASELINES",
    "adapters": "rsw_rewards.data.registry:ADAPTERS",
    "importers": "rsw_rewards.data.importers:IMPORTERS",
    "encoders": "rsw_rewards.encoders:ENCODERS",
    "detectors": "rsw_rewards.detectors:DETECTORS",
}
"""Everything that has names and can be plugged in -> its registry."""


def names(kind: str) -> list[str]:
    """The names of all plug-ins of one type: those that are built in, then those of installed packages.

    Args:
        kind: ``"verifiers"``, ``"protocols"``, ``"policies"``, ``"baselines"``, ``"adapters"`` (data sets), ``"importers"``
            (of predictions), ``"encoders"`` or ``"detectors"``.

    Raises:
        ConfigError: there is no such kind.

    >>> "exact_match" in rsw.names("verifiers"), "levir-cc-words" in rsw.names("protocols")
    (True, True)
    """
    from rsw_rewards.core.plugins import resolve_object

    if kind not in KINDS:
        raise ConfigError(f"there are no {kind!r}; choose one of {', '.join(KINDS)}")
    found: list[str] = resolve_object(KINDS[kind], kind).names()
    return found
