"""What single calls of ``Reward`` cost beside the table: texts, groups of eight, and sixteen callers of an encoder at once.

Run: python benchmarks/per_sample.py [--calls 1000]. Prints JSON: milliseconds of processor time per call, seconds for the encoder
and for the first call of a new process, and for each its ratio or its target.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import as_rubric
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.reward import Reward
from rsw_rewards.engine.scorer import Scorer

TEXTS = as_rubric({"exact_match": 0.9, "answer_format": 0.1})
CALLERS = 16
FIRST_CALL = """if True:
    from rsw_rewards.core.records import Sample, Task
    from rsw_rewards.engine.reward import Reward
    with Reward({"exact_match": 1.0}) as reward:
        reward.one("yes", Sample("q", Task.CHANGE_QA, (), reference={"answers": ["yes"], "vocabulary": ["yes", "no"]}))
"""


def processor_ms(call: Callable[[], Any], repeats: int) -> float:
    """Processor time of one call in milliseconds, the median of five runs."""
    call()
    runs = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(repeats):
            call()
        runs.append((time.process_time() - start) / repeats * 1e3)
    return statistics.median(runs)


def of_texts(calls: int) -> dict[str, Any]:
    """Two text components: one output and a group of eight, by ``Reward`` and by the table."""
    vocabulary = ["yes", "no", "buildings", "trees", "water"]
    sample = Sample("q", Task.CHANGE_QA, (), scene="q", reference={"answers": ["yes"], "vocabulary": vocabulary})
    group = [Output("q", candidate, text=vocabulary[candidate % 5]) for candidate in range(8)]

    def by_table(outputs: list[Output]) -> None:
        rewards(scorer.score(Batch.of([sample], outputs)), TEXTS)

    with Reward(TEXTS) as reward, Scorer(TEXTS) as scorer:
        one = processor_ms(lambda: reward.one(group[0], sample), calls)
        eight = processor_ms(lambda: reward.many(group, [sample] * 8), calls)
        table_one = processor_ms(lambda: by_table(group[:1]), max(1, calls // 20))
        table_eight = processor_ms(lambda: by_table(group), max(1, calls // 20))
    return {
        "one_ms": round(one, 3),
        "one_target_ms": 0.3,
        "one_of_table": round(one / table_one, 4),
        "group_of_eight_ms": round(eight, 3),
        "group_of_eight_target_ms": 0.8,
        "group_of_eight_of_table": round(eight / table_eight, 4),
    }


def of_encoder(rounds: int = 5) -> dict[str, Any]:
    """``clip_score`` of images never seen before: one call of sixteen, and sixteen threads with one each."""
    rng = np.random.default_rng(0)

    def new() -> tuple[list[Output], list[Sample]]:
        images = [ImageRef(array=rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(CALLERS)]
        samples = [Sample(f"f{n}", Task.FORECAST, (image,), prompt="a new road") for n, image in enumerate(images)]
        return [Output(sample.id, image=sample.images[0]) for sample in samples], samples

    together, apart, alone = [], [], []
    with Reward({"clip_score": 1.0}) as reward, ThreadPoolExecutor(CALLERS) as pool:
        reward.warm()
        reward.many(*new())
        list(pool.map(reward.one, *new()))
        for _ in range(rounds):
            outputs, samples = new()
            start = time.perf_counter()
            reward.many(outputs, samples)
            together.append(time.perf_counter() - start)
            outputs, samples = new()
            start = time.perf_counter()
            list(pool.map(reward.one, outputs, samples))
            apart.append(time.perf_counter() - start)
            outputs, samples = new()
            start = time.perf_counter()
            for pair in zip(outputs, samples, strict=True):
                reward.one(*pair)
            alone.append(time.perf_counter() - start)
    whole = statistics.median(together)
    return {
        "encoder_one_call_of_sixteen_s": round(whole, 4),
        "encoder_sixteen_callers_of_one_call": round(statistics.median(apart) / whole, 2),
        "encoder_sixteen_callers_target": 1.5,
        "encoder_one_after_another_of_one_call": round(statistics.median(alone) / whole, 2),
    }


def of_first_call() -> dict[str, Any]:
    """A new process up to its first reward, imports included: medians of three, by the clock and in processor time."""
    runs = []
    for _ in range(3):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_CALL], check=True)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        runs.append((seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    clock, processor = (statistics.median(column) for column in zip(*runs, strict=True))
    return {
        "first_call_s": round(clock, 2),
        "first_call_processor_s": round(processor, 2),
        "first_call_target_s": 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    arguments = parser.parse_args()
    print(json.dumps(of_first_call() | of_texts(arguments.calls) | of_encoder()))


if __name__ == "__main__":
    main()
