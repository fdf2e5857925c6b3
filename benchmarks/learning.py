"""Does it learn, and from the rewards? A training recipe with several seeds, held-out samples before and after.

Run: python benchmarks/learning.py OUT --recipe grpo|ppo|vlm|flow_grpo|ddpo [--seeds 1 2 3] [--controls] [--jobs 1]

Finished runs in OUT are kept. Prints a Markdown table, written to OUT/learning.md; with --controls also OUT/learning.png. A control
deals out the rewards of every task at random among its outputs; that of ``grpo`` also trains on true labels for as long instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rsw_rewards.evaluation.statistics import Estimate
from rsw_rewards.training.ablation.effects import over_seeds

ROOT = Path(__file__).resolve().parents[1]
SQUARES = f"{ROOT / 'examples/squares.py'}:squares"
BRIGHTNESS = f"{ROOT / 'tests/training/brightness.py'}:brightness"
PERMUTED = ("control=permute_rewards",)


@dataclass(frozen=True)
class Recipe:
    """What is trained, and which numbers are shown."""

    config: str
    """File in ``configs/``."""
    shown: tuple[tuple[str, str], ...]
    """Decoding and metric of each column."""
    settings: tuple[str, ...] = ()
    """What the tiny model and its task change in the file."""
    start: Mapping[str, Any] | None = None
    """Training that makes the weights all runs start from (``method`` and its keys); None for shipped weights."""
    controls: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"permuted rewards": PERMUTED})


def diffusion(kind: str, begun: Mapping[str, float], steps: int, learning_rate: float) -> Recipe:
    """A tiny pipeline that has begun to learn from true futures whether a text makes a picture brighter or darker."""
    pictures = {"source": BRIGHTNESS, "side": 8}
    policy = {"use": "diffusion_forecaster", "size": 8, "steps": 4}
    return Recipe(
        "diffusion_forecast.yaml",
        (("sampled", "gain_over_copy"), ("greedy", "gain_over_copy"), ("sampled", "l1"), ("greedy", "l1")),
        (
            f"policy={json.dumps({**policy, 'path': '@start'})}",
            f"train={json.dumps({**pictures, 'count': 256, 'seed': 1})}",
            f"heldout={json.dumps({**pictures, 'count': 200, 'seed': 2})}",
            'rubric={"components": [{"use": "gain_over_copy"}]}',
            'measure={"components": [{"use": "gain_over_copy"}, {"use": "l1"}]}',
            'rollouts={"actors": 0, "chunk": 16}',
            f"flow_grpo={json.dumps({'steps': steps, 'prompts': 8, 'group': 8, 'learning_rate': learning_rate, 'threads': 1})}",
        ),
        {
            "method": "diffusion_supervised",
            "policy": {**policy, "path": f"tiny:{kind}"},
            "train": {**pictures, "count": 256, "seed": 9},
            "batch": 32,
            "threads": 1,
            **begun,
        },
    )


SCENES = (
    ("greedy", "gain_over_copy"),
    ("sampled", "accuracy"),
    ("greedy", "accuracy"),
    ("sampled", "gain_over_copy"),
    ("greedy", "fd_scene-clip"),
    ("greedy", "change_f1"),
)
RECIPES = {
    "grpo": Recipe(
        "quickstart.yaml",
        SCENES,
        ("grpo.threads=1",),
        # The steps of supervised training take as long, corpus included, as the 100 steps of GRPO.
        controls={
            "permuted rewards": PERMUTED,
            "supervised": ("control=supervised", "supervised.steps=350", "supervised.scenes=6000"),
        },
    ),
    "ppo": Recipe("ppo_quickstart.yaml", SCENES, ("ppo.threads=1", 'rollouts={"actors": 0, "chunk": 32}')),
    "vlm": Recipe(
        "change_qa_vlm.yaml",
        (("sampled", "accuracy"), ("greedy", "accuracy")),
        (
            'policy={"use": "vision_language", "path": "@start", "max_new_tokens": 4}',
            f"train={json.dumps({'source': SQUARES, 'count': 960})}",
            f"heldout={json.dumps({'source': SQUARES, 'count': 200, 'seed': 6})}",
            'rubric={"components": [{"use": "exact_match"}]}',
            "measure.sampled=true",
            'grpo={"steps": 150, "prompts": 8, "group": 8, "learning_rate": 1.0e-3, "beta": 0.04, "threads": 1}',
            'rollouts={"actors": 0}',
        ),
        {
            "method": "vlm_supervised",
            "policy": {"use": "vision_language", "path": "tiny:qwen2_5_vl"},
            # Answers that have nothing to do with the pictures: the start knows what an answer looks like, and sees nothing.
            "train": {"source": SQUARES, "count": 1600, "seed": 9, "blind": True},
            "steps": 80,
            "batch": 16,
            "learning_rate": 1.0e-3,
            "threads": 1,
        },
    ),
    "flow_grpo": diffusion("flux_kontext", {"steps": 40, "learning_rate": 2.0e-3}, 40, 1.0e-4),
    "ddpo": diffusion("instruct_pix2pix", {"steps": 200, "learning_rate": 3.0e-3}, 80, 3.0e-4),
}


def command(config: Path, out: Path, settings: Sequence[str]) -> None:
    """``rsw train`` in a process of its own, on one thread, so that runs side by side do not disturb each other."""
    call = [str(Path(sys.executable).with_name("rsw")), "train", str(config), "--set", f"out={out}"]
    call += [part for setting in settings for part in ("--set", setting)]
    with out.with_name(f"{out.name}.log").open("w") as log:
        subprocess.run(call, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def started(recipe: Recipe, out: Path) -> Path:
    """The folder of the weights that all runs start from, trained if it is not there yet."""
    folder = out / "start"
    done = out / "start.done"
    if recipe.start is not None and not done.exists():
        file = out / "start.yaml"
        file.write_text(yaml.safe_dump({**recipe.start, "out": str(folder)}))
        command(file, folder, ())
        done.touch()
    return folder


def run(recipe: Recipe, name: str, out: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Train and measure; returns what ``heldout.json`` says and the rewards of the steps."""
    folder = out / name.replace(" ", "_")
    if not (folder / "heldout.json").exists():
        command(ROOT / "configs" / recipe.config, folder, settings)
    rewards = [json.loads(line)["reward"] for line in (folder / "log.jsonl").read_text().splitlines()]
    return {**json.loads((folder / "heldout.json").read_text()), "rewards": [one for one in rewards if one is not None]}


def entry(before: float, after: float, difference: float, interval: Sequence[float] | None) -> str:
    """``before -> after, difference [interval]``."""
    between = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    return f"{before:.3f} -> {after:.3f}, {difference:+.3f}{between}"


def cell(change: Mapping[str, Any]) -> str:
    """A number of one run, with the paired interval over scenes."""
    difference = change["difference"]
    return entry(change["before"]["value"], change["after"]["value"], difference["value"], difference["ci95"])


def mean_cell(changes: Sequence[Mapping[str, Any]]) -> str:
    """A number's mean over seeds, with an interval that holds for other scenes and other seeds."""
    differences = [
        Estimate(one["value"], None if one["ci95"] is None else tuple(one["ci95"]), one["n_scenes"])
        for one in (change["difference"] for change in changes)
    ]
    before, after = (float(np.mean([change[side]["value"] for change in changes])) for side in ("before", "after"))
    return entry(before, after, after - before, over_seeds(differences))


def earned(rewards: Sequence[float]) -> str:
    """Mean reward of the first tenth of the steps and of the last."""
    tenth = max(1, len(rewards) // 10)
    return f"{np.mean(rewards[:tenth]):.3f} -> {np.mean(rewards[-tenth:]):.3f}" if rewards else "-"


def markdown(recipe: Recipe, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[str]) -> str:
    """One table: a row a run and one for the mean over seeds, a column a number."""
    shown = [pair for pair in recipe.shown if all(pair[1] in one["changes"][pair[0]] for one in results.values())]
    lines = ["| run | reward in training | " + " | ".join(f"{metric}, {mode}" for mode, metric in shown) + " |"]
    lines.append("|---" * (len(shown) + 2) + "|")
    for name, result in results.items():
        cells = [earned(result["rewards"]), *(cell(result["changes"][mode][metric]) for mode, metric in shown)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if len(seeds) > 1:
        cells = [mean_cell([results[name]["changes"][mode][metric] for name in seeds]) for mode, metric in shown]
        lines.insert(2 + len(seeds), "| **mean over seeds** | | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(recipe: Recipe, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[str], path: Path) -> None:
    """Paired differences with their intervals, a panel a number."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = recipe.shown[:4]
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 2.6), sharey=True, constrained_layout=True, squeeze=False)
    names = list(results)
    for axis, (mode, metric) in zip(axes[0], panels, strict=True):
        for row, name in enumerate(names):
            difference = results[name]["changes"][mode][metric]["difference"]
            colour = "#0b6e6e" if name in seeds else "#8a8f98"
            if difference["ci95"] is not None:
                axis.plot(difference["ci95"], [row, row], color=colour, linewidth=2)
            axis.plot(difference["value"], row, "o", color=colour)
        axis.axvline(0, color="#b3382c", linewidth=0.8)
        axis.set_title(f"{metric}, {mode}", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    figure.supxlabel("difference after training, 95 % interval over held-out scenes", fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="grpo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--controls", action="store_true", help="also train on what must not teach, with the first seed"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of every run")
    arguments = parser.parse_args()
    recipe, out = RECIPES[arguments.recipe], arguments.out.resolve() / arguments.recipe
    out.mkdir(parents=True, exist_ok=True)
    start = started(recipe, out)
    common = [setting.replace("@start", str(start)) for setting in recipe.settings] + arguments.set
    seeds = {f"{arguments.recipe} seed {seed}": [f"seed={seed}"] for seed in arguments.seeds}
    runs = dict(seeds)
    if arguments.controls:
        runs |= {name: [f"seed={arguments.seeds[0]}", *more] for name, more in recipe.controls.items()}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = {name: pool.submit(run, recipe, name, out, [*common, *more]) for name, more in runs.items()}
        results = {name: future.result() for name, future in found.items()}
    table = markdown(recipe, results, list(seeds))
    (out / "learning.md").write_text(table)
    if arguments.controls:
        draw(recipe, results, list(seeds), out / "learning.png")
    print(table)


if __name__ == "__main__":
    main()
