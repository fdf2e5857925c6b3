"""How a component's verifier is run: every call guarded, in this process (:class:`Here`) or on actors.

What a verifier raises or makes up is a failure, and a failure is traced to the outputs that caused it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from rsw_rewards.core.functions import finished
from rsw_rewards.core.per_sample import PerSample, truths_of
from rsw_rewards.core.randomness import same_randomness
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Component
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.errors import ConfigError, ImageError, RswError
from rsw_rewards.features.bank import FeatureBank


def weights_of(verifier: Verifier, bank: FeatureBank) -> dict[str, str]:
    """Networks that a verifier works with in this process, once it is set up: id -> SHA-256 of their weights.

    Encoders are the bank's; detectors and LPIPS belong to the verifier itself.
    """
    found = dict(bank.weights())
    for network in (verifier.detector, verifier.network):
        digest = getattr(network, "weights_sha256", None)  # a network of a user's may have none
        if digest is not None:
            name = getattr(network, "name", type(network).__name__)
            found[getattr(network, "id", None) or f"{name}@{digest[:12]}"] = digest
    return found


def scored(verifier: Verifier, batch: Batch) -> list[Score]:
    """Scores of a batch: truths are read first, then invalid outputs are given theirs, and the verifier scores the rest.

    Args:
        verifier: after ``setup``.
        batch: outputs of the verifier's tasks; invalid ones are among them, lost ones are not.
    """
    plain = type(verifier).truth is Verifier.truth
    if not plain and verifier.scope == "sample" and len(batch) > verifier.at_once:
        starts = range(0, len(batch), verifier.at_once)
        parts = (batch.take(range(start, min(start + verifier.at_once, len(batch)))) for start in starts)
        return [score for part in parts for score in scored(verifier, part)]
    truths = [None] * len(batch) if plain else truths_of(verifier, batch.samples)
    scores: list[Score | None] = [truth if isinstance(truth, Score) else None for truth in truths]
    left: list[int] = []
    for row, output in enumerate(batch.outputs):
        if scores[row] is None and output.invalid is not None:
            scores[row] = _invalid(verifier, batch.samples[row], truths[row], output.invalid)
        elif scores[row] is None:
            left.append(row)
    if left:
        unusable = Counter(
            group for group, output in zip(batch.groups, batch.outputs, strict=True) if output.invalid is not None
        )
        part = batch if len(left) == len(batch) else batch.take(left)
        part = replace(part, truths=[truths[row] for row in left], invalid=unusable)
        for row, score in zip(left, _asked(verifier, part), strict=True):
            scores[row] = score
    return [score for score in scores if score is not None]


def _asked(verifier: Verifier, batch: Batch) -> list[Score]:
    """What a verifier gives for a batch, checked; where its call fails, the batch is halved until only the outputs at fault are left."""
    try:
        given = finished(verifier.score(batch))
        failure = _unlike(batch, given)
    except (Exception, SystemExit) as error:  # a library that gives up must not end the run
        if (
            len(batch) == 1
            and isinstance(error, ImageError)
            and is_of_output(error, batch.samples[0], batch.outputs[0])
        ):
            return [_invalid(verifier, batch.samples[0], batch.truths[0], str(error))]
        failure = f"{type(error).__name__}: {error}"
    if not failure:
        return [_checked(verifier, score) for score in given]
    scores = [Score.error(failure)] * len(batch)
    for rows in halves(batch, verifier):
        for row, score in zip(rows, _asked(verifier, batch.take(rows)), strict=True):
            scores[row] = score
    return scores


def _invalid(verifier: Verifier, sample: Sample, truth: Any, reason: str) -> Score:
    try:
        score = verifier.worst(truth, reason) if isinstance(verifier, PerSample) else verifier.invalid(sample, reason)
        return _checked(verifier, score)
    except (Exception, SystemExit) as error:  # a verifier's own code, guarded like the rest of it
        return Score.error(f"{type(error).__name__}: {error} (on an invalid output: {reason})")


def _unlike(batch: Batch, given: Any) -> str:
    """Why what a verifier gave is no list of scores for the batch, as a clause; empty where it is one."""
    if not isinstance(given, Sequence):
        return f"it gave {type(given).__name__} instead of a list of scores"
    return "" if len(given) == len(batch) else f"it gave {len(given)} scores for {len(batch)} outputs"


def _checked(verifier: Verifier, score: Any) -> Score:
    """What a verifier gave for one output, or an error where that is no score."""
    if not isinstance(score, Score):
        return Score.error(f"it gave {score!r:.80} instead of a Score")
    if score.value is None and score.status is Status.OK and verifier.rewarding:
        return Score.error("it gave a score without a value")
    if not type(verifier).__module__.startswith("rsw_rewards.") and (
        flaw := score.flaw() or _other_shape(verifier, score)
    ):
        return Score.error(f"it gave a score that no table can hold: {flaw}")
    return score


def _other_shape(verifier: Verifier, score: Score) -> str:
    """Which statistic has another shape than it had before, as a clause; those of a verifier are added up."""
    shapes: dict[str, tuple[int, ...]] = vars(verifier).setdefault("_shapes", {})
    for key, item in score.stats.items():
        if (first := shapes.setdefault(key, np.shape(item))) != np.shape(item):
            return f"stats[{key!r}] has the shape {np.shape(item)} after {first}"
    return ""


def is_of_output(error: ImageError, sample: Sample, output: Output) -> bool:
    """Whether an image that cannot be used is one of the output's, and not one that the sample names too."""
    image = error.image
    if image is None or any(image.same_source(one) for one in sample.every_image):
        return False
    return any(image.same_source(one) for one in output.every_image)


def halves(batch: Batch, verifier: Verifier) -> list[list[int]]:
    """How a batch whose call failed is divided to find the culprit; empty when it cannot be divided further."""
    if verifier.scope == "population":
        return []
    units: dict[Any, list[int]] = {}
    for row in range(len(batch)):
        units.setdefault(batch.groups[row] if verifier.scope == "group" else row, []).append(row)
    listed = list(units.values())
    if len(listed) < 2:
        return []
    half = len(listed) // 2
    return [[row for unit in side for row in unit] for side in (listed[:half], listed[half:])]


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
        with self._setting_up():
            verifier.setup(context)

    @property
    def weights(self) -> Mapping[str, str]:
        return weights_of(self._verifier, self._context.bank)

    def __call__(self, batch: Batch) -> list[Score]:
        return scored(self._verifier, batch)

    def warm(self) -> None:
        with self._setting_up():
            self._verifier.warm()

    def close(self) -> None:
        self._verifier.close()

    @contextmanager
    def _setting_up(self) -> Iterator[None]:
        try:
            with same_randomness():
                yield
        except RswError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self._label!r} cannot be set up: {type(error).__name__}: {error}") from error


def actors_for(component: Component, verifier: Verifier, workers: int) -> int:
    """How many Ray actors score a component where ``workers`` may share the work; 0 scores it in the caller's process.

    Raises:
        ConfigError: a verifier that keeps state has a time limit.
    """
    if component.timeout_s is None and workers == 0:
        return 0
    # State lives in the caller's process, so a verifier with state is scored where it observes, also before it has any.
    stateful = type(verifier).observe is not Verifier.observe or bool(verifier.state_dict())
    if stateful and component.timeout_s is not None:
        raise ConfigError(
            f"{component.label!r} keeps state from step to step, so it cannot run in a process that may be killed; "
            f"leave its 'timeout_s' out"
        )
    if stateful:
        return 0
    return max(1, workers) if verifier.scope != "population" else 1
