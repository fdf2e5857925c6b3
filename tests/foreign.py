"""Packages of other people that a test needs: skipped where they are absent, except where they were installed for it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest


def package(name: str) -> ModuleType:
    """The module; the test is skipped without it, but fails in ``make test-integrations``, which has installed it."""
    if os.environ.get("RSW_ENVIRONMENT"):
        return importlib.import_module(name)
    return pytest.importorskip(
        name, reason=f"needs {name.split('.')[0]}; run: make test-integrations", exc_type=ImportError
    )


def checkout(repository: str, commit: str) -> Path:
    """The checkout of a repository that no index has, put first on the path; the test is skipped without it."""
    folder = Path(os.environ.get("RSW_TRAINERS", "/nowhere"), repository)
    if not folder.is_dir():
        pytest.skip(f"needs a checkout of {repository} at {commit} in the folder that RSW_TRAINERS names")
    sys.path.insert(0, str(folder))
    return folder
