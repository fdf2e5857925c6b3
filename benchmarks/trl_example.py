"""The worked example of docs/integrations/trl.md by TRL and by ``rsw train``, as the page's table.

python benchmarks/trl_example.py OUT [--steps 150] [--seeds 1 2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import rsw_rewards as rsw
from examples.squares import squares

ROOT = Path(__file__).parents[1]


def row(name: str, rewards: list[float], accuracy: float) -> str:
    """Means of tenths of the steps, and accuracy on the held-out questions."""
    means = (f"{part.mean():.2f}" for part in np.array_split(np.array(rewards), 10))
    return f"| {name} | {' | '.join(means)} | {accuracy:.3f} |"


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=Path)
parser.add_argument("--steps", type=int, default=150)
parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
asked = parser.parse_args()
start = asked.out / "start"
rsw.train(ROOT / "examples/squares_start.yaml", out=start)
heldout = squares(200, seed=6)
for seed in asked.seeds:
    folder = asked.out / f"trl{seed}"
    example = [str(ROOT / "examples/trl_grpo.py"), str(start), "--out", str(folder), "--steps", str(asked.steps)]
    rubric = ["--rubric", str(ROOT / "examples/squares.yaml"), "--seed", str(seed)]
    subprocess.run([sys.executable, *example, *rubric], check=True, stdout=sys.stderr)
    logged = [json.loads(line)["reward"] for line in (folder / "log.jsonl").read_text().splitlines()]
    found = rsw.evaluate("exact-qa", heldout, policy={"use": "vision_language", "path": str(folder)})
    print(row(f"TRL, seed {seed}", logged, found.metrics["accuracy"].value))
for seed in asked.seeds:
    settings = {"seed": seed, "policy.path": str(start)}
    done = rsw.train(ROOT / "examples/squares.yaml", steps=asked.steps, out=asked.out / f"rsw{seed}", settings=settings)
    after = done.heldout["changes"]["greedy"]["accuracy"]["after"]["value"]
    print(row(f"`rsw train`, seed {seed}", list(done.log["reward"]), after))
