"""The order of the package: imports go down in the list of rooms, without circles; tests use no private name."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rsw_rewards"
ROOMS = (
    "errors", "_torchvision", "assets", "configs", "extras", "pixels", "core", "methods", "rl_settings", "config", "io", "encoders",
    "features", "detectors", "data", "engine", "serve", "verifiers", "rollouts", "evaluation", "training", "redteam", "metrics", "predictions",
    "api", "rsw_rewards",
    "integrations", "cli",
)  # fmt: skip
"""From the ground up: modules and folders of the package; ``rsw_rewards`` is its face, the module of the public names."""
UPWARDS = {
    ("core.rubric", "verifiers"): "the table of the built-in verifiers",
    ("core.verifier", "features.bank"): "a type alone",
}
"""Imports that go up, and what they are for."""


def files() -> Iterator[tuple[str, Path]]:
    """Name within the package -> file, of all modules; the linked folders count as parts of the package."""
    for folder, _, names in os.walk(PACKAGE, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                file = Path(folder, name)
                parts = file.relative_to(PACKAGE).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "rsw_rewards", file


MODULES = dict(files())


def imported(name: str) -> set[str]:
    """The modules of the package that a module imports, at its top, in a function, or for type checkers alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by dots; write the whole name"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {one for one in whole if one.removeprefix("rsw_rewards.") in MODULES}
            found |= inner or {str(node.module)}
    known = {one.removeprefix("rsw_rewards.") for one in found if one.partition(".")[0] == "rsw_rewards"}
    return known - {name}


IMPORTS = {name: imported(name) for name in MODULES}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} <= set(ROOMS), "a new room needs its place in ROOMS"


def test_imports_go_down() -> None:
    up = {
        (name, one)
        for name, found in IMPORTS.items()
        for one in found
        if ROOMS.index(room(one)) > ROOMS.index(room(name))
    }
    assert up == set(UPWARDS)


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


TRL = {
    "_compute_loss",
    "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies",
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",
    "_prepare_inputs",
    "_save_optimizer_and_scheduler",
    "_step",
}
"""Private names of TRL's trainer and of the one below it that a subclass of this package uses, and that tests hold it to."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each private name that a module imports, reads from an object other than its own, or patches by text."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") == 0:
            names = node.value.replace(":", ".").split(".")
        yield from ((node.lineno, name) for name in names if is_private(name))


def test_tests_reach_no_private_name() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in MODULES.values()]
    ours = {
        name
        for node in (node for tree in trees for node in ast.walk(tree))
        if not isinstance(getattr(node, "ctx", None), ast.Load)  # what is defined here, not what is used of others
        for name in (getattr(node, "name", None), getattr(node, "id", None), getattr(node, "attr", None))
        if isinstance(name, str) and is_private(name) and len(name) > 1
    } - TRL
    reached = [
        f"{file.relative_to(PACKAGE.parent)}:{line} {name}"
        for file in sorted(Path(__file__).parent.rglob("*.py"))
        for line, name in private_names(ast.parse(file.read_text(encoding="utf-8")))
        if name in ours and file != Path(__file__)
    ]
    assert reached == []
