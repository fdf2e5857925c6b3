"""Frechet distances and credits against clean-fid's function on the same features: medians of several runs, as JSON.

    python benchmarks/frechet.py [--dim 2048] [--repeats 5] [--threads 2]

The reference's factor is part of the first distance only, as in a training, where it is kept; its time is given apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)


def median(run: Callable[[], Any], repeats: int, warm: bool = True) -> float:
    """Median seconds of a call, after one that is not counted."""
    if warm:
        run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch
    from cleanfid.fid import frechet_distance as theirs

    from rsw_rewards.verifiers.frechet import Influence, Moments, Reference, frechet_of_features, leave_one_out

    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    d = options.dim
    scale = np.sqrt(1.0 / np.arange(1, d + 1))
    real = rng.normal(size=(8192, d)) * scale
    moments = Moments.of([real])
    start = time.perf_counter()
    reference = Reference.from_moments(moments)
    reference.factor  # noqa: B018  (computed when first asked for)
    factor_s = time.perf_counter() - start
    found: dict[str, Any] = {"dim": d, "threads": options.threads, "reference_factor_s": factor_s}
    peer_s: dict[int, float] = {}
    for n in (64, 5000):
        made = rng.normal(size=(n, d)) * scale * 1.05 + 0.01

        def peer(made: np.ndarray = made) -> float:
            # From features, as its own `fid_from_feats` takes the moments of a set.
            return float(theirs(made.mean(0), np.cov(made, rowvar=False), reference.mean, reference.covariance))

        expected = peer()
        peer_s[n] = median(peer, options.peer_repeats, warm=False)
        ours_s = median(lambda made=made: frechet_of_features(made, reference), options.repeats)
        value = frechet_of_features(made, reference)
        found[f"frechet_n{n}"] = {
            "ours_s": ours_s, "clean_fid_s": peer_s[n], "ratio": peer_s[n] / ours_s, "relative_difference": abs(value / expected - 1),
        }  # fmt: skip
    for n in (16, 64):
        batch = rng.normal(size=(n, d)) * scale * 1.05
        seconds = median(lambda batch=batch: leave_one_out(batch, reference), options.repeats)
        # One distance with clean-fid costs about the same whatever n is; recomputing takes n + 1 of them.
        found[f"leave_one_out_n{n}"] = {
            "ours_ms": 1e3 * seconds,
            "ratio_to_recomputing": (n + 1) * peer_s[64] / seconds,
        }
    history = Moments.of([rng.normal(size=(4096, d)) * scale * 1.05])
    start = time.perf_counter()
    influence = Influence(history.mean, history.covariance, history.count, reference)
    refresh_s = time.perf_counter() - start
    batch = rng.normal(size=(16, d)) * scale
    found["influence_n16"] = {
        "refresh_s": refresh_s,
        "ours_ms": 1e3 * median(lambda: influence(batch), options.repeats),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
