"""Other weights over stored scores: what would the rewards, the rankings inside groups and the advantages have been?

Nothing is scored again: a score table holds the values of all components, and a reward is a function of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rsw_rewards.core.rewards import EPSILON, TIED, rewards, tied
from rsw_rewards.core.rubric import Rubric, load_rubric
from rsw_rewards.core.scores import ScoreTable, read_columns
from rsw_rewards.errors import ConfigError, InputError, did_you_mean
from rsw_rewards.rollouts.dumps import check_dump

COLUMNS_READ = ["sample", "group", "candidate", "verifier", "value", "status", "reason"]
"""What rewards depend on; statistics, which make most of a table, are not read."""


@dataclass(frozen=True, slots=True)
class Reweighted:
    """What one weighting makes of a table, beside the weights that were trained with."""

    name: str
    weights: Mapping[str, float]
    mean_reward: float | None
    without_reward: int
    """Outputs that get no reward, because a required component failed."""
    flat_groups: float | None
    """Share of groups of two and more in which all candidates have one reward: they teach nothing."""
    rank_agreement: float | None
    """Kendall's tau-b with the rewards as trained, within groups, averaged over groups where both have spread; -1 to 1."""
    best_changed: float | None
    """Share of those groups whose best candidate is another one."""
    advantage_correlation: float | None
    """Pearson correlation of the advantages, over the outputs of those groups."""
    advantage_change: float | None
    """Mean absolute change of an advantage, in standard deviations of its group."""


def load_table(folder: Path) -> tuple[ScoreTable, Rubric | None]:
    """The scores stored in a folder, and the rubric they were made with where one is found.

    Args:
        folder: what ``rsw score`` wrote, a dump of rollouts, or a training run, of which all dumps are read.

    Raises:
        InputError: the folder holds no scores.
    """
    folder = Path(folder)
    own = folder / "scores.parquet"
    files = (
        [own]
        if own.is_file()
        else [dump / "scores.parquet" for dump in sorted(folder.glob("dumps/*")) if dump.is_dir()]
    )
    if not files:
        raise InputError(
            f"{folder} holds no scores.parquet, and no dumps below dumps/; give the folder of rsw score, of a dump or of a run"
        )
    frames = []
    for number, file in enumerate(files):
        check_dump(file.parent)
        frame = read_columns(file, COLUMNS_READ).to_pandas()
        if len(files) > 1:  # a sample that was drawn in several steps had a group in each
            frame["group"] = f"{number}/" + frame["group"].astype(str)
        frames.append(frame)
    places = [folder / "rubric.yaml", files[0].parent / "rubric.yaml", folder / "config.yaml"]
    known = next((place for place in places if place.is_file()), None)
    return ScoreTable(pd.concat(frames, ignore_index=True)), None if known is None else load_rubric(known)


def full_weights(weights: Mapping[str, float], rubric: Rubric) -> dict[str, float]:
    """The weight of every component of a rubric, 0 for those that are not named. Raises :class:`ConfigError`."""
    full = {component.label: 0.0 for component in rubric.components}
    for label, weight in weights.items():
        if label not in full:
            raise ConfigError(f"the rubric has no component {label!r} to weigh; {did_you_mean(label, full)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise ConfigError(f"the weight of {label!r} must be a number from 0, not {weight!r}")
        full[label] = float(weight)
    if not any(full.values()):
        raise ConfigError(f"the weights {dict(weights)} leave no component with a weight")
    return full


def reweight(table: ScoreTable, rubric: Rubric, weightings: Sequence[Mapping[str, float]]) -> list[Reweighted]:
    """What each weighting would have made of the stored scores; the rubric as it stands comes first, for comparison."""
    own = {component.label: component.weight for component in rubric.components}
    base = rewards(table, rubric)
    groups, names = pd.factorize(base["group"])
    before = base["reward"].to_numpy(np.float64)
    found = [_compared("as trained", own, before, before, groups, len(names))]
    for weights in weightings:
        parts = [part.model_copy(update={"weight": weights.get(part.label, 0.0)}) for part in rubric.components]
        after = rewards(table, rubric.model_copy(update={"components": tuple(parts)}))["reward"].to_numpy(np.float64)
        name = ", ".join(f"{label} {weight:g}" for label, weight in weights.items() if weight)
        found.append(_compared(name, dict(weights), before, after, groups, len(names)))
    return found


def advantages(reward: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Rewards less their group's mean, over its standard deviation (n - 1) plus ``EPSILON``, as GRPO learns from them: (n,) float64.

    NaN where there is no reward; 0 in a group whose rewards are equal up to rounding.
    """
    known = np.isfinite(reward)
    count = np.bincount(groups, known, n_groups)
    mean = np.bincount(groups, np.where(known, reward, 0.0), n_groups) / np.maximum(count, 1)
    centred = np.where(known, reward - mean[groups], np.nan)
    squares = np.bincount(groups, np.where(known, centred, 0.0) ** 2, n_groups)
    low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
    np.minimum.at(low, groups[known], reward[known])
    np.maximum.at(high, groups[known], reward[known])
    spread = np.isfinite(low) & ~tied(np.where(count, low, 0.0), np.where(count, high, 0.0))
    std = np.sqrt(squares / np.maximum(count - 1, 1)) + EPSILON
    return np.where(spread[groups], centred / std[groups], np.where(known, 0.0, np.nan))


def _compared(
    name: str, weights: Mapping[str, float], before: np.ndarray, after: np.ndarray, groups: np.ndarray, n_groups: int
) -> Reweighted:
    both = np.isfinite(before) & np.isfinite(after)
    old, new = (advantages(np.where(both, reward, np.nan), groups, n_groups) for reward in (before, after))
    size = np.bincount(groups, both, n_groups)
    spread = [np.bincount(groups, np.where(both, np.abs(part), 0.0), n_groups) > 0 for part in (old, new)]
    taught = (size > 1) & spread[0] & spread[1]
    rows = np.flatnonzero(both & taught[groups])
    agreement, changed = rankings(before[rows], after[rows], groups[rows])
    usable = len(rows) > 0
    return Reweighted(
        name,
        weights,
        float(np.nanmean(after)) if np.isfinite(after).any() else None,
        int((~np.isfinite(after)).sum()),
        float((~spread[1])[size > 1].mean()) if (size > 1).any() else None,
        float(np.mean(agreement)) if usable else None,
        float(np.mean(changed)) if usable else None,
        float(np.corrcoef(old[rows], new[rows])[0, 1]) if usable else None,
        float(np.abs(old[rows] - new[rows]).mean()) if usable else None,
    )


def rankings(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kendall's tau-b of every group, and whether its best candidate is another one; groups of one size at once."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    taus, changed = [], []
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        first, second = np.triu_indices(int(size), 1)
        signs = []
        for reward in (before[rows], after[rows]):
            gap = reward[:, first] - reward[:, second]
            signs.append(np.where(np.abs(gap) > TIED, np.sign(gap), 0.0))
        norm = np.sqrt(np.abs(signs[0]).sum(1) * np.abs(signs[1]).sum(1))
        taus.append((signs[0] * signs[1]).sum(1) / np.maximum(norm, 1.0))
        best = before[rows].argmax(1)
        there = after[rows][np.arange(len(rows)), best]
        changed.append(there < after[rows].max(1) - TIED)
    return (np.concatenate(taus), np.concatenate(changed)) if taus else (np.zeros(0), np.zeros(0))


def reweight_scores(table: ScoreTable, rubric: Rubric, weightings: Sequence[Mapping[str, float]]) -> list[Reweighted]:
    """:func:`reweight` with components that are not named weighing 0.

    Raises:
        ConfigError: the table lacks a component of the rubric, or the weights do not fit it.
    """
    known = set(table.names)
    if missing := [part.label for part in rubric.components if part.label not in known]:
        raise ConfigError(f"there are no scores of {', '.join(missing)}, which the rubric names")
    return reweight(table, rubric, [full_weights(weights, rubric) for weights in weightings])
