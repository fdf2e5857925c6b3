"""Runner: how a component's verifier is run, in this process or on actors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from rsw_rewards.core.rubric import Component
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.engine.calls import bisect, weights_of
from rsw_rewards.errors import ConfigError, RswError


class Runner(ABC):
    """A component's verifier, set up. Calls may not overlap."""

    apart: ClassVar[bool]
    """Whether it works in other processes, so that this one only waits."""

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, str]:
        """Networks that the verifier works with: id -> SHA-256 of their weights."""

    @abstractmethod
    def __call__(self, batch: Batch) -> list[Score]:
        """Scores of the batch, in its order."""

    @abstractmethod
    def warm(self) -> None:
        """Do what the first batch would otherwise wait for. Raises :class:`ConfigError`."""

    @abstractmethod
    def close(self) -> None:
        """Release what the verifier holds."""


class Here(Runner):
    """A verifier in this process.

    Raises:
        ConfigError: it cannot be set up.
    """

    apart = False

    def __init__(self, component: Component, verifier: Verifier, context: Context) -> None:
        self._label, self._verifier, self._context = component.label, verifier, context
        try:
            verifier.setup(context)
        except RswError:
            raise
        except (Exception, SystemExit) as error:
            raise self._not_set_up(error) from error

    @property
    def weights(self) -> Mapping[str, str]:
        return weights_of(self._verifier, self._context.bank)

    def __call__(self, batch: Batch) -> list[Score]:
        return bisect(self._verifier, batch)

    def warm(self) -> None:
        try:
            self._verifier.warm()
        except RswError:
            raise
        except (Exception, SystemExit) as error:
            raise self._not_set_up(error) from error

    def close(self) -> None:
        self._verifier.close()

    def _not_set_up(self, error: BaseException) -> ConfigError:
        return ConfigError(f"{self._label!r} cannot be set up: {type(error).__name__}: {error}")


def actors_for(component: Component, verifier: Verifier, workers: int) -> int:
    """How many Ray actors score a component where ``workers`` may share the work; 0 scores it in the caller's process.

    Raises:
        ConfigError: a verifier that keeps state has a time limit.
    """
    # State lives in the caller's process, so a verifier with state is scored where it observes, also before it has any.
    stateful = type(verifier).observe is not Verifier.observe or bool(verifier.state_dict())
    if stateful and component.timeout_s is not None:
        raise ConfigError(
            f"{component.label!r} keeps state from step to step, so it cannot run in a process that may be killed; "
            f"leave its 'timeout_s' out"
        )
    if component.timeout_s is None and (workers == 0 or stateful):
        return 0
    return max(1, workers) if verifier.scope != "population" else 1
