"""How scores become one reward per output, as pure functions.

Rewards can be computed again from stored scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FAILED = (Status.ERROR, Status.TIMEOUT)
"""Statuses that are our fault: no value, and never a zero."""


KEYS = ["group", "candidate"]
"""What tells the outputs of a table apart."""
TIED = 1e-6
"""Spread within a group, relative to 1 and to the values, up to which values are equal. Rounding in float32 leaves less."""
EPSILON = 1e-4
"""Added to the standard deviation that a component is divided by, as in GDPO: a spread of this size has half a say, a smaller one less."""
NOTHING_KNOWN = "no component has a value for this output's whole group"


def tied(low: Any, high: Any) -> Any:
    """Whether values between ``low`` and ``high`` are equal up to rounding, element by element for arrays and tensors of floats.

    What rounding leaves of equal values has one sign for a whole group. Divided by its own size, or by Adam's estimate of it, it
    would be learnt from like any other difference.

    >>> tied(0.7, 0.7000001), tied(1e6, 1e6 + 0.0625), tied(0.7, 0.70001)
    (True, True, False)
    """
    return high - low <= TIED * (1 + abs(low) + abs(high))


class Column(NamedTuple):
    """What one component says of all outputs."""

    value: np.ndarray
    """(n,) float64, NaN where the component has no value: failed, not applicable, not asked."""
    failed: np.ndarray
    """(n,) bool."""
    why: np.ndarray
    """(n,) object: why it failed; the empty text elsewhere."""

    @classmethod
    def of(cls, label: str, scores: Sequence[Score | None]) -> Column:
        """The column of scores that stand in the order of the outputs; None where the component was not asked."""
        return cls(
            np.array([np.nan if score is None or score.value is None else score.value for score in scores], np.float64),
            np.array([score is not None and score.status in FAILED for score in scores], bool),
            np.array(
                [f"{label}: {score.reason}" if score and score.status in FAILED else "" for score in scores], object
            ),
        )


def combined(rubric: Rubric, columns: Mapping[str, Column], groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reward of every output, (n,) float64 with NaN for none, and the reason where there is none, (n,) object.

    The only place where rewards are computed, for tables and for single calls alike. Sums run over the components in the order
    of the rubric, and within a group in the order of the values, so that no other order has a say in the last bit.

    An output is left out, with NaN for its reward, where a required component of weight above 0 failed or where nothing but
    failures is known of it (a lost rollout). Outputs that are left out have no say in the rewards of their group.

    ``weighted_sum``: ``sum(w v) / sum(w)`` over the components that have a value for every output of the group.
    ``normalize_each`` (GDPO, arXiv 2601.05242): each component is brought to ``z = (v - mean) / (std + EPSILON)`` within its group
    (ddof 0), then ``sum(w z) / sqrt(sum(w^2))`` over the same components. Such rewards are not in [0, 1]. They have a standard
    deviation of 1 whatever the number of components, as long as these are uncorrelated, so that tasks with many components
    and tasks with few weigh alike in a batch.
    Under both, a group in which a component spreads less than its ``min_std`` has no spread in it, and one in which the reward
    spreads less than the rubric's has its mean for every output.

    Args:
        rubric: the components and how they are combined.
        columns: what each component says, by its label; all of n outputs.
        groups: (n,) int64, the number of every output's group, from 0.
    """
    n, n_groups = len(groups), int(groups.max(initial=-1)) + 1
    weighty = [component for component in rubric.components if component.weight > 0]
    gated = [_gated(component, columns) for component in weighty]

    left_out, any_failed, any_value = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    reason, optional_reason = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    for component, (value, failed, why) in zip(weighty, gated, strict=True):
        any_value |= ~np.isnan(value)
        if not failed.any():
            continue
        if component.required:
            reason = np.where(failed & (reason == ""), why, reason)
            left_out |= failed
        optional_reason = np.where(failed & (optional_reason == ""), why, optional_reason)
        any_failed |= failed
    unknown = any_failed & ~any_value
    reason = np.where(unknown & (reason == ""), optional_reason, reason)
    left_out |= unknown

    each = rubric.combine == "normalize_each"
    total, mass = np.zeros(n), np.zeros(n)
    for component, (value, _, _) in zip(weighty, gated, strict=True):
        absent = np.bincount(groups, np.isnan(value) & ~left_out, n_groups) > 0
        here = ~absent[groups] & ~left_out
        spread = _normalised if each else _levelled
        value = spread(value, here, groups, n_groups, component.min_std)
        total[here] += component.weight * value[here]
        mass[here] += component.weight**2 if each else component.weight
    known = ~left_out & (mass > 0)
    reward = np.full(n, np.nan)
    np.divide(total, np.sqrt(mass) if each else mass, out=reward, where=known)
    reason = np.where(~left_out & ~known, NOTHING_KNOWN, reason)
    return _levelled(reward, known, groups, n_groups, rubric.min_std), reason


def rewards(table: ScoreTable, rubric: Rubric) -> pd.DataFrame:
    """One reward per output of a table, by :func:`combined`; the order of the table's rows has no say in them.

    Returns:
        Columns ``sample``, ``group``, ``candidate``, ``reward`` and ``reason``, one row per output in the order in which outputs
        first stand in the table.

    Raises:
        InputError: a component scored an output twice, so that it is not known which score counts.
    """
    import pandas as pd

    frame = table.frame
    if frame.empty:
        return pd.DataFrame(columns=["sample", "group", "candidate", "reward", "reason"])
    index, first = output_index(frame)
    outputs = frame.iloc[first][["sample", "group", "candidate"]].reset_index(drop=True)
    columns = {component.label: _column(frame, component.label, index, len(first)) for component in rubric.components}
    outputs["reward"], outputs["reason"] = combined(rubric, columns, pd.factorize(outputs["group"])[0])
    return outputs


def _gated(component: Component, columns: Mapping[str, Column]) -> Column:
    """The column of a component after its gate."""
    value, failed, why = column = columns[component.label]
    if component.gate is None:
        return column
    opener, gate_failed, gate_why = columns[component.gate.component]
    asked = ~np.isnan(value)
    value = np.where(
        asked & (opener < component.gate.at_least), 0.0, value
    )  # no value of the gate's compares as smaller
    value = np.where(gate_failed, np.nan, value)
    return Column(value, failed | (gate_failed & asked), np.where(failed, why, gate_why))


def output_index(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(number of the output of every row, first row of every output), outputs numbered by first appearance."""
    import pandas as pd

    groups = pd.factorize(frame["group"])[0].astype(np.int64)
    candidates = frame["candidate"].to_numpy().astype(np.int64)
    index, unique = pd.factorize(groups * (int(candidates.max()) + 1) + candidates)
    first = np.full(len(unique), len(frame), dtype=np.int64)
    np.minimum.at(first, index, np.arange(len(frame)))
    return index, first


def _column(frame: pd.DataFrame, label: str, index: np.ndarray, n: int) -> Column:
    """One component over all outputs of a table."""
    column = Column(np.full(n, np.nan), np.zeros(n, dtype=bool), np.full(n, "", dtype=object))
    own = (frame["verifier"] == label).to_numpy()
    rows, at = frame[own], index[own]
    if (times := np.bincount(at, minlength=n)).max(initial=0) > 1:
        twice = rows.iloc[int(np.flatnonzero(times[at] > 1)[0])]
        raise InputError(
            f"{label!r} scored candidate {twice['candidate']} of group {twice['group']!r} more than once; number the "
            f"candidates of a group, and give the steps of a run groups of their own"
        )
    failed = rows["status"].isin(FAILED).to_numpy()
    column.value[at] = rows["value"].to_numpy().astype(np.float64)
    column.failed[at] = failed
    column.why[at[failed]] = [f"{label}: {text}" for text in rows["reason"][failed]]
    return column


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
    enough = ~tied(mean - std, mean + std) & (std >= min_std)
    return np.where(enough, centred / (std + EPSILON), 0.0)


def _levelled(value: np.ndarray, here: np.ndarray, groups: np.ndarray, n_groups: int, min_std: float) -> np.ndarray:
    if not min_std > 0:
        return value
    mean, std = _moments(value, here, groups, n_groups)
    return np.where(here & (std < min_std), mean, value)
