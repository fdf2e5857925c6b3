"""Rollouts per second of the token world model by number of actors; prints JSON.

python benchmarks/rollouts.py --actors 0 1 2 --path embedded
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.rollouts.policies import TokenWorldModelPolicy
from rsw_rewards.rollouts.pool import RolloutPool


def measure(
    path: str, actors: int, chunk: int, threads: int, prompts: int, group: int, repeats: int
) -> dict[str, float]:
    """Median seconds of one generation of ``prompts`` x ``group`` rollouts, half questions, half forecasts."""
    samples = scene_world_samples(prompts, split="dev")
    start = time.perf_counter()
    with RolloutPool(TokenWorldModelPolicy(path), actors=actors, chunk=chunk, threads=threads) as pool:
        list(pool.generate(samples, group))
        ready = time.perf_counter() - start
        seconds = []
        for step in range(repeats):
            begin = time.perf_counter()
            list(pool.generate(samples, group, step=step))
            seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    return {
        "actors": actors,
        "chunk": chunk,
        "threads": threads,
        "first_generation_s": round(ready, 2),
        "generation_s": round(median, 3),
        "rollouts_per_s": round(prompts * group / median, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", default="embedded")
    parser.add_argument("--actors", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    rows = [measure(a.path, n, a.chunk, a.threads, a.prompts, a.group, a.repeats) for n in a.actors]
    print(json.dumps({"cpus": os.cpu_count(), "policy": a.path, "results": rows}, indent=2))


if __name__ == "__main__":
    main()
