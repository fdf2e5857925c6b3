"""What a run says while it runs: every number of every step in ``log.jsonl`` and its trackers, a few of them on the console."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from rsw_rewards.errors import InputError
from rsw_rewards.training.log_rows import append_row, keep_until, read_log
from rsw_rewards.training.report.page import LivePage
from rsw_rewards.training.trackers import Tracker, Trackers

_COLUMNS = ("step", "s/step", "reward", "entropy", "grad", "waiting")


def say(line: str, style: str | None = None) -> None:
    """Print one line, whatever the width of the terminal."""
    Console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class RunLog(TrainerCallback):
    """Collects the numbers of a step from the trainer and from :meth:`add`, and writes them once the trainer logs.

    Args:
        folder: the run directory.
        tasks: tasks whose mean reward has a column of its own.
        steps: length of the run, for the console.
        every: console lines are means over this many steps.
        trackers: who else is told.
        resume_at: steps already logged that stay; later ones come from a run that was interrupted and are dropped.

    Raises:
        InputError: the log is damaged, or does not hold the steps that stay.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[str],
        steps: int,
        every: int,
        trackers: Collection[Tracker] = (),
        resume_at: int = 0,
    ) -> None:
        self.path = Path(folder) / "log.jsonl"
        self.tasks = list(tasks)
        self.steps = steps
        self.every = every
        self._pending: dict[str, float | None] = {}
        self._recent: deque[dict[str, float | None]] = deque(maxlen=every)
        self._header = False
        self._first: tuple[int, float] = (0, 0.0)
        keep_until(self.path, resume_at)
        if [row["step"] for row in read_log(self.path)] != list(range(1, resume_at + 1)):
            raise InputError(
                f"{self.path} lacks some of the {resume_at} steps that were done; bring the file back from a copy, or start another run"
            )
        self._page = LivePage(Path(folder), say)
        self.trackers = Trackers(trackers, Path(folder), resume_at)

    def add(self, numbers: Mapping[str, float | None]) -> None:
        """Numbers of the step that is under way. None (nothing to measure) is written as null."""
        self._pending.update(numbers)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "loss" not in logs:  # the summary at the end of training
            return
        self.write(state.global_step, logs)

    def write(self, step: int, logs: Mapping[str, Any]) -> None:
        """Write a step's numbers: those of the learner and what :meth:`add` collected."""
        numbers: dict[str, float | None] = {
            key: float(value) if value is not None and math.isfinite(value) else None
            for key, value in {**logs, **self._pending}.items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        }
        self._pending = {}
        append_row(self.path, {"step": step, **numbers})
        self.trackers.numbers(step, numbers)
        self._recent.append(numbers)
        if not self._first[0]:
            self._first = step, time.monotonic()
        if step % self.every == 0 or step in (1, self.steps):
            self._line(step)
        self._page.refresh()

    def _line(self, step: int) -> None:
        names = [*_COLUMNS[:3], *(f"r/{task}" for task in self.tasks), *_COLUMNS[3:], "failed", "left"]
        if not self._header:
            say(" ".join(f"{name[:17]:>{_width(name)}}" for name in names), style="bold")
            self._header = True
        cells = [
            f"{step:d}/{self.steps}",
            _number(self._mean("step_time", "time/generation"), 2),
            _number(self._mean("reward"), 3),
            *(_number(self._mean(f"reward_task/{task}"), 3) for task in self.tasks),
            _number(self._mean("entropy"), 3),
            _number(self._mean("grad_norm"), 2),
            _number(self._mean("time/exposed_share"), 3),
            _number(self._mean("failed"), 0),
            self._left(step),
        ]
        say(" ".join(f"{cell:>{_width(name)}}" for name, cell in zip(names, cells, strict=True)))

    def _left(self, step: int) -> str:
        """What the steps that are left will take, if they take as long as those since the first that was written."""
        if step == self._first[0]:
            return "-"
        left = (time.monotonic() - self._first[1]) / (step - self._first[0]) * (self.steps - step)
        return f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"

    def _mean(self, *keys: str) -> float | None:
        """The first key that was measured, averaged over the steps since the last line."""
        for key in keys:
            values = [value for row in self._recent if (value := row.get(key)) is not None]
            if values:
                return sum(values) / len(values)
        return None

    def close(self) -> None:
        self.trackers.close()


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _width(name: str) -> int:
    return max(8, min(len(name), 17))
