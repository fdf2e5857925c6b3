"""Whether the package installs beside the trainers that its rewards plug into: ``make resolve`` prints the table of docs/install.md.

pip resolves each pair without installing anything (``pip install --dry-run``). A pair takes one to four minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

TRAINERS = ("verl==0.9.1", "ms-swift==4.6.0", "areal==1.0.4", "verifiers==0.4.0", "openrlhf==0.11.2")
BUILT_ON_CUDA = {"openrlhf==0.11.2": ("deepspeed", "flash-attn")}
"""Requirements that pip must compile to know what they need, which takes CUDA: the trainer's other requirements are resolved."""
SHOWN = ("numpy", "pandas", "pyarrow", "pydantic", "torch", "transformers", "trl")
"""Packages whose chosen version is shown."""


def requirements(trainer: str) -> list[str]:
    """The trainer itself, or what it requires less :data:`BUILT_ON_CUDA`."""
    left_out = BUILT_ON_CUDA.get(trainer)
    if left_out is None:
        return [trainer]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, trainer]
        subprocess.run(command, check=True, capture_output=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            lines = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])
    return [line for line in lines if "extra ==" not in line and not line.startswith(left_out)]


def resolve(wheel: Path, extra: str, trainer: str) -> tuple[dict[str, str], str]:
    """Package -> version that pip would install for the pair, or nothing and pip's reason."""
    ours = f"rsw_rewards{f'[{extra}]' if extra else ''} @ {wheel.resolve().as_uri()}"
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", report.name, ours, *requirements(trainer),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return {}, next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "ERROR")
        plan = json.loads(Path(report.name).read_text())["install"]
    return {re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"] for item in plan}, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--extras", nargs="*", default=["", "torch"], help="extras of ours; '' is the core")
    parser.add_argument("--trainers", nargs="*", default=list(TRAINERS))
    options = parser.parse_args()
    failed = False
    print(f"| trainer | ours | resolves | packages | {' | '.join(SHOWN)} |")
    print("|---" * (4 + len(SHOWN)) + "|")
    for trainer in options.trainers:
        for extra in options.extras:
            found, reason = resolve(options.wheel, extra, trainer)
            failed |= not found
            versions = " | ".join(found.get(name, "") for name in SHOWN)
            print(
                f"| {trainer} | {f'[{extra}]' if extra else 'core'} | {reason or 'yes'} | {len(found)} | {versions} |",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
