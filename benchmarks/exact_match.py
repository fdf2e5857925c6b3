"""What the engine itself costs: microseconds per output for exact match, from outputs to a score table and rewards.

Run: python benchmarks/exact_match.py [--outputs 100000]. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer

VOCABULARY = ["yes", "no", "buildings", "trees", "water", *(f"{k}0_to_{k + 1}0" for k in range(1, 10))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    n, candidates = arguments.outputs // 8, 8
    samples = [
        Sample(
            f"q{i}",
            Task.CHANGE_QA,
            (),
            scene=f"s{i}",
            reference={"answers": [VOCABULARY[i % 14]], "vocabulary": VOCABULARY},
        )
        for i in range(n)
    ]
    outputs = [
        Output(sample.id, c, text=VOCABULARY[(i + c) % 14])
        for i, sample in enumerate(samples)
        for c in range(candidates)
    ]
    rubric = Rubric.model_validate({"components": [{"use": "exact_match"}]})
    scoring, combining = [], []
    with Scorer(rubric) as scorer:
        batch = Batch.of(samples, outputs)
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            table = scorer.score(batch)
            middle = time.perf_counter()
            rewards(table, rubric)
            scoring.append(middle - start)
            combining.append(time.perf_counter() - middle)
    per_output = 1e6 / len(outputs)
    print(
        json.dumps(
            {
                "outputs": len(outputs),
                "score_us_per_output": round(statistics.median(scoring) * per_output, 2),
                "reward_us_per_output": round(statistics.median(combining) * per_output, 2),
                "target_us_per_output": 30,
            }
        )
    )


if __name__ == "__main__":
    main()
