"""Verifiers that misbehave on the outputs whose text says so. Named by file in tests, as a user would."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping

from rsw_rewards import verifier
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Card, Context, Verifier
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.images import read_mask

CARD = Card("For tests.", "[0, 1]", "none", "tests", "none")


@verifier(tasks={"change_qa"})
def length(sample: Sample, output: Output) -> float:
    """One over the length of the answer."""
    return 1 / (1 + len(output.text or ""))


class Locked(dict[str, float]):
    """Numbers that a table can hold and that cannot be pickled."""

    def __init__(self, **numbers: float) -> None:
        super().__init__(numbers)
        self.lock = threading.Lock()


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
                case "skip":
                    scores.append(Score.not_applicable("no such question"))
                case "sleep":
                    time.sleep(3600)
                case "stuck":
                    scores.append(Score(0.5, raw=Locked(x=0.5)))
                case "exit":
                    sys.exit(3)
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case _:
                    scores.append(Score(0.5, raw={"x": 0.5}))
        return scores


class FaultyNetwork(Faulty):
    """As :class:`Faulty`, but asked about the outputs of many callers at once; good outputs are worth one over their length."""

    needs = frozenset({"network"})

    def score(self, batch: Batch) -> list[Score]:
        time.sleep(0.05)  # so that callers meet
        return [
            Score(1 / len(output.text or " "), raw={"batch": float(len(batch))})
            if score and score.value == 0.5
            else score
            for score, output in zip(super().score(batch), batch.outputs, strict=True)
        ]


class Process(Faulty):
    """As :class:`Faulty`; good outputs say which process looked at them."""

    def score(self, batch: Batch) -> list[Score]:
        pid = float(os.getpid())
        return [
            Score(0.5, raw={"x": 0.5, "process": pid}) if one.raw == {"x": 0.5} and type(one.raw) is dict else one
            for one in super().score(batch)
        ]


class Thread(Faulty):
    """Says which thread it runs in."""

    def score(self, batch: Batch) -> list[Score]:
        return [Score(1.0, raw={"thread": float(threading.get_ident())})] * len(batch)


class BatchSize(Faulty):
    """The size of the batch in hundreds of outputs."""

    scope = "population"
    needs = frozenset({"network"})

    def score(self, batch: Batch) -> list[Score]:
        return [Score(len(batch) / 100)] * len(batch)


class GroupSize(Verifier):
    """The share of a group of four that came together, which only whole groups make 1."""

    name = "group_size"
    tasks = frozenset({Task.CHANGE_QA})
    scope = "group"
    card = CARD

    def score(self, batch: Batch) -> list[Score]:
        return [Score(min(1.0, list(batch.groups).count(group) / 4)) for group in batch.groups]


class NoWeights(Faulty):
    """Cannot be set up."""

    def setup(self, context: Context) -> None:
        raise ConfigError("the weights are not there")


class DiesInSetup(Faulty):
    """Takes its process with it before it can score."""

    def setup(self, context: Context) -> None:
        os._exit(1)


class Remembers(Faulty):
    """Scores by how many batches it has observed."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.seen = 0

    def score(self, batch: Batch) -> list[Score]:
        return [Score(min(1.0, self.seen / 10))] * len(batch)

    def observe(self, batch: Batch) -> None:
        self.seen += 1

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen} if self.seen else {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.seen = state["seen"]


class BadInvalid(Faulty):
    """Fails on the outputs that nothing looks at."""

    def invalid(self, sample: Sample, reason: str) -> Score:
        raise RuntimeError("no such statistic")


@verifier(tasks={"change_mask"})
def changed_share(sample: Sample, output: Output) -> float:
    """The share of changed pixels."""
    assert output.mask is not None
    return float(read_mask(output.mask).mean())


@verifier(tasks={"change_qa"})
def slow(sample: Sample, output: Output) -> float:
    """A tenth of a second for each output."""
    time.sleep(0.1)
    return 0.5
