"""Where the numbers of a training go beside ``log.jsonl``: TensorBoard in the folder of the run, trackio, Weights & Biases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.shown_rollouts import Rewards, strips, texts

Tracker = Literal["tensorboard", "trackio", "wandb"]
PROJECT = "rsw_rewards"
"""What the run's project is called at trackio and Weights & Biases, whose own environment variables name another."""


class Trackers:
    """The trackers of a run.

    Args:
        names: which.
        folder: the run directory, by whose name the run goes.
        resume_at: steps that were told before.

    Raises:
        ConfigError: a tracker's package is not installed.
    """

    def __init__(self, names: Collection[Tracker], folder: Path, resume_at: int = 0) -> None:
        self._board: Any = None
        self._services: list[Any] = []
        if "tensorboard" in names:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)
        for name in names:
            if name != "tensorboard":
                try:
                    service = import_module(name)
                except ImportError as error:
                    raise ConfigError(
                        f"log names {name!r}, whose package cannot be imported ({error}): pip install {name}"
                    ) from None
                service.init(project=PROJECT, name=folder.name, resume="allow")
                self._services.append(service)

    def numbers(self, step: int, numbers: Mapping[str, float | None]) -> None:
        """Tell the numbers of a step; None is left out."""
        known = {key: value for key, value in numbers.items() if value is not None}
        if self._board is not None:
            for key, value in known.items():
                self._board.add_scalar(key, value, step)
        for service in self._services:
            service.log(known, step=step)

    def rollouts(self, step: int, samples: Sequence[Sample], outputs: Sequence[Output], rewards: Rewards) -> None:
        """Put a few rollouts of a step into TensorBoard: texts under ``rollouts/<task>``, forecasts as strips under ``rollouts/forecast/<n>``."""
        if self._board is None:
            return
        for task, table in texts(samples, outputs, rewards).items():
            self._board.add_text(f"rollouts/{task}", table, step)
        for place, strip in enumerate(strips(samples, outputs), start=1):
            self._board.add_image(f"rollouts/forecast/{place}", strip, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left, and end the run at each."""
        if self._board is not None:
            self._board.close()
        for service in self._services:
            service.finish()
