"""Real data and golden numbers that are not part of the project: found beside the checkout or through ``RSW_SHARED``, else skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(path: str) -> Path:
    """``path`` below the shared folder; skips the test, saying so, where it is absent."""
    named = os.environ.get("RSW_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / path).exists():
        pytest.skip(f"shared data {path!r} is absent; set RSW_SHARED to the folder that holds it")
    return folder / path
