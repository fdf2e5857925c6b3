"""What the trainings of the small shipped models share: settings, scenes held in memory, the rate and the update of a step."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from rsw_rewards.core.settings import Strict
from rsw_rewards.data.scene_world import Scene, make_scene, split_seed


class SmallConfig(Strict):
    """What every configuration of a small model has."""

    out: Path
    seed: int = 0
    scenes: PositiveInt
    held_out: PositiveInt
    """Unseen scenes that the result is measured on."""
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: float
    log_every: PositiveInt = 100


def steps(
    config: SmallConfig, optimiser: torch.optim.Optimizer, rate: Callable[[int], float], first: int = 0
) -> Iterator[int]:
    """The numbers of the steps from ``first`` on, each under the learning rate times ``rate`` of its number."""
    for step in range(first, config.steps + first):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate(step)
        yield step


def update(model: torch.nn.Module, optimiser: torch.optim.Optimizer, loss: Any) -> None:
    """One step along the gradient of ``loss``, whose norm is cut at 1."""
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


@dataclass(frozen=True)
class Pairs:
    """Pictures and maps of n scenes, in order of their index.

    Attributes:
        before, after: (n, 64, 64, 3) uint8.
        material_before, material_after: (n, 64, 64) uint8.
        mask: (n, 64, 64) bool.
        scenes: the scenes without their arrays' copies; texts, questions and metadata are read from here.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    material_before: NDArray[np.uint8]
    material_after: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    scenes: tuple[Scene, ...]


def _make(job: tuple[int, int, int]) -> list[Scene]:
    seed, first, last = job
    return [make_scene(seed, index) for index in range(first, last)]


def make_pairs(split: str, n: int, seed: int = 0, workers: int = 2, chunk: int = 250) -> Pairs:
    """Makes the first ``n`` scenes of a split; the result does not depend on ``workers`` or ``chunk``."""
    jobs = [(split_seed(split, seed), first, min(first + chunk, n)) for first in range(0, n, chunk)]
    if workers > 1 and len(jobs) > 1:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            scenes = [scene for part in pool.map(_make, jobs) for scene in part]
    else:
        scenes = [scene for job in jobs for scene in _make(job)]
    return Pairs(
        before=np.stack([s.before for s in scenes]),
        after=np.stack([s.after for s in scenes]),
        material_before=np.stack([s.material_before for s in scenes]),
        material_after=np.stack([s.material_after for s in scenes]),
        mask=np.stack([s.mask for s in scenes]),
        scenes=tuple(scenes),
    )
