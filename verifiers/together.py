"""The base of the verifiers that look at several outputs at once, because a network does or because they are rated as a set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from rsw_rewards.core.records import Output
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import PerSample
from rsw_rewards.errors import ImageError

T = TypeVar("T")
V = TypeVar("V")


class Together(PerSample[T], Generic[T, V]):
    """Base of the verifiers that look at every output alone first (:meth:`see`), and then rate all that can be used (:meth:`rate`)."""

    @abstractmethod
    def see(self, truth: T, output: Output) -> V | Score:
        """What is rated of an output, or the score of one that cannot be used. Raises :class:`ImageError` for its images."""

    @abstractmethod
    def rate(self, truths: Sequence[T], seen: Sequence[V]) -> list[Score]:
        """The scores of usable outputs, one at least, each beside its truth."""

    def compare(self, truth: T, output: Output) -> Score:
        return self.compare_all([truth], [output])[0]

    def compare_all(self, truths: Sequence[T], outputs: Sequence[Output]) -> list[Score]:
        scores: dict[int, Score] = {}
        seen: dict[int, V] = {}
        for row, (truth, output) in enumerate(zip(truths, outputs, strict=True)):
            try:
                found = self.see(truth, output)
            except ImageError as error:
                found = self.worst(truth, str(error))
            if isinstance(found, Score):
                scores[row] = found
            else:
                seen[row] = found
        if seen:
            scores |= zip(seen, self.rate([truths[row] for row in seen], list(seen.values())), strict=True)
        return [scores[row] for row in range(len(outputs))]
