"""CircuitBreaker: stops a run whose verifiers fail too often."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from rsw_rewards.core.rewards import FAILED, output_index
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.errors import RunStopped

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
        rows = rows.iloc[np.argsort(output_index(rows)[0], kind="stable")]
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
