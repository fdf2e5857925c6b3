"""What masks cost: semantic change against the published evaluation loop, and thousands of mask files through ``rsw evaluate``.

Run: python benchmarks/masks.py [--pairs 5000] [--few 1000]. Prints JSON. Times are wall clock in seconds unless named otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.verifier import Batch
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.verifiers.semantic_change import SemanticChange

SIDE = 512
"""Pixels a side of a map of SECOND."""
MASK_SIDE = 256
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""True maps before and after, predicted maps before and after."""


def blocks(rng: np.random.Generator, side: int, classes: int, share: float) -> np.ndarray:
    """(side, side) uint8 map of rectangles with classes 1 .. ``classes`` - 1 on a ground of zeros."""
    pixels = np.zeros((side, side), np.uint8)
    while np.count_nonzero(pixels) < share * pixels.size:
        top, left = rng.integers(0, side - 8, 2)
        height, width = rng.integers(4, side // 4, 2)
        pixels[top : top + height, left : left + width] = rng.integers(1, classes)
    return pixels


def semantic_pairs(count: int) -> list[Pair]:
    """Pairs of true and predicted maps, a fifth changed, the prediction right in seven pixels of ten."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        changed = blocks(rng, SIDE, 2, 0.2).astype(bool)
        truth = [np.maximum(blocks(rng, SIDE, 7, 0.8), 1) * changed for _ in range(2)]
        found = np.where(rng.random(changed.shape) < 0.1, ~changed, changed)
        predicted = []
        for one in truth:
            other = np.maximum(blocks(rng, SIDE, 7, 0.8), 1)
            kept = rng.random(one.shape) < 0.7
            predicted.append((np.where(kept & (one > 0), one, other) * found).astype(np.uint8))
        pairs.append((truth[0], truth[1], predicted[0], predicted[1]))
    return pairs


def joined(pair: Pair, joint: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(truth, prediction) of the maps that are counted, transitions made as in torchange/metrics/second.py."""
    before, after, found_before, found_after = pair
    if joint == "stacked":
        return [(before, found_before), (after, found_after)]
    return [
        tuple(
            np.where(one > 0, (one.astype(np.int64) - 1) * 6 + other, 0)
            for one, other in ((before, after), (found_before, found_after))
        )
    ]  # type: ignore[list-item]


def published_loop(pairs: Sequence[Pair], joint: str) -> dict[str, float]:
    """The shape of the published evaluation, in our words: a map at a time, its values checked, its pixels picked out by boolean
    masks, counted, and its accuracy averaged (``Eval`` of ggsDing/Bi-SRNet@Eval_SCD.py, ``get_hist`` of its utils/utils.py)."""
    classes = 7 if joint == "stacked" else 37
    matrix, accuracies = np.zeros((classes, classes)), []
    for pair in pairs:
        for truth, predicted in joined(pair, joint):
            if not set(np.unique(predicted)) <= set(range(classes)):
                raise ValueError("a class that is not known")
            labelled = truth >= 0
            accuracies.append((labelled * (predicted == truth)).sum() / labelled.sum())
            flat, other = predicted.flatten(), truth.flatten()
            inside = (flat >= 0) & (flat < classes)
            code = flat[inside].astype(int) * classes + other[inside]
            matrix += np.bincount(code, minlength=classes**2).reshape(classes, classes)
    changed = matrix[1:, 1:].sum() / (matrix.sum() - matrix[0, 0])
    matrix[0, 0] = 0
    observed = matrix.trace() / matrix.sum()
    expected = matrix.sum(0) @ matrix.sum(1) / matrix.sum() ** 2
    kappa = (observed - expected) / (1 - expected)
    return {"sek": kappa * math.exp(changed - 1), "oa": float(np.mean(accuracies))}


def verifier(pairs: Sequence[Pair], joint: str) -> dict[str, float]:
    """The same numbers from the verifier, from arrays in memory to metrics."""
    scorer = SemanticChange(SemanticChange.Config.model_validate({"joint": joint}))
    samples, outputs = [], []
    for place, pair in enumerate(pairs):
        before, after, found_before, found_after = (ImageRef(array=pixels) for pixels in pair)
        reference = {"map_before": before, "map_after": after}
        samples.append(Sample(str(place), Task.SEMANTIC_CHANGE, (), reference=reference))
        outputs.append(Output(str(place), map_before=found_before, map_after=found_after))
    scores = scorer.score(Batch.of(samples, outputs))
    sums: dict[str, Any] = {name: sum(score.stats[name] for score in scores) for name in ("counts", "accuracy")}
    sums["n"] = np.array(len(scores))
    found: dict[str, Any] = {}
    for metric in scorer.metrics():
        found |= metric.from_sums(sums)  # type: ignore[attr-defined]
    return {key: found[key] for key in ("sek", "oa")}


def seconds(run: Callable[[], object], repeats: int = 9) -> float:
    """Least time of a call, after one to warm up: what other work on the machine disturbed least."""
    run()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def semantic_speed(count: int) -> dict[str, Any]:
    """Milliseconds per megapixel of a pair, ours and the published loop's, and how often faster ours is."""
    pairs = semantic_pairs(count)
    megapixels = count * SIDE * SIDE / 1e6
    found: dict[str, Any] = {}
    for joint in ("stacked", "from_to"):
        ours, theirs = verifier(pairs, joint), published_loop(pairs, joint)
        if any(abs(ours[key] - theirs[key]) > 1e-9 for key in theirs):
            raise SystemExit(f"{joint}: {ours} is not {theirs}")
        fast, slow = seconds(lambda j=joint: verifier(pairs, j)), seconds(lambda j=joint: published_loop(pairs, j))  # type: ignore[misc]
        found[joint] = {
            "ms_per_megapixel": round(1000 * fast / megapixels, 2),
            "published_loop_ms_per_megapixel": round(1000 * slow / megapixels, 2),
            "times_faster": round(slow / fast, 2),
        }
    return found


def make_masks(folder: Path, pairs: int) -> None:
    """``pairs`` true masks, as many predictions, and their records below ``folder``; four tiles share a scene."""
    rng = np.random.default_rng(0)
    for name in ("truth", "predicted"):
        (folder / name).mkdir()
    samples, predictions = [], []
    for i in range(pairs):
        truth = blocks(rng, MASK_SIDE, 2, 0.1) * np.uint8(255) if i % 2 else np.zeros((MASK_SIDE,) * 2, np.uint8)
        predicted = np.roll(truth, rng.integers(-6, 7, 2), (0, 1))
        write_png(folder / f"truth/{i}.png", truth)
        write_png(folder / f"predicted/{i}.png", predicted)
        samples.append(
            {"id": str(i), "task": "change_mask", "scene": f"s{i // 4}", "reference": {"mask": f"truth/{i}.png"}}
        )
        predictions.append({"id": str(i), "mask": f"predicted/{i}.png"})
    write_jsonl(folder / "samples.jsonl", samples)
    write_jsonl(folder / "predictions.jsonl", predictions)


def evaluate(folder: Path, pairs: int) -> dict[str, float]:
    """Run ``rsw evaluate change-mask`` on the first ``pairs`` samples in a process of its own."""
    out = folder / f"out{pairs}"
    few = folder / f"{pairs}.jsonl"
    lines = (folder / "samples.jsonl").read_text().splitlines()[:pairs]
    few.write_text("\n".join(lines) + "\n")
    answers = folder / f"{pairs}-predictions.jsonl"
    answers.write_text("\n".join((folder / "predictions.jsonl").read_text().splitlines()[:pairs]) + "\n")
    command = [
        sys.executable,
        "-c",
        "from rsw_rewards.cli import main; main()",
        "evaluate",
        "change-mask",
        "--samples",
        str(few),
    ]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--predictions", str(answers), "--out", str(out)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - start
    if status:
        raise SystemExit(f"rsw evaluate failed with status {os.waitstatus_to_exitcode(status)}")
    summary = json.loads((out / "summary.json").read_text())
    return {
        "pairs": summary["n"],
        "seconds": round(taken, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "f1": round(summary["metrics"]["f1"]["value"], 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5000, help="mask pairs of the large evaluation")
    parser.add_argument("--few", type=int, default=1000, help="mask pairs of the small evaluation")
    parser.add_argument("--maps", type=int, default=8, help="pairs of semantic maps")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"semantic_change": semantic_speed(arguments.maps)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_masks(folder, arguments.pairs)
        small, large = evaluate(folder, arguments.few), evaluate(folder, arguments.pairs)
    found["evaluate"] = {
        "few": small,
        "many": large,
        "peak_memory_ratio": round(large["peak_mib"] / small["peak_mib"], 3),
        "kib_per_further_pair": round(
            1024 * (large["peak_mib"] - small["peak_mib"]) / (large["pairs"] - small["pairs"]), 1
        ),
        "milliseconds_per_further_pair": round(
            1000 * (large["seconds"] - small["seconds"]) / (large["pairs"] - small["pairs"]), 3
        ),
    }
    found["cores"] = os.cpu_count()
    found["own_peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
