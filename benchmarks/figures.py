"""Prints the figures of the documentation again, and says which differ from those in the pages.

    python benchmarks/figures.py --list                          # which command prints the figures of which page
    python benchmarks/figures.py [--only NAME ...]               # run them; what they print is kept in build/figures
    python benchmarks/figures.py --page statistics.md --most 20  # those of one page that take at most 20 minutes

A command is compared with its page by the rows of tables: a row with the same first cell and other figures has changed. Times and
sizes depend on the machine, so the list says what each command is measured on. Short commands run first; all of them take half a day.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Figures(NamedTuple):
    """What one command prints."""

    page: str
    """In ``docs/``."""
    what: str
    command: str
    """Run in the root of the repository; ``{out}`` is a folder for what it writes."""
    needs: str = "two CPU cores"
    minutes: int = 1
    """About how long it takes."""


FIGURES = {
    "adapters": Figures("integrations/README.md", "what rewards cost in a trainer", "python benchmarks/adapters.py", minutes=5),
    "attacks": Figures("attacks.md", "the best attack on every verifier", "python benchmarks/attacks.py", "shared data", 60),
    "tricks": Figures("forecasts.md", "what fools what", "python benchmarks/tricks.py", "shared data", 30),
    "frechet": Figures("forecasts.md", "time of set distances", "python benchmarks/frechet.py", minutes=10),
    "memory": Figures("forecasts.md", "memory of set distances", "python benchmarks/memory.py", minutes=30),
    "features": Figures("forecasts.md", "time of verifiers that share features", "python benchmarks/features.py", minutes=5),
    "gpu_scoring": Figures("forecasts.md", "images a second", "python benchmarks/gpu_scoring.py", "a GPU, or two CPU cores", 5),
    "coverage": Figures("statistics.md", "how often intervals hold the truth", "python benchmarks/coverage.py", minutes=60),
    "coverage_counts": Figures("statistics.md", "intervals of all counts", "python benchmarks/coverage.py --counts"),
    "missing": Figures("statistics.md", "distances where forecasts are missing", "python benchmarks/coverage.py --missing"),
    "spectral": Figures("forecasts.md", "baselines of all bands", "python benchmarks/spectral.py", "shared data"),
    "own_data": Figures("training.md", "a training on one's own questions", "python benchmarks/own_data.py {out}", minutes=8),
    "readings": Figures("benchmarks.md", "what baselines get", "python benchmarks/readings.py", "the extra wordnet for two rows"),
    "exact_match": Figures("results.md", "time of closed answers", "python benchmarks/exact_match.py"),
    "learning_grpo": Figures("results.md", "what GRPO adds", "python benchmarks/learning.py {out} --recipe grpo --controls --jobs 2", minutes=60),
    "learning_ppo": Figures("results.md", "what PPO adds", "python benchmarks/learning.py {out} --recipe ppo --controls", minutes=60),
    "learning_vlm": Figures("results.md", "a vision-language model", "python benchmarks/learning.py {out} --recipe vlm --seeds 4 5 6 --controls", minutes=15),
    "learning_flow": Figures("results.md", "a forecaster by Flow-GRPO", "python benchmarks/learning.py {out} --recipe flow_grpo --controls", minutes=15),
    "learning_ddpo": Figures("results.md", "a forecaster by DDPO", "python benchmarks/learning.py {out} --recipe ddpo --controls", minutes=15),
    "ablation": Figures("results.md", "which reward did it", "rsw ablate configs/ablation.yaml --out {out} --kinds leave-one-out --seeds 1,2,3,4,5", minutes=120),
    "ablation_single": Figures("results.md", "each reward alone", "rsw ablate configs/ablation.yaml --out {out} --kinds single --seeds 1,2,3", minutes=60),
    "supervised": Figures("results.md", "where reinforcement learning starts", "rsw train configs/embedded/supervised.yaml --set out={out}/run --set ship=null", minutes=30),
    "quickstart": Figures("results.md", "what the quickstart costs", "rsw train configs/quickstart.yaml --set out={out}/run", minutes=6),
    "scene_world": Figures("results.md", "samples a second", "rsw data make scene-world --n 1000 --out {out}/scenes"),
    "shared_prefix": Figures("scaling.md", "learning with shared prefixes", "python benchmarks/learning.py {out} --recipe vlm --seeds 1 2 3 --set grpo.steps=60", minutes=10),
    "no_shared_prefix": Figures("scaling.md", "learning without them", "python benchmarks/learning.py {out} --recipe vlm --seeds 1 2 3 --set grpo.steps=60 --set grpo.shared_prefix=false", minutes=10),
    "trl_example": Figures("integrations/trl.md", "TRL and rsw train side by side", "python benchmarks/trl_example.py {out}", minutes=15),
    "trainers": Figures("integrations/README.md", "tests against trainers", "python tests/integrations/run.py", "a package index", 60),
    "failures": Figures("integrations/README.md", "a failed reward in trainers", "python tests/integrations/run.py --failures", "a package index", 60),
    "overlap": Figures("scaling.md", "scoring beside generation", "python benchmarks/overlap.py", minutes=10),
    "driver_memory": Figures("scaling.md", "memory of the learner", "python benchmarks/driver_memory.py", minutes=20),
    "group_price": Figures("scaling.md", "a step beside TRL's trainer", "python benchmarks/group_price.py", minutes=5),
    "group_price_curve": Figures("scaling.md", "by group and length of answers", "python benchmarks/group_price.py --curve --turns 1", minutes=30),
    "group_price_quickstart": Figures("scaling.md", "the step of the quickstart", "python benchmarks/group_price.py --quickstart --turns 1", minutes=2),
    "vro_step": Figures("scaling.md", "a step of the RS-WorldModel recipe", "python benchmarks/vro_step.py --size tiny", minutes=5),
    "sharded": Figures("scaling.md", "two learner processes beside one, divided or not", "python benchmarks/sharded.py {out}", minutes=10),
    "serving": Figures("serving.md", "requests a second", "python benchmarks/serving.py", minutes=10),
    "tamper": Figures("reliability.md", "damaged files", "python benchmarks/tamper.py", minutes=10),
    "kills": Figures("reliability.md", "killed runs", "python benchmarks/kills.py", minutes=30),
    "alarms": Figures("reliability.md", "alarms on rewards that can be hacked", "python benchmarks/alarms.py {out}", minutes=60),
    "sizes": Figures("install.md", "disk space of the extras", "python benchmarks/sizes.py"),
    "resolve": Figures("install.md", "versions beside other trainers", "make resolve", "a package index", 15),
    "screenshots": Figures("reports.md", "the tops of two pages", "python benchmarks/screenshots.py runs/trained runs/quickstart", "the README's runs, Chromium"),
    "before_after": Figures("../README.md", "the forecast before and after", "python benchmarks/before_after.py build/figures/quickstart/run", "the run of 'quickstart'", 7),
}  # fmt: skip
"""Every command that prints figures of the pages."""


def rows(text: str) -> Iterator[tuple[str, str]]:
    """First cell and the rest of every row of a table in Markdown."""
    for line in text.splitlines():
        cells = [cell.strip(" *`") for cell in line.strip().strip("|").split("|")]
        if line.lstrip().startswith("|") and len(cells) > 1 and re.search(r"\d", "".join(cells[1:])):
            yield cells[0], " | ".join(cells[1:])


def numbers(text: str) -> list[float]:
    """The numbers of a row, in their order.

    >>> numbers("`psnr` 0.56 (71 %), 1,200")
    [0.56, 71.0, 1200.0]
    """
    return [float(found.replace(",", "")) for found in re.findall(r"(?<![\w.@])[+-]?\d[\d,]*\.?\d*(?![\w])", text)]


def changed(printed: str, page: str) -> list[str]:
    """The rows of which a page has the first cell, and in no row with that cell the same numbers in the same order.

    >>> changed("| copy | 0.5 |", "| copy | 0.4 |")
    ['copy: 0.5']
    """
    known: dict[str, list[list[float]]] = {}
    for name, figures in rows(page):
        known.setdefault(name, []).append(numbers(figures))
    return [
        f"{name}: {figures}"
        for name, figures in rows(printed)
        if name in known and not any(_within(numbers(figures), row) for row in known[name])
    ]


def _within(few: list[float], many: list[float]) -> bool:
    """Whether all of ``few`` stand in ``many`` in this order."""
    left = iter(many)
    return all(any(one == other for other in left) for one in few)


def run(name: str, figures: Figures) -> str:
    """Run one command; returns one line about it."""
    out = ROOT / "build/figures" / name
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    command = shlex.split(figures.command.format(out=out))
    if command[0] in ("python", "rsw"):  # those beside this interpreter, whatever is on the path
        command[0] = str(Path(sys.executable).with_name(command[0]))
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    printed = "\n".join(
        [ended.stdout, *(file.read_text() for file in sorted(out.glob("*.md")) if file.name != "printed.md")]
    )
    (out / "printed.md").write_text(printed + ended.stderr)
    took = f"{time.perf_counter() - start:.0f} s"
    if ended.returncode:
        return f"{name}: failed with {ended.returncode} after {took}, see {out / 'printed.md'}"
    other = changed(printed, (ROOT / "docs" / figures.page).read_text(encoding="utf-8"))
    compared = sum(1 for _ in rows(printed))
    said = f"{len(other)} of {compared} rows differ" if compared else "prints no table: compare by hand"
    return "\n    ".join([f"{name} ({figures.page}): {said}, {took}, {out / 'printed.md'}", *other])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pages = sorted({figures.page for figures in FIGURES.values()})
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), metavar="NAME")
    parser.add_argument("--page", nargs="+", choices=pages, default=pages, metavar="PAGE")
    parser.add_argument("--most", type=int, default=24 * 60, help="leave out what takes longer than so many minutes")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    for name in sorted(asked.only, key=lambda name: FIGURES[name].minutes):
        figures = FIGURES[name]
        if figures.page not in asked.page or figures.minutes > asked.most:
            continue
        print(
            f"{name}: docs/{figures.page}, {figures.what}; {figures.command} ({figures.needs}, about {figures.minutes} min)"
        )
        if not asked.list:
            print(run(name, figures), flush=True)
