"""Verifiers that misbehave on the outputs whose text says so. Named by file in tests, as a user would."""

from __future__ import annotations

import os
import signal
import time

from rsw_rewards.contracts import Batch, Card, Verifier, verifier
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scores import Score

CARD = Card("For tests.", "[0, 1]", "none", "tests", "none")


@verifier(tasks={"change_qa"})
def length(sample: Sample, output: Output) -> float:
    """One over the length of the answer."""
    return 1 / (1 + len(output.text or ""))


class Faulty(Verifier):
    """Misbehaves when it meets the word of a misbehaviour; otherwise 0.5."""

    name = "faulty"
    tasks = frozenset({Task.CHANGE_QA})
    card = CARD

    def score(self, batch: Batch) -> list[Score]:
        scores = []
        for output in batch.outputs:
            match output.text:
                case "raise":
                    raise RuntimeError("the raster server is away")
                case "nan":
                    scores.append(Score(float("nan")))
                case "none":
                    scores.append(None)  # type: ignore[arg-type]
                case "drop":
                    pass
                case "sleep":
                    time.sleep(3600)
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case _:
                    scores.append(Score(0.5, raw={"x": 0.5}))
        return scores


class GroupSize(Verifier):
    """The share of a group of four that came together, which only whole groups make 1."""

    name = "group_size"
    tasks = frozenset({Task.CHANGE_QA})
    scope = "group"
    card = CARD

    def score(self, batch: Batch) -> list[Score]:
        return [Score(min(1.0, list(batch.groups).count(group) / 4)) for group in batch.groups]
