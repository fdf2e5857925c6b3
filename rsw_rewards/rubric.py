"""Rubric: which verifiers with which weights for which tasks, and how a score table becomes one reward per output.

Everything here is a pure function of the table, so rewards can be computed again from stored scores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rsw_rewards.contracts import Verifier, build
from rsw_rewards.errors import ConfigError, InputError, RunStopped, did_you_mean
from rsw_rewards.samples import OUTPUT_FIELDS, Sample, Task
from rsw_rewards.scores import ScoreTable, Status

FAILED = (Status.ERROR, Status.TIMEOUT)
"""Statuses that are our fault: no value, and never a zero."""


class Gate(BaseModel):
    """A condition on another component's value: until it is met, the gated component counts as 0.

    It is open for samples that the other component does not score, since no answer to them could open it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    component: str
    """The component that opens the gate."""
    at_least: float = Field(default=1.0, gt=0, le=1)
    """The value it must reach."""


class Component(BaseModel):
    """One verifier and its part in the reward."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str
    """The verifier: a name, ``pkg.mod:object`` or ``file.py:object``."""
    name: str = ""
    """What its rows and logs are called; the verifier's name where left out."""
    config: dict[str, Any] = {}
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Share in the weighted mean. A penalty is a verifier that gives 1 when clean; there are no negative weights."""
    tasks: frozenset[Task] | None = None
    """Tasks it is asked about; all that the verifier knows where left out."""
    required: bool = True
    """Whether a failure leaves the output without a reward; otherwise the component is left out for its whole group."""
    gate: Gate | None = None
    """Counts as 0 until another component reaches a value, so that an easy reward is not earned without the hard one."""
    min_std: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """A spread of its values within the group below this counts as none: nearly equal candidates then are equal, instead of being
    told apart by what is left of noise once advantages are divided by it."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds after which one batch counts as hung; such a component runs in a process that can be killed."""

    @property
    def label(self) -> str:
        """The name of its rows in a table."""
        return self.name or self.use.rpartition(":")[2]

    def build(self) -> Verifier:
        """The verifier with its configuration. Raises :class:`ConfigError`."""
        return build(self.use, self.config)


class Rubric(BaseModel):
    """The components of a reward and how they are combined."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: tuple[Component, ...] = Field(min_length=1)
    combine: Literal["weighted_sum", "normalize_each"] = "weighted_sum"
    min_std: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The same of the reward itself: a group whose rewards spread less than this gets one reward, so no advantage."""
    max_error_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of the last :data:`ERROR_WINDOW` required scores that may fail before a run stops."""

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


def parse_rubric(data: Any, where: str) -> Rubric:
    """A rubric from plain data, at the top level or under the key ``rubric``. Raises :class:`ConfigError` naming ``where``."""
    if isinstance(data, dict) and isinstance(data.get("rubric"), dict):
        data = data["rubric"]
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a rubric is a mapping with the key 'components'")
    try:
        return Rubric.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        parts = [str(part) for part in problem["loc"]]
        key = ".".join(parts) or "rubric"
        if problem["type"] == "extra_forbidden":
            section = Gate if "gate" in parts[:-1] else Component if "components" in parts[:-1] else Rubric
            raise ConfigError(
                f"{where}: unknown key {key!r}; {did_you_mean(parts[-1], section.model_fields)}"
            ) from None
        raise ConfigError(f"{where}: {key}: {problem['msg'].removeprefix('Value error, ')}") from None


def load_rubric(path: Path) -> Rubric:
    """Read a rubric from a YAML file (a rubric, or a run configuration that holds one). Raises :class:`ConfigError`."""
    try:
        return parse_rubric(yaml.safe_load(Path(path).read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error


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
                f"{component.label!r} only measures and has no value, so it can never open the gate of {shut[0]!r}"
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
        if kind == "output" and not any(key in OUTPUT_FIELDS[task] for task in verifier.tasks):
            raise ConfigError(f"{label!r} reads output.{key}, which no output of its tasks has")


KEYS = ["group", "candidate"]
"""What tells the outputs of a table apart."""
TIED_STD = 1e-12
"""Spread within a group up to which values are equal: what rounding leaves must not be blown up."""


def rewards(table: ScoreTable, rubric: Rubric) -> pd.DataFrame:
    """One reward per output; the order of the table's rows has no say in them.

    An output is left out, with NaN for its reward, where a required component of weight above 0 failed or where nothing but
    failures is known of it (a lost rollout). Outputs that are left out have no say in the rewards of their group.

    ``weighted_sum``: ``sum(w v) / sum(w)`` over the components that have a value for every output of the group.
    ``normalize_each`` (GDPO, arXiv 2601.05242): each component is brought to zero mean and unit standard deviation (ddof 0)
    within its group, then ``sum(w z) / sum(w)``; such rewards are not in [0, 1].
    Under both, a group in which a component spreads less than its ``min_std`` has no spread in it, and one in which the reward
    spreads less than the rubric's has its mean for every output.

    Returns:
        Columns ``sample``, ``group``, ``candidate``, ``reward`` and ``reason``, one row per output in the order in which outputs
        first stand in the table.

    Raises:
        InputError: a component scored an output twice, so that it is not known which score counts.
    """
    frame = table.frame
    columns = ["sample", "group", "candidate", "reward", "reason"]
    if frame.empty:
        return pd.DataFrame(columns=columns)
    index, first = _output_index(frame)
    outputs = frame.iloc[first][["sample", "group", "candidate"]].reset_index(drop=True)
    groups = pd.factorize(outputs["group"])[0]
    n, n_groups = len(outputs), int(groups.max()) + 1
    columns_of = {component.label: _column(frame, component.label, index, n) for component in rubric.components}
    weighty = [component for component in rubric.components if component.weight > 0]
    gated = [_gated(component, columns_of) for component in weighty]

    lost, any_failed, any_value = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    reason, optional_reason = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    for component, (value, failed, why) in zip(weighty, gated, strict=True):
        if component.required:
            reason = np.where(failed & (reason == ""), why, reason)
            lost |= failed
        optional_reason = np.where(failed & (optional_reason == ""), why, optional_reason)
        any_failed |= failed
        any_value |= ~np.isnan(value)
    reason = np.where(any_failed & ~any_value & (reason == ""), optional_reason, reason)
    lost |= any_failed & ~any_value

    total, mass = np.zeros(n), np.zeros(n)
    for component, (value, _, _) in zip(weighty, gated, strict=True):
        absent = np.bincount(groups, np.isnan(value) & ~lost, n_groups) > 0
        here = ~absent[groups] & ~lost
        spread = _normalised if rubric.combine == "normalize_each" else _levelled
        value = spread(value, here, groups, n_groups, component.min_std)
        total[here] += component.weight * value[here]
        mass[here] += component.weight
    with np.errstate(invalid="ignore", divide="ignore"):
        reward = np.where(lost | (mass == 0), np.nan, total / mass)
    outputs["reward"] = _levelled(reward, ~np.isnan(reward), groups, n_groups, rubric.min_std)
    outputs["reason"] = np.where(~lost & (mass == 0), "no component has a value for this output's whole group", reason)
    return outputs


_Column = tuple[np.ndarray, np.ndarray, np.ndarray]


def _gated(component: Component, columns_of: Mapping[str, _Column]) -> _Column:
    """The column of a component after its gate."""
    value, failed, why = columns_of[component.label]
    if component.gate is None:
        return value, failed, why
    opener, gate_failed, gate_why = columns_of[component.gate.component]
    asked = ~np.isnan(value)
    value = np.where(
        asked & (opener < component.gate.at_least), 0.0, value
    )  # no value of the gate's compares as smaller
    value = np.where(gate_failed, np.nan, value)
    return value, failed | (gate_failed & asked), np.where(failed, why, gate_why)


def _output_index(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(number of the output of every row, first row of every output), outputs numbered by first appearance."""
    groups = pd.factorize(frame["group"])[0].astype(np.int64)
    candidates = frame["candidate"].to_numpy().astype(np.int64)
    index, unique = pd.factorize(groups * (int(candidates.max()) + 1) + candidates)
    first = np.full(len(unique), len(frame), dtype=np.int64)
    np.minimum.at(first, index, np.arange(len(frame)))
    return index, first


def _column(frame: pd.DataFrame, label: str, index: np.ndarray, n: int) -> _Column:
    """One component over all outputs: values (NaN where there is none), whether they failed, and why."""
    value, failed, why = np.full(n, np.nan), np.zeros(n, dtype=bool), np.full(n, "", dtype=object)
    own = (frame["verifier"] == label).to_numpy()
    rows, at = frame[own], index[own]
    if (times := np.bincount(at, minlength=n)).max(initial=0) > 1:
        twice = rows.iloc[int(np.flatnonzero(times[at] > 1)[0])]
        raise InputError(
            f"{label!r} scored candidate {twice['candidate']} of group {twice['group']!r} more than once; number the "
            f"candidates of a group, and give the steps of a run groups of their own"
        )
    value[at] = rows["value"].to_numpy().astype(np.float64)
    failed[at] = rows["status"].isin(FAILED).to_numpy()
    why[at] = [f"{label}: {text}" for text in rows["reason"]]
    return value, failed, why


def _moments(value: np.ndarray, here: np.ndarray, groups: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) of every row's group, over the rows that are ``here``."""
    order = np.lexsort((value, groups))  # sums in order of value do not depend on the order of rows, to the last bit
    order = order[here[order]]
    member, known = groups[order], value[order]
    count = np.maximum(np.bincount(member, minlength=n_groups), 1)
    mean = np.bincount(member, known, n_groups) / count
    std = np.sqrt(np.bincount(member, (known - mean[member]) ** 2, n_groups) / count)
    return mean[groups], std[groups]


def _normalised(value: np.ndarray, here: np.ndarray, groups: np.ndarray, n_groups: int, min_std: float) -> np.ndarray:
    mean, std = _moments(value, here, groups, n_groups)
    centred = np.where(here, value - mean, 0.0)
    enough = (std > TIED_STD) & (std >= min_std)
    return np.where(enough, centred / np.where(enough, std, 1.0), 0.0)


def _levelled(value: np.ndarray, here: np.ndarray, groups: np.ndarray, n_groups: int, min_std: float) -> np.ndarray:
    if not min_std > 0:
        return value
    mean, std = _moments(value, here, groups, n_groups)
    return np.where(here & (std < min_std), mean, value)


def component_stats(table: ScoreTable, rubric: Rubric) -> dict[str, float]:
    """What is logged of each component: ``reward/<name>/{mean,std,frac_zero_std,error_rate,invalid_rate}``.

    ``std`` is the mean over groups of the spread within the group, and ``frac_zero_std`` the share of groups without any, or with
    less than ``min_std``: in them the component says nothing of which candidate is better. Every key is always there; NaN where there is nothing to take the mean of.
    """
    out: dict[str, float] = {}
    frame = table.frame
    for component in rubric.components:
        rows = frame[frame["verifier"] == component.label]
        status = rows["status"].to_numpy().astype(str)
        asked = status != Status.NOT_APPLICABLE
        value = rows["value"].to_numpy().astype(np.float64)
        known = ~np.isnan(value)
        spread = pd.Series(value[known]).groupby(rows["group"].to_numpy()[known]).std(ddof=0).to_numpy()
        n = int(asked.sum())
        numbers = {
            "mean": value[known].mean() if known.any() else np.nan,
            "std": spread.mean() if len(spread) else np.nan,
            "frac_zero_std": (spread < max(component.min_std, TIED_STD)).mean() if len(spread) else np.nan,
            "error_rate": np.isin(status, FAILED).sum() / n if n else np.nan,
            "invalid_rate": (status == Status.INVALID_OUTPUT).sum() / n if n else np.nan,
        }
        out.update({f"reward/{component.label}/{key}": float(number) for key, number in numbers.items()})
    return out


ERROR_WINDOW = 200
"""Required scores that the circuit breaker looks back over."""


class CircuitBreaker:
    """Stops a run when too many of the last required scores failed: what is learned from the rest is not the task."""

    def __init__(self, rubric: Rubric) -> None:
        self.rubric = rubric
        self._failed: deque[bool] = deque(maxlen=ERROR_WINDOW)

    def check(self, table: ScoreTable) -> None:
        """Take in the scores of one batch.

        Raises:
            RunStopped: more than ``max_error_rate`` of the last 200 required scores failed.
        """
        required = {
            component.label for component in self.rubric.components if component.required and component.weight > 0
        }
        frame = table.frame
        rows = frame[(frame["verifier"].isin(required) & (frame["status"] != Status.NOT_APPLICABLE)).to_numpy()]
        if rows.empty:
            return
        # Output by output: a table holds component after component, and the last of them must not fill the window alone.
        rows = rows.iloc[np.argsort(_output_index(rows)[0], kind="stable")]
        failed = rows["status"].isin(FAILED).to_numpy()
        history = np.concatenate([np.array(self._failed, dtype=bool), failed])
        self._failed.extend(failed.tolist())
        total = np.concatenate([[0], np.cumsum(history)])
        ends = np.arange(len(history) - len(failed) + 1, len(history) + 1)
        in_window = total[ends] - total[np.maximum(ends - ERROR_WINDOW, 0)]
        # Of a full window, so that one failure at the start does not stop a run.
        over = np.flatnonzero(failed & (in_window > self.rubric.max_error_rate * ERROR_WINDOW))
        if len(over):
            stop = int(over[0])
            last = rows.iloc[stop]  # the failure that was one too many
            raise RunStopped(
                f"{int(in_window[stop])} of the last {min(int(ends[stop]), ERROR_WINDOW)} required scores failed, more than "
                f"the {self.rubric.max_error_rate:.0%} of {ERROR_WINDOW} that max_error_rate allows; the last: "
                f"{last['verifier']} on {last['sample']}: {last['reason']}"
            )

    def state_dict(self) -> list[bool]:
        """What a checkpoint keeps."""
        return list(self._failed)

    def load_state_dict(self, state: Sequence[bool]) -> None:
        """Restore :meth:`state_dict`."""
        self._failed = deque(state, maxlen=ERROR_WINDOW)
