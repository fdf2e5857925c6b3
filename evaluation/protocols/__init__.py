"""Protocols by name, one module per family. Two definitions that share a name in the literature are two protocols."""

from __future__ import annotations

from typing import Any

from rsw_rewards.core.registry import Registry
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.protocols import (
    answers,
    captions,
    forecasts,
    grounding,
    masks,
    open_answers,
    published_answers,
    series,
)
from rsw_rewards.evaluation.protocols.protocol import Protocol as Protocol


def _protocol(found: Any, use: str) -> Protocol:
    if not isinstance(found, Protocol):
        raise ConfigError(
            f"{use!r} is not a protocol but a {type(found).__name__}; make one by rsw_rewards.protocol(...)"
        )
    return found


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    "protocols",
    {
        protocol.name: protocol
        for family in (answers, published_answers, open_answers, captions, masks, grounding, forecasts, series)
        for protocol in family.PROTOCOLS
    },
    _protocol,
    own_names=True,
)
