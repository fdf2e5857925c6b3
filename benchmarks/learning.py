"""Does it learn, and from the rewards? Three seeds of the quickstart beside two controls, on held-out scenes.

Run: python benchmarks/learning.py OUT [--jobs 2]. Finished runs in OUT are kept. Prints JSON; writes OUT/learning.md and OUT/learning.png.
The controls: the rewards of every task dealt out at random among its outputs, and more supervised training on true labels instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"
RUNS: dict[str, list[str]] = {
    "grpo seed 1": ["seed=1"],
    "grpo seed 2": ["seed=2"],
    "grpo seed 3": ["seed=3"],
    "permuted rewards": ["seed=1", "control=permute_rewards"],
    # Its steps take as long, corpus included, as the 100 steps of GRPO.
    "supervised": ["seed=1", "control=supervised", "supervised.steps=350", "supervised.scenes=6000"],
}
SHOWN = (
    ("greedy", "gain_over_copy"),
    ("sampled", "accuracy"),
    ("greedy", "accuracy"),
    ("sampled", "gain_over_copy"),
    ("greedy", "fd_scene-clip"),
    ("greedy", "change_f1"),
)


def run(name: str, out: Path, more: list[str]) -> dict[str, Any]:
    """Train and measure in a process of its own, on one thread, so that runs side by side do not disturb each other."""
    folder = out / name.replace(" ", "_")
    if not (folder / "heldout.json").exists():
        arguments = [*RUNS[name], f"out={folder}", "grpo.threads=1", *more]
        command = [str(Path(sys.executable).with_name("rsw")), "train", str(CONFIG)]
        command += [part for argument in arguments for part in ("--set", argument)]
        with (out / f"{folder.name}.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads((folder / "heldout.json").read_text())


def cell(change: dict[str, Any]) -> str:
    """``before -> after, difference [interval]``."""
    low, high = change["difference"]["ci95"]
    before, after = change["before"]["value"], change["after"]["value"]
    return f"{before:.3f} -> {after:.3f}, {change['difference']['value']:+.3f} [{low:+.3f}, {high:+.3f}]"


def markdown(results: dict[str, Any]) -> str:
    """One table: a row a run, a column a number."""
    heads = [f"{metric}, {mode}" for mode, metric in SHOWN]
    lines = ["| run | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, result in results.items():
        cells = [cell(result["changes"][mode][metric]) for mode, metric in SHOWN]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Paired differences with their intervals, a panel a number."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = SHOWN[:4]
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 2.6), sharey=True, constrained_layout=True)
    names = list(results)
    for axis, (mode, metric) in zip(axes, panels, strict=True):
        for row, name in enumerate(names):
            difference = results[name]["changes"][mode][metric]["difference"]
            low, high = difference["ci95"]
            colour = "#0b6e6e" if name.startswith("grpo") else "#8a8f98"
            axis.plot([low, high], [row, row], color=colour, linewidth=2)
            axis.plot(difference["value"], row, "o", color=colour)
        axis.axvline(0, color="#b3382c", linewidth=0.8)
        axis.set_title(f"{metric}, {mode}", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.supxlabel("difference after training, 95 % interval over held-out scenes", fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of every run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = {name: pool.submit(run, name, arguments.out, arguments.set) for name in RUNS}
        results = {name: future.result() for name, future in found.items()}
    (arguments.out / "learning.md").write_text(markdown(results))
    draw(results, arguments.out / "learning.png")
    print(json.dumps({name: result["changes"] for name, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
