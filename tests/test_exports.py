"""The public names: complete, known to type checkers, and free of charge until they are used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rsw_rewards as rsw

HEAVY = ("torch", "pandas", "ray", "transformers", "pyarrow", "matplotlib", "rasterio", "numpy", "pydantic")


@pytest.mark.parametrize("name", rsw.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(rsw, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(rsw)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(rsw.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert {*seen, "__version__"} == set(rsw.__all__)
    for name, module in seen.items():
        assert getattr(rsw, name) is getattr(importlib.import_module(str(module)), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rsw.nonsense  # noqa: B018


def test_importing_loads_nothing_heavy():
    code = f"import sys, rsw_rewards; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
