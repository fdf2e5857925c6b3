"""The image of the README: forecasts of held-out scenes by the small world model, before and after a training.

    rsw train configs/quickstart.yaml
    python benchmarks/before_after.py runs/quickstart [--out docs/figures/forecasts.png]

A row is a scene: the input, the forecast of the shipped model, that of the trained one, and what really happened, beside the gain
over copying the input of both. Shown are scenes of the test split at the 10th, 50th and 90th percentile of the change in gain.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib import pyplot

import rsw_rewards as rsw
from rsw_rewards.config import DataSpec
from rsw_rewards.rollouts.policies import TokenWorldModelPolicy
from rsw_rewards.training.sources import load_source

SCENES = 120
SHOWN = (0.1, 0.5, 0.9)
"""Places of the shown scenes in the order of what training changed: one that got worse or stayed, the median, one that got better."""


def gains(samples: list[rsw.Sample], outputs: list[rsw.Output]) -> list[float]:
    """1 - (squared error of the forecast) / (squared error of the input), of every sample."""
    with rsw.Reward({"gain_over_copy": 1.0}) as reward:
        return [result.parts["gain_over_copy"].raw["gain"] for result in reward.many(outputs, samples)]


def main(run: Path, out: Path) -> None:
    asked = DataSpec(source="scene-world", split="test", seed=0, questions=0, forecasts=SCENES)
    samples = [sample for sample in load_source(asked, 0) if sample.kind != "nothing"]
    made = []
    for policy in (TokenWorldModelPolicy(), rsw.load_policy(run)):
        policy.setup("cpu", 1)
        outputs = policy.generate([rsw.Request(sample, temperature=0.0) for sample in samples])
        made.append((outputs, gains(samples, outputs)))
    (before, old), (after, new) = made
    print(f"mean gain over copying, {len(samples)} scenes: {np.mean(old):.3f} before, {np.mean(new):.3f} after")
    order = np.argsort(np.array(new) - np.array(old))
    shown = [int(order[round(share * (len(order) - 1))]) for share in SHOWN]
    figure, axes = pyplot.subplots(len(shown), 4, figsize=(8, 2.2 * len(shown)), layout="constrained")
    for row, place in zip(axes, shown, strict=True):
        sample = samples[place]
        columns = {
            "input": sample.images[-1],
            f"before training: gain {old[place]:.2f}": before[place].forecast,
            f"after training: gain {new[place]:.2f}": after[place].forecast,
            "what happened": sample.reference["images"][-1],
        }
        for axis, (title, image) in zip(row, columns.items(), strict=True):
            axis.imshow(image.pixels())
            axis.set_title(title, fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(sample.prompt.replace(" in ", "\nin "), fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/forecasts.png"))
    asked = parser.parse_args()
    main(asked.run, asked.out)
