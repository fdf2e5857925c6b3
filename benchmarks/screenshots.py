"""Screenshots of docs/reports.md: the tops of the page of an evaluation and of the page of a training, as a browser shows them.

    python benchmarks/screenshots.py runs/trained runs/quickstart [--chromium PATH] [--out docs/figures]

Needs playwright (pip install 'rsw_rewards[browser]') and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(pages: dict[str, Path], browser: str, out: Path) -> None:
    with sync_playwright() as running:
        started = running.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        shown = started.new_page(viewport={"width": 1200, "height": 800})
        for name, folder in pages.items():
            shown.goto((folder / "report.html").resolve().as_uri())
            shown.screenshot(path=out / f"{name}.png")
            print(f"{out / name}.png: {(out / f'{name}.png').stat().st_size:,} bytes")
        started.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, BROWSERS)), None))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/figures")
    asked = parser.parse_args()
    if asked.chromium is None:
        parser.error(f"no browser is found; install one of {', '.join(BROWSERS)}, or name it by --chromium")
    main({"evaluation": asked.evaluation, "training": asked.training}, asked.chromium, asked.out)
