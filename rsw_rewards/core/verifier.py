"""The contracts between the engine and everything that is plugged into it: Verifier, Metric, Batch, and how verifiers are found."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from rsw_rewards.core.metric import MeanValue, Metric
from rsw_rewards.core.plugins import user_file
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.errors import ImageError, InputError

if TYPE_CHECKING:
    from rsw_rewards.features.bank import FeatureBank

Scope = Literal["sample", "group", "population"]
"""What a score may depend on: its own sample and output; all candidates of its sample; the whole batch of the step."""

SCOPES: frozenset[Scope] = frozenset(("sample", "group", "population"))

ALL_TASKS: frozenset[Task] = frozenset(Task)


@dataclass(frozen=True, slots=True)
class Batch:
    """Outputs to score, each beside its sample. The three sequences have one length."""

    samples: Sequence[Sample]
    outputs: Sequence[Output]
    groups: Sequence[str]
    """Outputs with one key are candidates of one prompt in one step."""
    truths: Sequence[Any] = ()
    """What :meth:`Verifier.truth` gave for each row, where the engine asked for it; empty otherwise."""

    def __post_init__(self) -> None:
        if not len(self.samples) == len(self.outputs) == len(self.groups):
            raise ValueError(
                f"a batch of {len(self.samples)} samples, {len(self.outputs)} outputs, {len(self.groups)} groups"
            )

    def __len__(self) -> int:
        return len(self.outputs)

    @classmethod
    def of(cls, samples: Iterable[Sample], outputs: Iterable[Output], step: int | None = None) -> Batch:
        """Pair every output with its sample by id; candidates of a sample form a group."""
        by_id = {sample.id: sample for sample in samples}
        outputs = list(outputs)
        prefix = "" if step is None else f"{step}/"
        return cls(
            [by_id[output.sample_id] for output in outputs], outputs, [prefix + output.sample_id for output in outputs]
        )

    def take(self, rows: Sequence[int]) -> Batch:
        """The named rows, in that order."""
        return Batch(
            [self.samples[row] for row in rows], [self.outputs[row] for row in rows], [self.groups[row] for row in rows]
        )


@dataclass(slots=True)
class Context:
    """What a verifier is given once per process, in :meth:`Verifier.setup`."""

    bank: FeatureBank
    device: str = "cpu"
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """What a user must know of a verifier before trusting its numbers."""

    summary: str
    range: str
    """Range and unit of the natural metric."""
    transform: str
    """How the metric becomes the value in [0, 1]."""
    source: str
    """Where the definition comes from."""
    gaming: str
    """Known ways to please it without being right, and what it does about them."""
    deterministic: bool = True
    cost: str = "microseconds on a CPU"


class NoConfig(BaseModel):
    """The configuration of a verifier that has nothing to configure."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Verifier(ABC):
    """Looks at outputs for samples and says how good each is: a reward in training, a benchmark row in evaluation.

    Instances are cheap and picklable until :meth:`setup`; weights are loaded there. :meth:`score` is pure given the batch,
    the configuration and the declared state.
    """

    name: ClassVar[str]
    tasks: ClassVar[frozenset[Task]]
    scope: ClassVar[Scope] = "sample"
    needs: ClassVar[frozenset[str]] = frozenset()
    """What it reads: ``output.<field>``, ``reference.<key>``, ``encoder:<name>``, ``detector``. Checked before a run."""
    at_once: ClassVar[int] = 64
    """Outputs of a verifier of scope ``sample`` whose truths are held in memory together."""
    rewarding: ClassVar[bool] = True
    """False for verifiers that only feed metrics: their OK scores have no value, and a rubric gives them weight 0."""
    card: ClassVar[Card]

    Config: ClassVar[type[BaseModel]] = NoConfig

    def __init__(self, config: Any = None) -> None:
        self.config: Any = self.Config() if config is None else config

    def setup(self, context: Context) -> None:
        """Called once per process, before the first batch. Load weights here."""
        self.context = context

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Called once, before the first batch and before :meth:`setup`, with all samples of the run.

        For what is fitted on references alone: document frequencies, a bandwidth, distractors. It must be repeatable, and what
        it sets must be picklable, because the verifier is sent to its actors afterwards.
        """

    def truth(self, sample: Sample) -> Any:
        """What is known to be true of a sample, read before any output for it is looked at, invalid ones too.

        Returns:
            Anything, which :meth:`score` finds in ``batch.truths``; or a :class:`Score`, not applicable or an error, that every
            output of the sample takes.

        Raises:
            Exception: the truth cannot be used. Every output of the sample is then an error, whatever it is.
        """
        return None

    @abstractmethod
    def score(self, batch: Batch) -> list[Score]:
        """One score per item of the batch, in its order.

        The engine has taken out what no verifier can score: outputs that are invalid or lost, samples without a usable
        :meth:`truth`, and tasks not in ``tasks``.
        """

    def invalid(self, sample: Sample, reason: str) -> Score:
        """The score of an output that is known to be invalid before anything looks at it: missing, truncated, of another kind.

        It is asked for in the process that scores, after :meth:`setup`, and only where the sample's :meth:`truth` is usable.
        Override it where such a row must enter summed metrics, so that leaving hard samples out cannot raise them.
        """
        return Score.invalid(reason)

    def metrics(self) -> Sequence[Metric]:
        """What a protocol may report from this verifier's rows."""
        return ()

    def encoders(self) -> Sequence[str]:
        """Encoders whose features the metrics look up; their weights' hashes are stored with the results."""
        return ()

    def observe(self, batch: Batch) -> None:
        """Called once per training step after scoring, in one process; only verifiers with state do something here."""

    def state_dict(self) -> dict[str, Any]:
        """State that scores depend on beside the batch; empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""

    def close(self) -> None:
        """Release what :meth:`setup` took."""

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with the name, the configuration, and the text of a file that a user named."""
        file = user_file(type(self).__module__)
        source = hashlib.sha256(file.read_bytes()).hexdigest() if file is not None else ""
        payload = {"name": self.name, "config": self.config.model_dump(mode="json"), "source": source}
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:12]


T = TypeVar("T")


class PerSample(Verifier, Generic[T]):
    """Base of the verifiers that hold one output against the truth of its sample.

    A derived class says how the truth is read (:meth:`truth`), how an output compares with it (:meth:`compare`), and what the
    worst is (:meth:`worst`). Whose fault a failure is follows from where it happens: what goes wrong in ``truth`` is an error
    for every output of the sample, and an image that cannot be used in ``compare`` is the policy's.
    """

    @abstractmethod
    def truth(self, sample: Sample) -> T | Score:
        """The truth, or the score that every output of the sample takes: not applicable, or an error. May raise."""

    @abstractmethod
    def compare(self, truth: T, output: Output) -> Score:
        """The score of one output. Raises :class:`ImageError` for an image of the output's that cannot be used."""

    def compare_all(self, truths: Sequence[T], outputs: Sequence[Output]) -> list[Score]:
        """The scores of several outputs, each beside its truth; override it where a network looks at many at once."""
        return [self._compared(truth, output) for truth, output in zip(truths, outputs, strict=True)]

    def worst(self, truth: T, reason: str) -> Score:
        """The score of an output that cannot be used. Override it where such a row must enter summed metrics."""
        return Score.invalid(reason)

    def _compared(self, truth: T, output: Output) -> Score:
        try:
            return self.compare(truth, output)
        except ImageError as error:
            return self.worst(truth, str(error))

    def score(self, batch: Batch) -> list[Score]:
        truths = batch.truths or truths_of(self, batch.samples)
        usable = [row for row, truth in enumerate(truths) if not isinstance(truth, Score)]
        compared = iter(self.compare_all([truths[row] for row in usable], [batch.outputs[row] for row in usable]))
        return [truth if isinstance(truth, Score) else next(compared) for truth in truths]

    def invalid(self, sample: Sample, reason: str) -> Score:
        """:meth:`worst`, for a caller that holds the sample; the engine calls that with the truth it has read already."""
        truth = truth_of(self, sample)
        return truth if isinstance(truth, Score) else self.worst(truth, reason)


def truth_of(verifier: Verifier, sample: Sample) -> Any:
    """The truth of a sample as a verifier reads it, or the score that all outputs of the sample take instead."""
    try:
        return verifier.truth(sample)
    except (Exception, SystemExit) as error:
        told = str(error) if isinstance(error, (InputError, ValueError)) else f"{type(error).__name__}: {error}"
        return Score.error(f"the truth of sample {sample.id!r} cannot be used: {told}")


def truths_of(verifier: Verifier, samples: Sequence[Sample]) -> list[Any]:
    """:func:`truth_of` of every sample, in their order; a sample that stands several times is read once."""
    known: dict[int, Any] = {}
    return [
        known[id(sample)] if id(sample) in known else known.setdefault(id(sample), truth_of(verifier, sample))
        for sample in samples
    ]


ScoreFunction = Callable[[Sample, Output], "float | Score | None"]


class FunctionVerifier(Verifier):
    """A verifier made of one function ``(sample, output) -> float | Score``, by :func:`verifier`."""

    function: ClassVar[ScoreFunction]

    def score(self, batch: Batch) -> list[Score]:
        score = type(self).function
        return [self._one(score, sample, output) for sample, output in zip(batch.samples, batch.outputs, strict=True)]

    @staticmethod
    def _one(function: ScoreFunction, sample: Sample, output: Output) -> Score:
        result = function(sample, output)
        if isinstance(result, Score):
            return result
        if result is None:
            return Score.not_applicable("the verifier returned None for this sample")
        return Score(float(result), raw={"value": float(result)})

    def metrics(self) -> Sequence[Metric]:
        return (MeanValue(self.name),)


def verifier(
    *, tasks: Iterable[str], name: str | None = None, needs: Iterable[str] = (), card: Card | None = None
) -> Callable[[ScoreFunction], type[Verifier]]:
    """Make a verifier of a function ``(sample, output) -> float in [0, 1] | Score | None`` (None: not applicable).

    The result is a :class:`Verifier` class under the function's name, usable wherever a built-in one is.
    """

    def wrap(function: ScoreFunction) -> type[Verifier]:
        label = name or str(getattr(function, "__name__", "reward"))
        summary = inspect.getdoc(function) or f"The function {label}."
        members = {
            "__module__": function.__module__,
            "__doc__": summary,
            "name": label,
            "tasks": frozenset(Task(task) for task in tasks),
            "needs": frozenset(needs),
            "card": card
            or Card(summary, "[0, 1]", "none", f"{function.__module__}.{label}", "not stated by its author"),
            "function": staticmethod(function),
        }
        return type(label, (FunctionVerifier,), members)

    return wrap
