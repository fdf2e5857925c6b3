"""What a protocol is: a named definition of what a benchmark measures.

Protocols of texts read the answer without reasoning and chat tokens. ``--set component.thinking=keep`` reads the whole text, as the
published code of a benchmark does; for texts without reasoning both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rsw_rewards.core.plugins import place_of
from rsw_rewards.core.records import Task
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.verifier import as_task
from rsw_rewards.errors import ConfigError

MOST_HEADLINE = 6
"""Headline metrics at most: with more of them, some run is the best in one by chance."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """The definition of a benchmark: task, verifiers, metrics and baselines; :func:`rsw_rewards.protocol` makes one.

    >>> mine = rsw.protocol("counting", "numeric_match", notes=["Words for numbers are read too."])
    >>> mine.configured({"numeric_match.abs_tol": 1.0}).components[0]["config"]
    {'abs_tol': 1.0}
    """

    name: str
    title: str
    task: Task
    source: str
    """Where the definition comes from."""
    components: tuple[Mapping[str, Any], ...]
    """Verifiers to run, as the components of a rubric."""
    headline: tuple[str, ...] = ()
    """One to six keys of ``summary.json`` that the protocol is about, in their order. Runs are compared by these."""
    diagnostic: tuple[str, ...] = ()
    """Further keys in their order, which help to read the headline; those not named at all follow."""
    only_named: bool = True
    """Whether keys that are not named are left out. False where keys carry the name of an encoder, or none is named."""
    slices: bool = True
    """Whether every number is also given per ``kind`` of sample."""
    slice_by: tuple[str, str, str] | None = None
    """A raw metric that is 1 or 0 in every row, and the names of the slices where it is 1 and where it is 0, beside those by kind."""
    baselines: tuple[str, ...] = ()
    """Policies of :mod:`rsw_rewards.rollouts.baselines` whose rows every table is printed beside."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know before comparing the numbers."""
    lenient: bool = False
    """Whether it is a published definition that outputs which know nothing can please: ``validate`` says what they earn and refuses none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task, f"the protocol {self.name!r}"))
        object.__setattr__(self, "only_named", self.only_named and bool(self.named))
        if len(self.headline) > MOST_HEADLINE:
            raise ConfigError(
                f"the protocol {self.name!r} has {len(self.headline)} headline metrics, and {MOST_HEADLINE} are the most; name the rest"
                " as diagnostic"
            )

    @property
    def named(self) -> tuple[str, ...]:
        """Keys of the headline, then the diagnostic ones."""
        return self.headline + self.diagnostic

    @property
    def rubric(self) -> Rubric:
        """The verifiers as a rubric; a protocol rewards nothing, so all weights are 0."""
        return Rubric(components=tuple(Component(**{"weight": 0.0, **component}) for component in self.components))

    def written(self) -> list[dict[str, Any]]:
        """The components as plain data, objects by where they are from."""
        return [
            {**component, "use": use if isinstance(use := component["use"], str) else place_of(use)}
            for component in self.components
        ]

    def configures(self, other: Any) -> bool:
        """Whether another protocol is this one with settings of its verifiers changed."""
        if not isinstance(other, Protocol) or replace(self, components=()) != replace(other, components=()):
            return False
        parts = (self.components, other.components)
        mine, theirs = ([(part["use"], part.get("name")) for part in listed] for listed in parts)
        return mine == theirs

    def configured(self, settings: Mapping[str, Any]) -> Protocol:
        """The protocol with some configuration keys of its verifiers set.

        Args:
            settings: ``component.key`` -> value, such as ``{"captions.word_map": "wordmap.json"}``.

        Raises:
            ConfigError: a component that the protocol does not have. Keys and values are checked when the verifier is built.
        """
        parts = {Component(**component).label: dict(component) for component in self.components}
        for name, value in settings.items():
            label, dot, key = name.partition(".")
            if not dot or label not in parts:
                raise ConfigError(
                    f"the protocol {self.name!r} has nothing to set by {name!r}; write component.key, the components being"
                    f" {', '.join(parts)}"
                )
            parts[label]["config"] = {**parts[label].get("config", {}), key: value}
        return replace(self, components=tuple(parts.values()))
