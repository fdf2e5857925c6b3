"""Checkpoints that are complete or ignored: the learner's state (model, optimizer, ...) plus the scorer's.

Whatever wrote the learner's part, TRL's trainer or :func:`write_checkpoint`, the scorer's part and the mark are the same, and
so is how a run finds where to go on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rsw_rewards.rollouts.trained import (
    DAMAGED,
    LEARNER,
    MARK,
    complete_checkpoints,
    damage_of,
    mark_complete,
)
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.processes import Processes

STATE = "engine_state.pt"
"""What the engine keeps in a checkpoint, beside the learner."""
_log = logging.getLogger("rsw_rewards")


class CompleteCheckpoint(TrainerCallback):
    """After the trainer wrote a checkpoint, adds the engine's state and then the mark that it is whole.

    Args:
        collector: has the engine's state: tensors, arrays, numbers, strings and containers of them. In the first process only.
        processes: the learner processes, each of which writes random states of its own before the mark is set.
    """

    def __init__(self, collector: Collector | None, processes: Processes) -> None:
        self.collector, self.processes = collector, processes

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.processes.wait()
        if self.collector is not None:
            step = state.global_step
            _complete(Path(args.output_dir) / f"checkpoint-{step}", step, self.collector.state_dict())


def write_checkpoint(
    folder: Path, step: int, learner: Mapping[str, Any], engine: Mapping[str, Any], keep: int | None
) -> None:
    """Write ``folder/checkpoint-<step>`` and delete the oldest ones.

    Args:
        folder: where the checkpoints of the run lie.
        step: steps done.
        learner: all that the learner needs to go on: tensors, numbers, strings and containers of them.
        engine: the same of scoring.
        keep: how many whole checkpoints stay; None keeps all.
    """
    checkpoint = Path(folder) / f"checkpoint-{step}"
    shutil.rmtree(checkpoint, ignore_errors=True)  # left by a run that was interrupted while it wrote this
    checkpoint.mkdir(parents=True)
    torch.save(dict(learner), checkpoint / LEARNER)
    _complete(checkpoint, step, engine)
    whole = complete_checkpoints(Path(folder))
    for old in sorted(whole)[: -keep if keep else 0]:
        (whole[old] / MARK).unlink()  # first, so that a half-deleted one counts as what it is
        shutil.rmtree(whole[old], ignore_errors=True)


def _complete(checkpoint: Path, step: int, engine: Mapping[str, Any]) -> None:
    torch.save(dict(engine), checkpoint / STATE)
    mark_complete(checkpoint, step)


def last_complete(folder: Path) -> Path | None:
    """The newest whole checkpoint under ``folder``, or None.

    Damaged ones are warned of and left out: they lose their mark, so that the steps made again write over them.
    """
    for _, checkpoint in sorted(complete_checkpoints(Path(folder)).items(), reverse=True):
        if not (damage := damage_of(checkpoint)):
            return checkpoint
        _log.warning(
            "the checkpoint %s is damaged and left out: %s; going on from the one before it", checkpoint, damage
        )
        (checkpoint / MARK).replace(checkpoint / DAMAGED)
    return None


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer steps done when a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])
