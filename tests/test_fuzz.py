"""A slice of the fuzzer of ``benchmarks/fuzz.py``, and proof that it would see the faults that it looks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_broken_records_and_files_are_statuses_or_one_sentence_each() -> None:
    run = subprocess.run(
        [sys.executable, FUZZ, "--records", "100", "--seed", "1", "--light", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.stdout, run.stderr
    found = json.loads(run.stdout)
    assert {kind: some for kind, some in found["found"].items() if some} == {}
    assert found["total"] >= 100 and {"ok", "invalid_output", "error"} <= found["statuses"].keys()
