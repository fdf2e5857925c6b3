"""What the numbers of several components are called in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from rsw_rewards.core.metric import Metric
from rsw_rewards.core.verifier import Verifier


class Named(NamedTuple):
    """A metric of a component, and what its numbers are called."""

    label: str
    """The component's."""
    metric: Metric
    names: Mapping[str, str]
    """Key of the metric -> name of the number: the key, or ``<key>/<label>`` where several components have that key."""


def named_metrics(verifiers: Mapping[str, Verifier]) -> list[Named]:
    """All metrics of components, label -> verifier, in their order. No two components' numbers have one name.

    >>> parts = {name: rsw.Component(use="bleu", config={"order": order}).build() for name, order in (("short", 1), ("long", 2))}
    >>> [dict(named.names) for named in named_metrics(parts)]
    [{'bleu1': 'bleu1/short'}, {'bleu1': 'bleu1/long', 'bleu2': 'bleu2'}]
    """
    metrics = {label: verifier.metrics() for label, verifier in verifiers.items()}
    owners = Counter(key for found in metrics.values() for key in {key for metric in found for key in metric.keys})
    return [
        Named(label, metric, {key: key if owners[key] == 1 else f"{key}/{label}" for key in metric.keys})
        for label, found in metrics.items()
        for metric in found
    ]
