"""Baselines of ``spectral-forecast`` on the Landsat tiles of Taizhou, as rows of docs/forecasts.md.

Run: python benchmarks/spectral.py [--shared DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import rsw_rewards as rsw

METRICS = ("spectral_agreement", "spectral_direction", "physical_range", "gain_over_copy")
SHOWN = ("copy_before", "noise", "mean_image", "oracle")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--shared", type=Path, default=Path(os.environ.get("RSW_SHARED") or Path(__file__).resolve().parents[2] / "shared")
)
pairs = parser.parse_args().shared / "data/landsat_taizhou"
with tempfile.TemporaryDirectory() as folder:
    rsw.data.convert("raster-pairs", pairs, folder, keep_bands=True, tasks=["forecast"])
    found = rsw.evaluate("spectral-forecast", Path(folder) / "samples.jsonl", policy="oracle")
print("| | " + " | ".join(SHOWN) + " |\n|---|" + "---|" * len(SHOWN))
for metric in METRICS:
    values = (found.summary["baselines"][name]["metrics"][metric]["value"] for name in SHOWN)
    print(f"| `{metric}` | " + " | ".join(f"{value:.2f}" for value in values) + " |")
