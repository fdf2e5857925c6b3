"""Peak memory of set distances and of an evaluation, each case in a process of its own. Prints JSON.

    python benchmarks/memory.py [--case NAME ...] [--evaluations 1000 3000] [--components gain_over_copy psnr frechet]

Cases: ``frechet`` (50,000 forecasts and as many true futures of 2048 features), ``frechet_infinity``, ``kid`` (10,000 and 10,000),
``cmmd`` (50,000 and 50,000 of 768), ``neighbours`` (10,000 and 10,000), as ``rsw evaluate`` computes them: from features in files, by the
metric of the verifier. ``peak_mb`` is what the process takes beyond what it held with everything imported and the files open, by
the kernel's own high-water mark. ``evaluation``: RSS of ``rsw evaluate tfsf`` over scene-world samples, for every number of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DISTANCES: dict[str, tuple[int, int]] = {
    "frechet": (50_000, 2048),
    "frechet_infinity": (50_000, 2048),
    "kid": (10_000, 2048),
    "cmmd": (50_000, 768),
    "neighbours": (10_000, 2048),
}
"""Images on each side, and features of one."""
CHEAP = ("gain_over_copy", "psnr", "change_consistency", "frechet")
WRITE = 2048


class Stored:
    """Stands for an encoder all of whose features are stored."""

    name, weights_sha256, id = "stored", "0" * 64, "stored@0"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_images(self, images: list[np.ndarray], micro_batch: int) -> np.ndarray:
        raise AssertionError("nothing should be encoded")

    encode_texts = encode_images


def memory(kind: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (highest so far) of this process in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024 / 1e6


def digest(side: str, row: int) -> str:
    return hashlib.sha256(f"{side}{row}".encode()).hexdigest()


def distance(case: str) -> dict[str, Any]:
    """One set distance, measured in this process; its features are written by another before."""
    n, dim = DISTANCES[case]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--fill", folder, "--case", case], check=True)
        import rsw_rewards  # noqa: F401, I001  (first: on a CPU it lets torchvision load)
        import torch
        from rsw_rewards.features.bank import FeatureBank
        from rsw_rewards.core.scores import ScoreTable, Status
        from rsw_rewards.verifiers.set_metrics import FrechetMetric, InfinityMetric, KernelMetric, NeighbourMetric

        torch.linalg.eigh(torch.eye(8, dtype=torch.float64))  # whatever the library sets up once
        metric = {
            "frechet": FrechetMetric("stored", 2048), "frechet_infinity": InfinityMetric("stored"),
            "kid": KernelMetric("stored", "kid"), "cmmd": KernelMetric("stored", "cmmd"), "neighbours": NeighbourMetric("stored", 5),
        }[case]  # fmt: skip
        bank = FeatureBank(directory=Path(folder))
        bank.encoders["stored"] = Stored(dim)  # type: ignore[assignment]
        content = [{"output": digest("made", row), "reference": digest("real", row)} for row in range(n)]
        table = ScoreTable.from_columns(
            {"sample": [str(row) for row in range(n)], "status": [Status.OK] * n, "content": content, "verifier": "v"}
        )
        before = memory("VmRSS")
        start = time.perf_counter()
        numbers = metric.compute(table.frame, {}, np.ones(n), bank)
        return {
            "images": n, "dim": dim, "seconds": round(time.perf_counter() - start, 1), "start_mb": round(before, 1),
            "peak_mb": round(memory("VmHWM") - before, 1), "numbers": numbers,
        }  # fmt: skip


def fill(case: str, folder: Path) -> None:
    """Write the features of both sides."""
    from rsw_rewards.features.bank import FeatureBank

    n, dim = DISTANCES[case]
    bank, rng = FeatureBank(directory=folder), np.random.default_rng(0)
    scale = (np.sqrt(1.0 / np.arange(1, dim + 1))).astype(np.float32)
    for side, shift in (("made", 0.01), ("real", 0.0)):
        for first in range(0, n, WRITE):
            rows = range(first, min(first + WRITE, n))
            keys = [bytes.fromhex(digest(side, row)) for row in rows]
            features = rng.standard_normal((len(rows), dim), np.float32) * scale + np.float32(shift)
            bank.store.add(Stored(dim), "image", keys, features)  # type: ignore[arg-type]


def evaluation(n: int, components: list[str]) -> dict[str, Any]:
    """``rsw evaluate tfsf --policy copy_before`` over n scenes, its RSS sampled as it goes."""
    from dataclasses import replace

    import rsw_rewards as rsw  # first: on a CPU it lets torchvision load
    from rsw_rewards.data.scene_world import write_scene_world
    from rsw_rewards.evaluation.protocols import PROTOCOLS

    protocol = PROTOCOLS.find("tfsf")
    if components != ["all"]:
        chosen = tuple(one for one in protocol.components if one["use"] in components)
        protocol = replace(protocol, name="part-of-tfsf", components=chosen, baselines=("copy_before",))
    at: dict[str, float] = {}
    done = threading.Event()
    highest: list[float] = [0.0]

    def watch() -> None:
        while not done.wait(0.02):
            highest.append(memory("VmRSS"))

    def progress(phase: str, step: int, steps: int) -> None:
        if phase == "scoring":
            at[f"{step} scored"] = round(memory("VmRSS"), 1)

    with tempfile.TemporaryDirectory() as folder:
        write_scene_world(Path(folder) / "world", n, 11, tasks=("forecast",))
        threading.Thread(target=watch, daemon=True).start()
        start = time.perf_counter()
        samples = Path(folder) / "world" / "samples.jsonl"
        rsw.evaluate(protocol, samples, policy="copy_before", out=Path(folder) / "out", progress=progress)
        done.set()
    return {
        "samples": n, "components": [one["use"] for one in protocol.components], "seconds": round(time.perf_counter() - start, 1),
        "peak_rss_mb": round(max(highest), 1), "rss_mb": at,
    }  # fmt: skip


def alone(arguments: list[str]) -> Any:
    """What a process of its own prints as JSON."""
    answer = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", choices=list(DISTANCES), default=list(DISTANCES))
    parser.add_argument("--evaluations", nargs="*", type=int, default=[1000, 3000], help="numbers of samples")
    parser.add_argument("--components", nargs="+", default=list(CHEAP), help="of tfsf, or 'all' with all baselines")
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(options.case[0], Path(options.fill))
        return
    if options.here:
        one: Callable[[], Any] = lambda: (  # noqa: E731
            evaluation(options.evaluations[0], options.components) if options.evaluations else distance(options.case[0])
        )
        print(json.dumps(one()))
        return
    found: dict[str, Any] = {
        "distances": {case: alone(["--here", "--case", case, "--evaluations"]) for case in options.case},
        "evaluation": [
            alone(["--here", "--case", "--evaluations", str(n), "--components", *options.components])
            for n in options.evaluations
        ],
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
