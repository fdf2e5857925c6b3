"""PerSample: the base of verifiers that hold one output against the truth of its sample, and how that truth is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.errors import ImageError, InputError, Unreadable

T = TypeVar("T")


class PerSample(Verifier, Generic[T]):
    """Base of verifiers that compare one output with the reference of its sample.

    A derived class says how the truth is read (:meth:`truth`), how an output compares with it (:meth:`compare`), and what the
    worst is (:meth:`worst`). Whose fault a failure is follows from where it happens: what goes wrong in ``truth`` is an error
    for every output of the sample; an image or a text that cannot be used in ``compare`` is the policy's. A network looks
    at many outputs at once: ``compare`` then gives what it is to look at, and :meth:`rate` the scores.

    >>> class Length(rsw.PerSample):
    ...     name = "length"
    ...
    ...     def truth(self, sample):
    ...         return len(sample.reference["answers"][0])
    ...
    ...     def compare(self, truth, output):
    ...         return rsw.Score(float(len(output.text) <= truth))
    >>> rsw.score(Length, output="no", reference={"answers": ["yes"]}, task="change_qa").value
    1.0
    """

    worst_facts: ClassVar[Mapping[str, Any]] = {}
    """``raw`` and ``stats`` of an output that cannot be used, where they depend neither on its truth nor on the configuration."""

    @abstractmethod
    def compare(self, truth: T, output: Output) -> Any:
        """The score of one output, or what :meth:`rate` scores it by.

        Raises:
            ImageError: an image of the output's that cannot be used; its score is :meth:`worst`.
            Unreadable: a text or a number of the output's, likewise.
        """

    def rate(self, truths: Sequence[T], compared: Sequence[Any]) -> list[Score]:
        """The scores of outputs for which :meth:`compare` gave no score, one at least, each beside its truth."""
        raise TypeError(f"{type(self).__name__}.compare gave {compared[0]!r:.80} instead of a Score")

    def worst(self, truth: T, reason: str) -> Score:
        """The score of an output that cannot be used. Override it, or declare :attr:`worst_facts`, where such a row must enter summed metrics."""
        return Score.invalid(reason, **self.worst_facts)

    def score(self, batch: Batch) -> list[Score]:
        return self.scores_of(self.compare, batch, batch.outputs)

    def scores_of(self, compare: Callable[[T, Any], Any], batch: Batch, items: Sequence[Any]) -> list[Score]:
        """The scores of a batch by what ``compare`` makes of each truth and item, or of that :meth:`rate`."""
        # The engine has read the truths, and asks for the usable ones alone; whoever calls `score` himself has done neither.
        truths = batch.truths or truths_of(self, batch.samples)
        found: list[Any] = []
        for truth, item in zip(truths, items, strict=True):
            try:
                found.append(truth if isinstance(truth, Score) else compare(truth, item))
            except (ImageError, Unreadable) as error:
                found.append(self.worst(truth, str(error)))
        left = [row for row, one in enumerate(found) if not isinstance(one, Score)]
        if left:
            rated = self.rate([truths[row] for row in left], [found[row] for row in left])
            for row, score in zip(left, rated, strict=True):
                found[row] = score
        return found

    def invalid(self, sample: Sample, reason: str) -> Score:
        """:meth:`worst`, for a caller that holds the sample; the engine calls that with the truth it has read already."""
        (truth,) = truths_of(self, [sample])
        return truth if isinstance(truth, Score) else self.worst(truth, reason)


class Unscored(Exception):
    """Raised inside :meth:`Verifier.truth`: every output of the sample takes this score, not applicable or an error."""

    def __init__(self, score: Score) -> None:
        super().__init__(score.reason)
        self.score = score


def truths_of(verifier: Verifier, samples: Sequence[Sample]) -> list[Any]:
    """The truth of every sample as a verifier reads it, or the score that all outputs of the sample take instead.

    A sample that stands several times is read once.
    """
    known: dict[int, Any] = {}
    for sample in samples:
        if id(sample) in known:
            continue
        try:
            truth = verifier.truth(sample)
        except Unscored as instead:
            truth = instead.score
        except (Exception, SystemExit) as error:
            told = str(error) if isinstance(error, (InputError, ValueError)) else f"{type(error).__name__}: {error}"
            truth = Score.error(f"the truth of sample {sample.id!r} cannot be used: {told}")
        if isinstance(truth, Score) and truth.value is not None:
            truth = Score.error(f"'truth' gave {truth!r:.80}; before an output is seen there is no value")
        known[id(sample)] = truth
    return [known[id(sample)] for sample in samples]
