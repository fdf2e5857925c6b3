"""A run says at its end how many tests were skipped, and what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_line_counts_what_is_skipped_without_shared_data() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/data/test_qag_360k.py"]
    ended = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "RSW_SHARED": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 skipped: 1 need shared data (set RSW_SHARED)" in ended.stdout.splitlines()
