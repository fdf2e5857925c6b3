"""Run the contract tests of the adapters against the real packages, one environment after another, and print what came out.

    python tests/integrations/run.py [--failures] [NAME ...]

With ``--failures`` it prints the table of failures.py instead, of the trainers of each environment.

An environment is the project's own with a folder of packages before it, which is removed afterwards. Tests run outside the repository, where its folder ``verifiers`` does not stand in the way of a package of that name.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(name: str, environment: dict[str, Any], failures: bool) -> str:
    """The last line of the tests of one environment; or its rows of the table of failures."""
    with tempfile.TemporaryDirectory() as work:
        packages = Path(work, "packages")
        for key, option in (("alone", ["--no-deps"]), ("whole", [])):
            if wanted := environment.get(key):
                install = [
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    *option,
                    "--target",
                    str(packages),
                    *wanted,
                ]
                if subprocess.run(install, check=False).returncode:
                    return "cannot be installed"
        tests = [str(HERE / part) for part in environment["tests"].split()]
        command = ["-m", "pytest", "-rs", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *tests]
        if failures:
            command = [str(HERE / "failures.py"), *environment.get("failures", [name])]
        paths = os.pathsep.join([str(packages), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-P", *command],
            cwd=work, env={**os.environ, "PYTHONPATH": paths, "RSW_ENVIRONMENT": name}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        for line in lines:
            if line.startswith("SKIPPED"):
                print(f"{name}: {line}", file=sys.stderr)
        if failures:
            rows = "\n".join(line for line in lines if line.startswith("| "))
            return f"failed: {name}" if done.returncode else rows
        return ("failed: " if done.returncode else "") + re.sub(r" in [\d.]+s.*", "", lines[-1])


def main() -> int:
    failures, names = "--failures" in sys.argv, [name for name in sys.argv[1:] if name != "--failures"]
    environments = tomllib.loads((HERE / "environments.toml").read_text())
    if failures:
        print("| trainer | no failure | raise | NaN | hang | killed process |\n|---|---|---|---|---|---|", flush=True)
    else:
        print("| environment | against | tests |\n|---|---|---|", flush=True)
    found = []
    for name in names or environments:
        found.append(run(name, environments[name], failures))
        against = environments[name].get("against") or environments[name]["alone"][0]
        print(found[-1] if failures else f"| {name} | {against} | {found[-1]} |", flush=True)
    return any(line.startswith(("failed", "cannot")) for line in found)


if __name__ == "__main__":
    sys.exit(main())
