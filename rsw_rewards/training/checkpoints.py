"""Checkpoints that are complete or ignored: the trainer's own (model, optimizer, scheduler, random states) plus the scorer's state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rsw_rewards.errors import ConfigError

MARK = "complete.json"
"""Written last: a checkpoint without it was interrupted."""
STATE = "engine_state.pt"


class CompleteCheckpoint(TrainerCallback):
    """After the trainer wrote a checkpoint, adds the engine's state and then the mark that it is whole.

    Args:
        state: gives the engine's state: tensors, arrays, numbers, strings and containers of them.
    """

    def __init__(self, state: Callable[[], Mapping[str, Any]]) -> None:
        self.state = state

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        torch.save(dict(self.state()), folder / STATE)
        with (folder / MARK).open("w", encoding="utf-8") as mark:
            json.dump({"step": state.global_step}, mark)
            mark.flush()
            os.fsync(mark.fileno())


def last_complete(folder: Path) -> Path | None:
    """The newest whole checkpoint under ``folder``, or None."""
    found = {
        int(path.parent.name.rpartition("-")[2]): path.parent
        for path in Path(folder).glob(f"checkpoint-*/{MARK}")
        if path.parent.name.rpartition("-")[2].isdecimal()
    }
    return found[max(found)] if found else None


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer steps done when a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def engine_state(checkpoint: Path) -> dict[str, Any]:
    """What the engine had put into a checkpoint. Raises :class:`ConfigError` when it cannot be read."""
    try:
        return torch.load(checkpoint / STATE, weights_only=True)
    except Exception as error:
        raise ConfigError(f"the checkpoint {checkpoint} cannot be read: {error}") from error
