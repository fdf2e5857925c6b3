"""Where the numbers of a training go beside ``log.jsonl``: TensorBoard in the folder of the run, trackio, Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from rsw_rewards.core.files import write_text
from rsw_rewards.core.plugins import raised
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.shown_rollouts import Rewards, strips, texts

Tracker = Literal["tensorboard", "trackio", "wandb"]
PROJECT = "rsw_rewards"
"""What the run's project is called at trackio and Weights & Biases; the variable ``WANDB_PROJECT`` names another for the latter."""
WANDB_ID = "wandb_id"
"""File of a run's folder: the name by which Weights & Biases knows the run, also when it goes on."""


def check_trackers(names: Collection[Tracker]) -> None:
    """Import the packages of trackers. Raises :class:`ConfigError` where one cannot be imported."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"log names {name!r}, whose package cannot be imported ({error}): pip install {name}"
            ) from None


class Trackers:
    """The trackers of a run.

    Args:
        names: which.
        folder: the run directory, by whose name the run goes.
        resume_at: steps that were told before.

    Raises:
        ConfigError: a tracker's package is not installed, or it does not start.
    """

    def __init__(self, names: Collection[Tracker], folder: Path, resume_at: int = 0) -> None:
        check_trackers(names)
        self._board: Any = None
        self._services: list[Any] = []
        if "tensorboard" in names:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)
        for name in names:
            if name != "tensorboard":
                service = import_module(name)
                try:
                    service.init(name=folder.resolve().name, resume="allow", **_place(name, folder))
                except Exception as error:
                    raise ConfigError(
                        f"log names {name!r}, which does not start: {raised(error)}; mend that, or take it out of 'log'"
                    ) from error
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


def _place(name: str, folder: Path) -> dict[str, str]:
    """What a service is told of the run's place."""
    if name != "wandb":
        return {"project": PROJECT}
    file = folder / WANDB_ID
    if not file.is_file():
        write_text(file, uuid.uuid4().hex)
    return {"project": os.environ.get("WANDB_PROJECT", PROJECT), "id": file.read_text(encoding="utf-8").strip()}
