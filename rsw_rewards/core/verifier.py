"""The contract between the engine and what scores outputs: Verifier, its Card, the Batch it is given."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from rsw_rewards.core.fingerprint import fingerprint
from rsw_rewards.core.metric import MeanValue, Metric
from rsw_rewards.core.plugins import place_of
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rsw_rewards.features.bank import FeatureBank

Scope = Literal["sample", "group", "population"]
"""What a score may depend on: its own sample and output; all candidates of its sample; the whole batch of the step."""

SCOPES: frozenset[Scope] = frozenset(("sample", "group", "population"))

ALL_TASKS: frozenset[Task] = frozenset(Task)


@dataclass(frozen=True, slots=True)
class Batch:
    """Outputs to score, with their samples. Samples, outputs and groups have the same length.

    >>> sample = rsw.Sample("q1", "change_qa")
    >>> rsw.Batch.of([sample], [rsw.Output("q1", text="yes"), rsw.Output("q1", 1, text="no")]).groups
    ['q1', 'q1']
    """

    samples: Sequence[Sample]
    outputs: Sequence[Output]
    groups: Sequence[str]
    """Outputs with one key are candidates of one prompt in one step."""
    truths: Sequence[Any] = ()
    """What :meth:`Verifier.truth` gave for each row, where the engine asked for it; empty otherwise."""
    invalid: Mapping[str, int] = field(default_factory=dict)
    """How many outputs of a group the engine has taken out because they are invalid, by the group's key."""

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
        """The named rows, in that order, with what is known of their groups."""
        truths = [self.truths[row] for row in rows] if self.truths else ()
        samples, outputs = [self.samples[row] for row in rows], [self.outputs[row] for row in rows]
        groups = [self.groups[row] for row in rows]
        invalid = {group: self.invalid[group] for group in groups if group in self.invalid} if self.invalid else {}
        return Batch(samples, outputs, groups, truths, invalid)


@dataclass(slots=True)
class Context:
    """What a verifier gets once per process, in :meth:`Verifier.setup`.

    >>> class OnDevice(rsw.Verifier):
    ...     name = "on_device"
    ...
    ...     def setup(self, context):
    ...         self.device = context.device
    ...
    ...     def score(self, batch):
    ...         return [rsw.Score(float(self.device == "cpu")) for _ in batch.outputs]
    >>> rsw.score(OnDevice, output="yes", task="change_qa").value
    1.0
    """

    bank: FeatureBank
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """The description of a verifier: what it measures, its range and source, and its weaknesses.

    >>> card = rsw.Card(
    ...     summary="Whether the answer is short.", range="0 or 1", transform="none", source="this page", gaming="an empty answer"
    ... )
    >>> card.cost
    'microseconds on a CPU'
    """

    summary: str
    range: str
    """Range and unit of the natural metric."""
    transform: str
    """How the metric becomes the value in [0, 1]."""
    source: str
    """Where the definition comes from."""
    gaming: str
    """Known ways to please it without being right, and what it does about them."""
    cost: str = "microseconds on a CPU"


class _CardOfDocstring:
    """The card of a verifier whose author wrote none."""

    def __get__(self, instance: object, owner: type) -> Card:
        summary = (inspect.cleandoc(owner.__doc__ or "") or f"{owner.__name__}, which has no docstring.").partition(
            "\n\n"
        )[0]
        return Card(summary, "[0, 1]", "none", place_of(owner), "not stated by its author", "not stated by its author")


class NoConfig(BaseModel):
    """The configuration of a verifier that has nothing to configure."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Verifier(ABC):
    """Compares outputs with their samples and scores them: for rewards in training, and for metrics in evaluation.

    Instances are cheap and picklable until :meth:`setup`; weights are loaded there. :meth:`score` is pure given the batch,
    the configuration and the declared state.

    >>> class Short(rsw.Verifier):
    ...     name = "short"
    ...     tasks = "change_qa"
    ...
    ...     def score(self, batch):
    ...         return [rsw.Score(1 / len(output.text.split())) for output in batch.outputs]
    >>> rsw.score(Short, output="yes it has").value
    0.3333333333333333
    """

    name: ClassVar[str]
    tasks: ClassVar[frozenset[Task]] = ALL_TASKS
    """The tasks it scores. A derived class may write one name, or any collection of names."""
    scope: ClassVar[Scope] = "sample"
    needs: ClassVar[frozenset[str]] = frozenset()
    """What it reads, ``output.<field>``, ``reference.<key>`` and the sample's ``images``, checked before a run; and what it works with, ``encoder``,
    ``detector``, ``network`` or ``endpoint``, each of which answers many outputs at once faster than one by one. A derived class
    may write one name, or any collection of names."""
    at_once: ClassVar[int] = 64
    """Outputs of a verifier of scope ``sample`` whose truths are held in memory together."""
    rewarding: ClassVar[bool] = True
    """False for verifiers that only feed metrics: their OK scores have no value, and a rubric gives them weight 0."""
    card: ClassVar[Card] = _CardOfDocstring()  # type: ignore[assignment]
    """Made from the docstring where a derived class has none."""
    reported: ClassVar[tuple[Metric, ...] | None] = None
    """What :meth:`metrics` gives, where that does not depend on the configuration."""

    Config: ClassVar[type[BaseModel]] = NoConfig

    detector: Any = None
    """A network of its own that :meth:`setup` loaded, with ``name`` and ``weights_sha256``, which stand with the results."""
    network: Any = None
    """Another one, with ``id`` instead of ``name`` where it has one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "tasks" in own:
            cls.tasks = frozenset(as_task(name, cls.__name__) for name in names_of(own["tasks"]))
        if cls.scope not in SCOPES:
            raise ConfigError(
                f"{cls.__name__}: no scope is named {cls.scope!r}; {did_you_mean(cls.scope, sorted(SCOPES))}"
            )
        if "needs" in own:
            cls.needs = frozenset(names_of(own["needs"]))
        for name in ("truth", "invalid"):
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise ConfigError(f"{cls.__name__}.{name} is 'async def'; only score may be")

    def __new__(cls, config: Any = None, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        if isinstance(config, BaseModel):
            made.config = config
        return made

    def __init__(self, config: Any = None) -> None:
        if config is not None:
            self.config = config

    @cached_property
    def config(self) -> Any:
        """The configuration, a :attr:`Config`; a derived class need not call ``__init__`` of this one for it to be there."""
        return self.Config()

    def setup(self, context: Context) -> None:
        """Called once per process, before the first batch. Load weights here."""
        self.context = context

    def warm(self) -> None:
        """Called after :meth:`setup` where the first call should be as fast as later ones: start what is started at first use.

        Override it where :meth:`setup` leaves something to the first batch.
        """

    @property
    def needs_samples(self) -> bool:
        """Whether scores depend on the samples that :meth:`prepare` saw; by default where it is overridden."""
        return type(self).prepare is not Verifier.prepare

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
        """What a protocol may report from this verifier's rows: by default the mean of its values, under its name.

        Override it, or declare :attr:`reported`, for other numbers, such as those of raw metrics: :class:`MeanValue`, :class:`SumMetric`.
        """
        if self.reported is not None:
            return self.reported
        return (MeanValue(self.name, bounds=(0.0, 1.0)),) if self.rewarding else ()

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

    def files(self) -> Iterable[str | Path]:
        """Files that scores depend on and that the configuration does not name: their contents enter :attr:`hash`."""
        return ()

    def _code(self) -> Any:
        """The class or the function whose code makes the scores."""
        return type(self)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with what scores depend on beside samples and outputs.

        These are the name, the configuration, the contents of the files that it names, and the code: see
        :mod:`rsw_rewards.core.fingerprint`.
        """
        return fingerprint(self.name, self.config.model_dump(), self._code(), self.files())


def names_of(value: str | Iterable[str]) -> tuple[str, ...]:
    """One name, or a collection of names, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def as_task(name: str, where: str) -> Task:
    """The task of that name. Raises :class:`ConfigError` that begins with ``where``."""
    try:
        return Task(name)
    except ValueError:
        raise ConfigError(f"{where}: no task is named {name!r}; {did_you_mean(str(name), map(str, Task))}") from None


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
