"""Code of benchmarks, read from clones that a person made: tests that hold a reading against it are skipped where there are none.

``RSW_ORIGINALS`` names a folder with clones called ``<owner>+<name>``. Files are read at the commit that a test names.
"""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def text(repository: str, commit: str, path: str) -> str:
    """A file of a repository at a commit; skips the test, saying so, where there is no clone that has it."""
    folder = Path(os.environ.get("RSW_ORIGINALS", "/nowhere"), repository.replace("/", "+"))
    for clone in (folder / "repo", folder):
        if clone.is_dir():
            found = subprocess.run(
                ["git", "-C", str(clone), "show", f"{commit}:{path}"], capture_output=True, check=False
            )
            if found.returncode == 0:
                return found.stdout.decode()
    pytest.skip(f"needs a clone of {repository} with {commit} in the folder that RSW_ORIGINALS names")


def parts(repository: str, commit: str, path: str, *names: str, **given: Any) -> SimpleNamespace:
    """Functions, classes and constants of a file, by name, run with what is given to them as the names that they use."""
    chosen = []
    for node in ast.parse(text(repository, commit, path)).body:
        targets = [one.id for one in node.targets if isinstance(one, ast.Name)] if isinstance(node, ast.Assign) else []
        if getattr(node, "name", None) in names or set(targets) & set(names):
            chosen.append(node)
    scope = dict(given)
    exec(compile(ast.Module(chosen, []), f"{repository}/{path}", "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in names})
