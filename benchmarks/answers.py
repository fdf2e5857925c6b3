"""What it costs to evaluate answers from files: 100,000 exact answers to CDVQA's questions, loaded, scored, stored and summarised.

Run: python benchmarks/answers.py [--answers 100000]. Prints JSON with processor seconds: of the whole, and of its parts by themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rsw_rewards as rsw
from rsw_rewards.data.cdvqa import KINDS, VOCABULARY
from rsw_rewards.engine.scorer import Scorer, batches
from rsw_rewards.evaluation.inputs import read_pair, seldom_collecting
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.summary import metrics_of, slices_of
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.rollouts.baselines import make_baseline
from rsw_rewards.rollouts.policy import Request

QUESTIONS_PER_SCENE = 41
SUBJECTS = ("buildings", "trees", "water", "low vegetation", "playgrounds", "ground")


def write_files(folder: Path, n: int) -> tuple[Path, Path]:
    """``n`` made-up questions of CDVQA's form, and answers of which about 60 % are right."""
    chance = random.Random(0)
    samples, predictions = [], []
    for number in range(n):
        scene = f"{number // QUESTIONS_PER_SCENE:05d}"
        answer = chance.choice(VOCABULARY)
        samples.append(
            {
                "id": f"cdvqa/made/{number}", "task": "change_qa", "scene": f"second/{scene}", "kind": KINDS[number % len(KINDS)],
                "images": [f"im1/{scene}.png", f"im2/{scene}.png"],
                "prompt": f"Has the area of {SUBJECTS[number % len(SUBJECTS)]} changed?",
                "reference": {"answers": [answer], "vocabulary": list(VOCABULARY)},
            }
        )  # fmt: skip
        given = answer if chance.random() < 0.6 else chance.choice(VOCABULARY)
        predictions.append({"id": samples[-1]["id"], "text": given})
    write_jsonl(folder / "samples.jsonl", samples)
    write_jsonl(folder / "predictions.jsonl", predictions)
    return folder / "samples.jsonl", folder / "predictions.jsonl"


class Clock:
    """Processor seconds of named calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        self.seconds[name] = round(time.process_time() - start, 3)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=100_000)
    n = parser.parse_args().answers
    protocol, clock = PROTOCOLS.find("cdvqa"), Clock()
    with tempfile.TemporaryDirectory() as name, Scorer(protocol.rubric) as scorer, seldom_collecting():
        folder = Path(name)
        files = write_files(folder, n)
        start = time.perf_counter()
        clock("evaluate", lambda: rsw.evaluate(protocol, *files, folder / "run"))
        wall = round(time.perf_counter() - start, 3)
        given = clock("load", lambda: read_pair(*files))
        samples, outputs = given.samples, given.outputs
        (batch,) = batches(scorer, samples, outputs, size=len(outputs))
        table = clock("score", lambda: scorer.score(batch))
        clock("store", lambda: table.write(folder / "scores.parquet"))
        metrics = clock("metrics", lambda: metrics_of(protocol, scorer.by_name, table))
        clock("slices", lambda: slices_of(protocol, scorer.by_name, table, metrics))
        requests = [Request(sample) for sample in samples]
        for baseline in protocol.baselines:
            clock(f"answer_{baseline}", lambda b=baseline: make_baseline(b, samples).generate(requests))
    parts = {key: seconds for key, seconds in clock.seconds.items() if key != "evaluate"}
    report = {
        "answers": n,
        "evaluate_s": clock.seconds["evaluate"],
        "evaluate_wall_s": wall,
        "target_s": 10.0,
        "parts_s": parts,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
