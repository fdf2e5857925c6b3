"""How much memory the process of the learner gains in a long training on pictures; prints JSON.

A policy in a rollout actor draws pictures of 256 x 256 pixels; each step makes, scores and logs a generation of them as training
does, turns rewards into advantages and takes an optimizer step on a small network. Pixels stay in Ray's store, so the process
must not grow with the number of steps.

python benchmarks/driver_memory.py [--steps 500] [--side 256]
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rsw_rewards.config import RunConfig
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Policy, Request
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.training.advantages import group_advantages
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.runlog import RunLog
from rsw_rewards.training.training_run import PIXEL_BUDGET

TOKENS = 64


class Noisy(Policy):
    """Draws the last picture with noise over it."""

    name = "noisy"
    trainable = True

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        self.scale = float(weights["weight"].abs().mean())

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Output:
        rng = np.random.default_rng(request.seed)
        before = request.sample.images[-1].pixels()
        pixels = before + rng.integers(0, 1 + request.seed % 60, before.shape, dtype=np.uint8)
        tokens = TokenTrace((1, 2), tuple(int(token) for token in rng.integers(3, 99, TOKENS)), (-1.0,) * TOKENS)
        return Output(request.sample.id, image=ImageRef(array=pixels, sha256=content_hash(pixels)), tokens=tokens)


def pictures(count: int, side: int) -> list[Sample]:
    """Forecasts whose future is a little brighter than the present."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 160, (side, side, 3), dtype=np.uint8) for _ in range(count)]
    return [
        Sample(
            f"s{n}",
            Task.FORECAST,
            (ImageRef(array=array),),
            "draw",
            {"images": [ImageRef(array=array + 20)]},
            scene=f"s{n}",
        )
        for n, array in enumerate(arrays)
    ]


def memory() -> dict[str, float]:
    """Megabytes of this process: all that is resident, and what of it is its own (no files, no shared memory)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {line[0]: int(line[1]) / 1024 for line in lines if line and line[0] in ("VmRSS:", "RssAnon:")}
    return {"rss_mb": round(found["VmRSS:"], 1), "own_mb": round(found["RssAnon:"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--first", type=int, default=50, help="step of the first measurement")
    parser.add_argument("--side", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=4)
    a = parser.parse_args()
    samples = pictures(32, a.side)
    rubric = parse_rubric({"components": [{"use": "gain_over_copy"}]}, "rubric")
    model = torch.nn.Linear(64, 64, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    policy = build_policy(f"{Path(__file__)}:Noisy")
    taken: dict[int, dict[str, float]] = {}
    start = time.perf_counter()
    bank = FeatureBank(pixel_budget=PIXEL_BUDGET)
    with (
        tempfile.TemporaryDirectory() as folder,
        Scorer(rubric, bank=bank) as scorer,
        RolloutPool(policy, chunk=1) as pool,
    ):
        config = RunConfig.model_validate(
            {
                "out": folder,
                "policy": "unused",
                "train": {"source": "unused"},
                "rubric": rubric.dump(),
                "grpo": {"prompts": a.prompts, "group": a.group, "steps": a.steps},
                "rollouts": {"actors": 1, "chunk": 1},
            }
        )
        log = RunLog(Path(folder), ["forecast"], a.steps, a.steps, trackers=())
        collector = Collector(config, samples, scorer, pool, log)
        for step in range(a.steps):
            ids = [samples[(step * a.prompts + n) % len(samples)].id for n in range(a.prompts)]
            outputs, given = collector.collect(ids, step, model.state_dict())
            rewards = torch.tensor([np.nan if reward is None else reward for reward in given], dtype=torch.float32)
            groups = torch.tensor([ids.index(output.sample_id) for output in outputs])
            tokens = torch.tensor([output.tokens.completion_ids for output in outputs if output.tokens is not None])
            loss = (group_advantages(rewards, groups).float() * model(tokens.float() / 99).mean(-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log.write(step + 1, {"loss": float(loss.detach())})
            del outputs
            if (step + 1) % a.first == 0:
                gc.collect()
                taken[step + 1] = memory()
        collector.close()
        log.close()
    first, last = taken[a.first], taken[max(taken)]
    growth = {f"growth_{key}": round(last[key] - first[key], 1) for key in first}
    print(
        json.dumps(
            {
                "steps": a.steps,
                "side": a.side,
                "rollouts_per_step": a.prompts * a.group,
                "seconds": round(time.perf_counter() - start, 1),
                "after": taken,
                **growth,
                "target_growth_rss_mb": 50,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
