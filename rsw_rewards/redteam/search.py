"""Attacks by search, which see nothing of a rubric but its rewards: small changes of a copy that were kept where they earned more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_rgb
from rsw_rewards.redteam.kit import Attack, Pool
from rsw_rewards.rollouts.baselines.base import in_memory, is_raster, whole_future
from rsw_rewards.rollouts.baselines.pictures import newest

ROUNDS, CHILDREN = 5, 4
FIELDS = 8
"""Fields on a side, each of which has one change of colour."""
Pay = Callable[[Sequence[Sample], Sequence[Sequence[Output]]], np.ndarray]
"""Samples, and the candidates of each (equally many) -> (samples, candidates) rewards, NaN for none."""


def search_attacks(pool: Pool, pay: Pay, levels: Sequence[int] = (24,)) -> list[Attack]:
    """Evolution of changes in an 8 x 8 grid over the newest input, each at most so many grey levels."""
    if pool.task is not Task.FORECAST:
        return []
    about = f"the newest input, changed in {FIELDS} x {FIELDS} fields by {ROUNDS} rounds of evolution on the reward"
    return [Attack(f"evolution, {reach} levels", "search", _evolved(pool, pay, reach), about) for reach in levels]


def _evolved(pool: Pool, pay: Pay, reach: int) -> Callable[[Sequence[Sample]], list[Output | None]]:
    def make(samples: Sequence[Sample]) -> list[Output | None]:
        copies = {sample.id: pixels for sample in samples if (pixels := _copy(sample)) is not None}
        fit = [sample for sample in samples if sample.id in copies]
        if not fit:
            return [None] * len(samples)
        chances = [pool.noise(sample, f"evolution {reach}") for sample in fit]
        best = [np.zeros((FIELDS, FIELDS, 3)) for _ in fit]
        for _ in range(ROUNDS):
            broods = [
                [parent, *(_child(parent, chance, reach) for _ in range(CHILDREN))]
                for parent, chance in zip(best, chances, strict=True)
            ]
            outputs = [
                [_drawn(sample, copies[sample.id], change) for change in brood]
                for sample, brood in zip(fit, broods, strict=True)
            ]
            rewards = np.nan_to_num(pay(fit, outputs), nan=-np.inf)
            best = [brood[int(row.argmax())] for brood, row in zip(broods, rewards, strict=True)]
        made = {sample.id: _drawn(sample, copies[sample.id], change) for sample, change in zip(fit, best, strict=True)}
        return [made.get(sample.id) for sample in samples]

    return make


def _copy(sample: Sample) -> np.ndarray | None:
    try:
        if not sample.images or is_raster(sample, newest(sample)):
            return None
        return read_rgb(newest(sample))
    except ImageError:
        return None


def _child(parent: np.ndarray, chance: np.random.Generator, reach: int) -> np.ndarray:
    changed = chance.random(parent.shape[:2]) < 0.25
    moved = parent + changed[..., None] * chance.normal(0, reach / 2, parent.shape)
    return np.asarray(np.clip(moved, -reach, reach))


def _drawn(sample: Sample, copy: np.ndarray, change: np.ndarray) -> Output:
    rows, columns = (np.arange(side) * FIELDS // side for side in copy.shape[:2])
    drawn = copy.astype(np.float64) + change[rows][:, columns]
    return whole_future(sample, in_memory(np.clip(np.rint(drawn), 0, 255).astype(np.uint8)))
