"""Every adapter: it imports without its trainer, is one short file, has a page, and its examples run."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rsw_rewards as rsw
import rsw_rewards.integrations

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in Path(rsw_rewards.integrations.__file__).parent.glob("[!_]*.py")}
del FILES["adapter"]  # what they share
FOREIGN = [
    "torch",
    "trl",
    "verl",
    "swift",
    "areal",
    "slime",
    "verifiers",
    "inspect_ai",
    "lmms_eval",
    "flow_factory",
    "flow_grpo",
    "openrlhf",
    "accelerate",
    "ray",
]


def test_adapters_import_without_trainers() -> None:
    names = [f"rsw_rewards.integrations.{name}" for name in FILES]
    code = f"import sys, {', '.join(names)}; print([name for name in {FOREIGN} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("name", FILES)
def test_an_adapter_is_short_has_a_page_and_examples_that_run(name: str) -> None:
    assert len(FILES[name].read_text().splitlines()) <= 120
    pages = (ROOT / "docs/integrations/README.md").read_text()
    assert f"({name}.md)" in pages and (ROOT / f"docs/integrations/{name}.md").is_file()
    module = importlib.import_module(f"rsw_rewards.integrations.{name}")
    failed, tried = doctest.testmod(module, globs={"rsw": rsw, "np": np, **vars(module)})
    assert tried and not failed
