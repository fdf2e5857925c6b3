"""What shared features save: the cost of one more verifier, a second run with another rubric, and the memory of large sets.

Run: python benchmarks/features.py [--images 200] [--rows 50000]. Prints JSON; needs about 0.5 GB of disk in the temporary folder.

``third_verifier_share``: how much longer it takes to score forecasts by three verifiers that read one encoder than by two, each time
from nothing, in seconds of the process; the parts alternate, so that a busy machine disturbs both alike.
``third_verifier_own_share``: what the third one's own calls took, by the clock, which the noise of the encoder does not hide.
``second_run``: another rubric over the same pictures. ``lookups``: rows of 2048 features written to disk, then looked up block by
block in a new process; the peak is what that process takes beyond what it held with the bank made and nothing looked up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ENCODER = "scene-clip"
DIM = 2048
BLOCK = 4096
REPEATS = 5


class Stored:
    """Stands for a large encoder whose features are all stored: it cannot encode anything."""

    name, weights_sha256, dim, id = "stored", "0" * 64, DIM, "stored@0"

    def encode_images(self, images: list[np.ndarray], micro_batch: int) -> np.ndarray:
        raise AssertionError("nothing should be encoded")

    encode_texts = encode_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="forecasts that are scored")
    parser.add_argument("--rows", type=int, default=50_000, help="stored features that are looked up")
    parser.add_argument("--read", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(Path(options.read), options.rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "forecasts": measure_verifiers(Path(folder), options.images),
            "lookups": measure_lookups(Path(folder), options.rows),
        }
    print(json.dumps(found, indent=2))


def measure_verifiers(folder: Path, n: int) -> dict[str, Any]:
    from rsw_rewards.core.image_ref import ImageRef
    from rsw_rewards.core.records import Output, Sample, Task
    from rsw_rewards.features.bank import FeatureBank
    from rsw_rewards.io.images import write_png

    rng = np.random.default_rng(0)
    samples, outputs = [], []
    for number in range(n):
        paths = [folder / f"{number}_{name}.png" for name in ("before", "after", "drawn")]
        for path in paths:
            write_png(path, np.kron(rng.integers(0, 256, (32, 32, 3), np.uint8), np.ones((8, 8, 1), np.uint8)))
        truth = {"images": [ImageRef(path=paths[1])], "text": f"a road is built by house {number}"}
        samples.append(Sample(f"s{number}", Task.FORECAST, (ImageRef(path=paths[0]),), reference=truth))
        outputs.append(Output(f"s{number}", image=ImageRef(path=paths[2])))

    def score(names: list[str], bank: FeatureBank) -> dict[str, float]:
        """Seconds of this process and of the clock, and those of each component."""
        from rsw_rewards.core.rubric import Rubric
        from rsw_rewards.core.verifier import Batch
        from rsw_rewards.engine.scorer import Scorer

        parts = [{"use": name, "config": {"encoder": ENCODER}, "weight": float(name == "clip_score")} for name in names]
        bank.encoder(ENCODER)  # loading the weights is no part of scoring
        with Scorer(Rubric.model_validate({"components": parts}), bank=bank) as scorer:
            start, busy = time.perf_counter(), time.process_time()
            table = scorer.score(Batch.of(samples, outputs))
            found = {"clock": time.perf_counter() - start, "process": time.process_time() - busy}
        assert set(table.frame["status"]) == {"ok"}
        return {**found, **table.frame.groupby("verifier")["seconds"].sum().to_dict()}

    score(["frechet"], FeatureBank())
    two, three = [], []
    for _ in range(REPEATS):
        two.append(score(["clip_score", "frechet"], FeatureBank()))
        three.append(score(["clip_score", "frechet", "kid"], FeatureBank()))
    kept = folder / "features"
    first, second = FeatureBank(directory=kept), FeatureBank(directory=kept)
    first_run = score(["clip_score", "frechet"], first)
    second_run = score(["clip_score", "kid", "neighbours"], second)
    before, after = (median(run["process"] for run in runs) for runs in (two, three))
    return {
        "images": 2 * n,
        "two_verifiers_process_s": round(before, 3),
        "three_verifiers_process_s": round(after, 3),
        "third_verifier_share": round(after / before - 1.0, 4),
        "third_verifier_own_share": round(
            median(run["kid"] / (run["clip_score"] + run["frechet"]) for run in three), 4
        ),
        "first_run_s": round(first_run["clock"], 3),
        "first_run_encoded": first.encoded,
        "second_run_s": round(second_run["clock"], 3),
        "second_run_encoded": second.encoded,
        "second_run_hit_rate": second.report()["encoders"][ENCODER]["hit_rate"],
    }


def digests(rows: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(rows)]


def measure_lookups(folder: Path, rows: int) -> dict[str, Any]:
    from rsw_rewards.features.bank import FeatureBank

    bank = FeatureBank(directory=folder / "large")
    some = np.random.default_rng(0).standard_normal((BLOCK, DIM)).astype(np.float32)
    keys = [bytes.fromhex(digest) for digest in digests(rows)]
    start = time.perf_counter()
    for first in range(0, rows, BLOCK):
        part = keys[first : first + BLOCK]
        bank.store.add(Stored(), "image", part, some[: len(part)])  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    command = [sys.executable, __file__, "--read", str(folder / "large"), "--rows", str(rows)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        "rows": rows,
        "dim": DIM,
        "bytes": rows * DIM * 4,
        "write_s": round(seconds, 2),
        **json.loads(answer.stdout),
    }


def memory(kind: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (highest) of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def read(folder: Path, rows: int) -> dict[str, Any]:
    from rsw_rewards.features.bank import FeatureBank

    bank = FeatureBank(directory=folder)
    bank.encoders["stored"] = Stored()  # type: ignore[assignment]
    names = digests(rows)
    before = memory("VmRSS")
    found: dict[str, Any] = {}
    for label in ("first_pass_s", "second_pass_s"):
        start = time.perf_counter()
        total = 0.0
        for first in range(0, rows, BLOCK):
            total += float(bank.features("stored", names[first : first + BLOCK])[:, 0].sum())
        found[label] = round(time.perf_counter() - start, 2)
        assert np.isfinite(total)
    return {
        **found,
        "peak_mb_beyond_start": round((memory("VmHWM") - before) / 1e6, 1),
        "start_mb": round(before / 1e6, 1),
    }


if __name__ == "__main__":
    main()
