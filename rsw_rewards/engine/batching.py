"""Calls of several threads made one: what an encoder costs for sixteen outputs is little more than what it costs for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple

from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch

Scores = Sequence["Score | None"]


class _Call(NamedTuple):
    batch: Batch
    answer: Future[Scores]


class Batcher:
    """Answers calls from any thread in one thread of its own, those that come close together as one batch.

    Groups of different calls must have different names, because calls are joined and groups stay apart by their names.

    Args:
        run: scores of a batch, one per row.
        window_ms: milliseconds that a call waits for others; 0 joins only what came while the one before it was answered.
        size: outputs in a batch from which no more calls are waited for.
        name: of the thread.
    """

    def __init__(self, run: Callable[[Batch], Scores], window_ms: float, size: int, name: str) -> None:
        self._run, self._window, self._size = run, window_ms / 1e3, size
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> Future[Scores]:
        """The scores of a batch, as soon as they are there. Raises ``RuntimeError`` after :meth:`close`."""
        call = _Call(batch, Future())
        with self._closing:
            if self._closed:
                raise RuntimeError("what was closed gives no more scores")
            self._calls.put(call)
        return call.answer

    def _work(self) -> None:
        while (first := self._calls.get()) is not None:
            calls, rows = [first], len(first.batch)
            until = time.monotonic() + self._window
            while rows < self._size:
                try:
                    call = self._calls.get(timeout=max(0.0, until - time.monotonic()))
                except Empty:
                    break
                if call is None:
                    self._calls.put(None)  # closed: these are the last
                    break
                calls.append(call)
                rows += len(call.batch)
            self._answer([call for call in calls if call.answer.set_running_or_notify_cancel()])

    def _answer(self, calls: Sequence[_Call]) -> None:
        if not calls:
            return
        try:
            scores = self._run(_joined([call.batch for call in calls]))
        except BaseException as error:  # each caller is told, and the next calls are answered
            for call in calls:
                call.answer.set_exception(error)
            return
        start = 0
        for call in calls:
            end = start + len(call.batch)
            call.answer.set_result(scores[start:end])
            start = end

    def close(self) -> None:
        """Answer what was asked, and stop."""
        with self._closing:
            self._closed = True
            self._calls.put(None)
        self._thread.join()


def _joined(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(
        [sample for batch in batches for sample in batch.samples],
        [output for batch in batches for output in batch.outputs],
        [group for batch in batches for group in batch.groups],
    )
