"""What scoring beside generation saves, and what a second rollout actor brings; prints JSON.

One rollout actor draws forecasts with the shipped world model, one scoring actor runs a verifier that uses up processor time,
half as much as generation takes. Generations are made and scored one after the other and, as training does it, group by group;
the two take turns, so that other load on the machine falls on both. Wants two processors that nothing else uses.

python benchmarks/overlap.py [--prompts 8] [--group 4] [--chunk 1] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from rsw_rewards.config import RunConfig
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.rollouts.policies import TokenWorldModelPolicy
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.runlog import RunLog


class Busy(Verifier):
    """Works for a given processor time on every output, with the pixels in hand."""

    name: ClassVar[str] = "busy"
    tasks = frozenset({Task.FORECAST})

    class Config(BaseModel):
        seconds: float = 0.0
        """Processor time per output."""

    config: Config

    def score(self, batch: Batch) -> list[Score]:
        return [self._one(batch, row) for row in range(len(batch))]

    def _one(self, batch: Batch, row: int) -> Score:
        image = batch.outputs[row].image
        assert image is not None
        brightness = float(image.pixels().mean() / 255)
        end = time.process_time() + self.config.seconds
        while time.process_time() < end:
            sum(range(2000))
        return Score(brightness, raw={"brightness": brightness})


def generate(pool: RolloutPool, samples: Sequence[Sample], group: int, step: int) -> float:
    """Seconds of one generation that nobody scores."""
    start = time.perf_counter()
    list(pool.generate(samples, group, step=step))
    return time.perf_counter() - start


def overlap(path: str, prompts: int, group: int, chunk: int, repeats: int) -> dict[str, float]:
    """Seconds of a generation and its scores, one after the other and side by side."""
    samples = scene_world_samples(prompts, split="dev", tasks=("forecast",))
    policy = TokenWorldModelPolicy(path)
    policy.setup("cpu", 1)
    with RolloutPool(TokenWorldModelPolicy(path), actors=1, chunk=chunk, threads=1) as pool:
        generate(pool, samples, group, 0)
        alone = statistics.median(generate(pool, samples, group, step) for step in range(repeats))
        each = alone / 2 / (prompts * group)
        rubric = parse_rubric(
            {"components": [{"use": f"{Path(__file__)}:Busy", "config": {"seconds": each}}]}, "rubric"
        )
        with Scorer(rubric, workers=1) as scorer, tempfile.TemporaryDirectory() as folder:
            config = RunConfig.model_validate(
                {
                    "out": folder,
                    "policy": {"use": "token_world_model", "path": path},
                    "train": {"source": "scene-world"},
                    "rubric": rubric.dump(),
                    "grpo": {"prompts": prompts, "group": group},
                    "rollouts": {"actors": 1, "chunk": chunk},
                    "scoring": {"actors": 1},
                }
            )
            log = RunLog(Path(folder), ["forecast"], repeats, repeats, trackers=())
            collector = Collector(config, samples, scorer, pool, log)
            ids = [sample.id for sample in samples]
            serial, beside, exposed, scoring = [], [], [], []
            for step in range(repeats + 1):
                start = time.perf_counter()
                outputs = [output for made in pool.generate(samples, group, step=step) for output in made]
                made = time.perf_counter()
                scorer.score(Batch.of(samples, outputs))
                end = time.perf_counter()
                before = collector.clock.generation, collector.clock.exposed
                collector.collect(ids, step, trained_weights(policy.model))
                generation = collector.clock.generation - before[0]
                waited = collector.clock.exposed - before[1]
                if step:  # the first one starts the scoring actor
                    serial.append(end - start)
                    scoring.append(end - made)
                    beside.append(generation + waited)
                    exposed.append(waited)
            collector.close()
    return {
        "generation_s": round(alone, 3),
        "scoring_s": round(statistics.median(scoring), 3),
        "serial_s": round(statistics.median(serial), 3),
        "overlapped_s": round(statistics.median(beside), 3),
        "exposed_scoring_s": round(statistics.median(exposed), 3),
        "overlapped_to_serial": round(statistics.median(b / s for b, s in zip(beside, serial, strict=True)), 3),
        "target_at_most": 0.75,
    }


def scaling(path: str, prompts: int, group: int, chunk: int, repeats: int) -> dict[str, float]:
    """Rollouts a second with one actor and with two, a thread each, in turns."""
    samples = scene_world_samples(prompts, split="dev", tasks=("forecast",))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with (
        RolloutPool(TokenWorldModelPolicy(path), actors=1, chunk=chunk, threads=1) as one,
        RolloutPool(TokenWorldModelPolicy(path), actors=2, chunk=chunk, threads=1) as two,
    ):
        for step in range(repeats + 1):
            for actors, pool in ((1, one), (2, two)):
                taken = generate(pool, samples, group, step)
                if step:
                    seconds[actors].append(taken)
    rates = {actors: prompts * group / statistics.median(taken) for actors, taken in seconds.items()}
    return {
        "rollouts_per_s_1_actor": round(rates[1], 1),
        "rollouts_per_s_2_actors": round(rates[2], 1),
        "speedup": round(statistics.median(a / b for a, b in zip(seconds[1], seconds[2], strict=True)), 3),
        "target_at_least": 1.6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default="embedded", help="world model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=1, help="prompts per call of an actor")
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    asked = (a.path, a.prompts, a.group, a.chunk, a.repeats)
    load = os.getloadavg()[0]
    found = {"overlap": overlap(*asked), "scaling": scaling(*asked)}
    settings = {"prompts": a.prompts, "group": a.group, "chunk": a.chunk, "repeats": a.repeats}
    print(json.dumps({"cpus": os.cpu_count(), "load_before": round(load, 2), **settings, **found}, indent=2))


if __name__ == "__main__":
    main()
