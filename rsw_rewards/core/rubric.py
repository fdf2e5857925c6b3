"""Rubric: which verifiers with which weights for which tasks, how their scores are combined, and how a name becomes a verifier."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from rsw_rewards.core.functions import verifier_class
from rsw_rewards.core.plugins import place_of
from rsw_rewards.core.records import OUTPUT_FIELDS, Sample, Task
from rsw_rewards.core.registry import Registry
from rsw_rewards.core.verifier import Verifier, as_task, names_of
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError, did_you_mean, reason_of
from rsw_rewards.verifiers import BUILT_IN


class _MadeByCall(type(BaseModel)):  # type: ignore[misc]
    """Of models that Python code makes by a call: what is wrong is a :class:`ConfigError` there as well.

    A model inside another is not made by a call, so that an error of it still names the place in the whole.
    """

    def __call__(cls, *args: Any, **data: Any) -> Any:
        try:
            return super().__call__(*args, **data)
        except ValidationError as error:
            raise _config_error(error, f"the {cls.__name__.lower()}", cls) from None


class Gate(BaseModel, metaclass=_MadeByCall):
    """A condition on another component's value: until it is met, the gated component counts as 0.

    It is open for samples that the other component does not score, since no answer to them could open it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    component: str
    """The component that opens the gate."""
    at_least: float = Field(default=1.0, gt=0, le=1)
    """The value it must reach."""


class Component(BaseModel, metaclass=_MadeByCall):
    """One verifier of a rubric, with its configuration, weight and gate.

    Raises:
        ConfigError: naming the field that is unknown or wrong.

    >>> rsw.Component(use="exact_match", weight=0.9).label
    'exact_match'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: Any
    """The verifier: a name, ``package.module:object``, ``file.py:object``, or the class or function itself. A file names an object
    by where it is from."""
    name: str = ""
    """What its rows and logs are called; the verifier's name where left out."""
    config: dict[str, Any] = {}
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Share in the weighted mean. A penalty is a verifier that gives 1 when clean; there are no negative weights."""
    tasks: frozenset[Task] | None = None
    """Tasks it is asked about, one name or several; all that the verifier knows where left out."""
    required: bool = True
    """Whether a failure leaves the output without a reward; otherwise the component is left out for its whole group."""
    gate: Gate | None = None
    """Counts as 0 until another component reaches a value, so that an easy reward is not earned without the hard one."""
    min_std: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """A spread of its values within the group below this counts as none: nearly equal candidates then are equal, instead of being
    told apart by what is left of noise once advantages are divided by it."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds after which one batch counts as hung; such a component runs in a process that can be killed."""

    @field_validator("use")
    @classmethod
    def _is_a_verifier(cls, use: Any) -> Any:
        if not isinstance(use, str):
            VERIFIERS.find(use)
        return use

    @field_validator("tasks", mode="before")
    @classmethod
    def _known_tasks(cls, tasks: Any) -> Any:
        try:
            return [as_task(name, "tasks") for name in names_of(tasks)] if isinstance(tasks, Iterable) else tasks
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("tasks: ")) from None

    @field_serializer("use", when_used="json")
    def _place(self, use: Any) -> str:
        return use if isinstance(use, str) else place_of(use)

    @model_serializer(mode="wrap")
    def _with_label(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """The fields; as plain data with the name, where what is read again would be called otherwise."""
        data: dict[str, Any] = write(self)
        if info.mode == "json" and data.get("tasks"):
            data["tasks"] = sorted(data["tasks"])  # a set has another order in every process
        if info.mode == "json" and not isinstance(self.use, str) and not data.get("use", "").endswith(f":{self.label}"):
            data["name"] = self.label
        return data

    @property
    def label(self) -> str:
        """The name of its rows in a table."""
        if self.name:
            return self.name
        return self.use.rpartition(":")[2] if isinstance(self.use, str) else VERIFIERS.find(self.use).name

    def build(self) -> Verifier:
        """The verifier with its configuration. Raises :class:`ConfigError`."""
        return build(self.use, self.config)


class _MadeOfComponents(_MadeByCall):
    def __call__(cls, components: Any = None, /, **data: Any) -> Any:
        return super().__call__(**data if components is None else {"components": _listed(components), **data})


class Rubric(BaseModel, metaclass=_MadeOfComponents):
    """The components of a reward and how they are combined.

    Args:
        components: the weight of each verifier; one verifier; or a list of verifiers and of :class:`Component`.
        data: the fields, by name.

    Raises:
        ConfigError: what is given is no rubric.

    >>> rsw.Rubric({"exact_match": 0.9, "answer_format": 0.1}).components[1].weight
    0.1
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: tuple[Component, ...] = Field(min_length=1)
    combine: Literal["weighted_sum", "normalize_each"] = "weighted_sum"
    """How values become one reward; the definitions stand at :func:`rsw_rewards.core.rewards.combined`."""
    min_std: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The same of the reward itself: a group whose rewards spread less than this gets one reward, so no advantage."""
    max_error_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of the last :data:`ERROR_WINDOW` required scores that may fail before a run stops."""

    if TYPE_CHECKING:

        def __init__(self, components: Any = None, /, **data: Any) -> None: ...

    @model_validator(mode="after")
    def _names_are_unique(self) -> Rubric:
        labels = [component.label for component in self.components]
        if len(set(labels)) < len(labels):
            double = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"two components are named {double!r}; give one of them another 'name'")
        for component in self.components:
            if component.gate and component.gate.component not in set(labels) - {component.label}:
                raise ValueError(
                    f"the gate of {component.label!r} names {component.gate.component!r}, which is no other component"
                )
        return self

    def component(self, label: str) -> Component:
        """The component of that name. Raises ``KeyError``."""
        for component in self.components:
            if component.label == label:
                return component
        raise KeyError(label)

    def dump(self) -> dict[str, Any]:
        """The rubric as plain data, as it stands in YAML."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _listed(components: Any) -> list[Any]:
    """Components, or mappings with the fields of one, of what a rubric is made of."""
    if isinstance(components, Mapping):
        return [{"use": use, "weight": weight} for use, weight in components.items()]
    if isinstance(components, str | Component) or callable(components):
        components = [components]
    if not isinstance(components, Iterable):
        raise ConfigError(
            f"{components!r:.80} is no rubric; give a Rubric, a YAML file, a mapping of verifiers to weights, a verifier, or a list"
            " of verifiers or Components"
        )
    return [one if isinstance(one, Component | Mapping) else {"use": one} for one in components]


def parse_rubric(data: Any, where: str) -> Rubric:
    """A rubric from plain data, at the top level or under the key ``rubric``. Raises :class:`ConfigError` naming ``where``."""
    if isinstance(data, dict) and isinstance(data.get("rubric"), dict):
        data = data["rubric"]
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a rubric is a mapping with the key 'components'")
    try:
        return Rubric.model_validate(data)
    except ValidationError as error:
        raise _config_error(error, where, Rubric) from None


def _config_error(error: ValidationError, where: str, model: type[BaseModel]) -> ConfigError:
    problem = error.errors()[0]
    parts = [str(part) for part in problem["loc"]]
    key = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        section = Gate if "gate" in parts[:-1] else Component if "components" in parts[:-1] else model
        return ConfigError(f"{where}: unknown key {key!r}; {did_you_mean(parts[-1], section.model_fields)}")
    return ConfigError(f"{where}: {key and f'{key}: '}{reason_of(problem)}")


def as_rubric(value: Any) -> Rubric:
    """The rubric that a value stands for.

    Args:
        value: a rubric; a YAML file, whose name ends in ``.yaml`` or ``.yml``; a mapping as it stands in YAML; or what a
            :class:`Rubric` is made of: the weight of each verifier, one verifier, or a list of verifiers and components.

    Raises:
        ConfigError: it stands for none.

    >>> [component.label for component in as_rubric(["exact_match", "answer_format"]).components]
    ['exact_match', 'answer_format']
    """
    if isinstance(value, Rubric):
        return value
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).suffix.lower() in (".yaml", ".yml")):
        return load_rubric(Path(value))
    if isinstance(value, Mapping) and {"components", "rubric"} & set(value):
        return parse_rubric(value, "the rubric")
    return Rubric(value)


def load_rubric(path: Path) -> Rubric:
    """Read a rubric from a YAML file (a rubric, or a run configuration that holds one). Raises :class:`ConfigError`."""
    return parse_rubric(read_yaml(path), str(path))


def component_tasks(component: Component, verifier: Verifier) -> frozenset[Task]:
    """The tasks a component scores. Raises :class:`ConfigError` for tasks its verifier does not know."""
    if component.tasks is None:
        return verifier.tasks
    if unknown := component.tasks - verifier.tasks:
        known = ", ".join(sorted(verifier.tasks))
        raise ConfigError(
            f"the verifier {component.label!r} does not score {', '.join(sorted(unknown))}; it knows {known}"
        )
    return component.tasks


def check_rubric(rubric: Rubric, verifiers: Sequence[Verifier], samples: Iterable[Sample]) -> None:
    """Check before a run that the rubric can score the samples.

    Raises:
        ConfigError: a verifier that only measures has a weight or is to open a gate; a task has no component with a weight; a
            sample lacks what a verifier reads.
    """
    rewarded: set[Task] = set()
    for component, verifier in zip(rubric.components, verifiers, strict=True):
        if not verifier.rewarding and component.weight > 0:
            raise ConfigError(f"{component.label!r} only measures and gives no reward; set its weight to 0")
        shut = [other.label for other in rubric.components if other.gate and other.gate.component == component.label]
        if not verifier.rewarding and shut:
            raise ConfigError(
                f"{component.label!r} only measures and has no value, so it cannot be the condition of the gate of {shut[0]!r}"
            )
        if component.weight > 0:
            rewarded |= component_tasks(component, verifier)
    for sample in samples:
        if sample.task not in rewarded and any(component.weight > 0 for component in rubric.components):
            raise ConfigError(f"no component of the rubric rewards the task {sample.task} (sample {sample.id!r})")
        for component, verifier in zip(rubric.components, verifiers, strict=True):
            if sample.task in component_tasks(component, verifier):
                _check_needs(component.label, verifier, sample)


def _check_needs(label: str, verifier: Verifier, sample: Sample) -> None:
    for need in verifier.needs:
        kind, _, key = need.partition(".")
        if kind == "reference" and sample.reference.get(key) is None:
            raise ConfigError(f"{label!r} reads reference.{key}, which the sample {sample.id!r} does not have")
        if need == "images" and not sample.images:
            raise ConfigError(f"{label!r} reads the images of samples, and the sample {sample.id!r} has none")
        if kind == "output" and key != "tokens" and not any(key in OUTPUT_FIELDS[task] for task in verifier.tasks):
            raise ConfigError(f"{label!r} reads output.{key}, which no output of its tasks has")


def _verifier(found: Any, use: str) -> type[Verifier]:
    if inspect.isfunction(found):
        return verifier_class(found)
    if not (isinstance(found, type) and issubclass(found, Verifier)):
        given = (
            f"an object of the class {type(found).__name__}"
            if not isinstance(found, type)
            else "a class of another kind"
        )
        raise ConfigError(
            f"{use!r} is not a verifier but {given}; give a function (sample, output), or a class derived from"
            " rsw_rewards.Verifier, with its settings under 'config'"
        )
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigError(f'the verifier {use!r} has no name; write name = "..." in its class')
    return found


VERIFIERS: Registry[type[Verifier]] = Registry(
    "verifier",
    "verifiers",
    {name: f"rsw_rewards.verifiers.{place}" for name, place in BUILT_IN.items()},
    _verifier,
    own_names=True,
)
"""All verifiers. A function ``(sample, output)`` is one as well, whether it is decorated or not."""


def build(use: str | Any, config: Mapping[str, Any] | None = None) -> Verifier:
    """The verifier that a name or an object stands for, with its configuration.

    Args:
        use: see :class:`Registry`.
        config: keys of its ``Config``; what is left out has its default.

    Raises:
        ConfigError: it cannot be found, or a key or a value of the configuration is wrong.

    >>> build("exact_match").name
    'exact_match'
    """
    cls = VERIFIERS.find(use)
    try:
        checked = cls.Config.model_validate(dict(config or {}))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            known = cls.Config.model_fields
            hint = did_you_mean(where, known) if known else "it has no configuration"
            raise ConfigError(f"the verifier {cls.name!r} has no option {where!r}; {hint}") from None
        raise ConfigError(
            f"the configuration of the verifier {cls.name!r} is wrong at {where!r}: {reason_of(problem)}"
        ) from None
    try:
        # A class without settings may have an __init__ without a parameter for them.
        none = not cls.Config.model_fields and len(inspect.signature(cls.__init__).parameters) == 1
        return cls() if none else cls(checked)
    except TypeError as error:
        if "__init__" not in str(error) and "abstract" not in str(error):
            raise
        raise ConfigError(f"the verifier {cls.name!r} cannot be made from its configuration: {error}") from error
