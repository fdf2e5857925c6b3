"""Every example that a user reads runs: those in the docstrings of public names, and the Python blocks of README and docs."""

from __future__ import annotations

import doctest
import inspect
import pathlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw

ROOT = Path(__file__).parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(r"^```python *(?P<info>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def public_objects() -> Iterator[tuple[str, Any]]:
    for name in rsw.__all__:
        value = getattr(rsw, name)
        if isinstance(value, ModuleType):
            yield from ((f"{name}.{part}", getattr(value, part)) for part in value.__all__)
        elif inspect.isclass(value) or callable(value):
            yield name, value


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for name, value in public_objects():
        tests = finder.find(value, f"rsw.{name}", module=False, globs={"rsw": rsw, "np": np, "pathlib": pathlib})
        found += [test for test in tests if test.examples]
    return found


@pytest.mark.parametrize("example", [pytest.param(test, id=test.name) for test in examples()])
def test_docstring(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


NOT_RUN = {"ablate", "load_policy", "metrics.meteor", "Run", "train"}
"""Public objects whose examples need a training, or Java; they have tests of their own."""


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in public_objects()])
def test_every_public_object_has_an_example_that_runs(name, value):
    lines = [line for line in (value.__doc__ or "").splitlines() if ">>>" in line]
    assert lines
    assert name in NOT_RUN or not any("+SKIP" in line for line in lines)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES_WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: page.name)
def test_page(page, tmp_path, monkeypatch):
    """The Python blocks of a page run in their order, in one folder and one namespace, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        if block["info"] == "notest":
            continue
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block["code"], str(page), "exec", dont_inherit=True), names)
