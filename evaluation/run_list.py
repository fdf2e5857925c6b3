"""The runs below a folder that have a page, and the page that lists them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rsw_rewards.core.files import read_json
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import RswError
from rsw_rewards.evaluation.numbers import number
from rsw_rewards.evaluation.pages import render

PAGES = {
    "report.html": "",
    "ablation.html": "ablation",
    "attack.html": "attack",
    "comparison.html": "comparison",
    "suite.html": "suite",
}
"""File name of a page -> what it is of; a report is of what its folder says."""
DEEPEST = 5
"""Folders below the first in which runs are looked for."""
NUMBERS = 4
"""Numbers of a run that the list shows."""
ROWS = 100


def listed(root: Path) -> list[dict[str, str]]:
    """The pages of runs below a folder, newest first: ``page`` (relative to the folder), ``name``, ``what``, ``numbers`` and ``written``."""
    found = []
    for page in _pages(root, DEEPEST):
        folder = page.parent
        what, numbers = (PAGES[page.name], "") if PAGES[page.name] else _of_run(folder)
        name = folder.relative_to(root).as_posix()
        found.append(
            {"page": "./" + quote(page.relative_to(root).as_posix()), "name": root.resolve().name if name == "." else name, "what": what, "numbers": numbers,
             "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(page.stat().st_mtime))}
        )  # fmt: skip
    return sorted(found, key=lambda row: row["written"], reverse=True)


def _pages(folder: Path, depth: int) -> Iterator[Path]:
    """The pages in a folder and those below it, links left out."""
    yield from (page for name in PAGES if (page := folder / name).is_file() and not page.is_symlink())
    if depth:
        try:
            inner = sorted(
                one
                for one in folder.iterdir()
                if one.is_dir() and not one.is_symlink() and not one.name.startswith(".")
            )
        except PermissionError:
            return
        for one in inner:
            yield from _pages(one, depth - 1)


def _of_run(folder: Path) -> tuple[str, str]:
    """What the run in a folder is, and its first numbers, in words; empty where the folder does not say."""
    try:
        config = read_yaml(folder / "config.yaml")
        if "method" in config:
            record = read_json(folder / "heldout.json", dict[str, Any]) if (folder / "heldout.json").is_file() else {}
            changes = (record.get("changes") or {}).get("greedy") or {}
            told = [
                f"{key} {number(one['before']['value'])} → {number(one['after']['value'])}"
                for key, one in changes.items()
            ]
            return f"training, {config['method']}", _first(told)
        if "protocol" in config:
            summary = read_json(folder / "summary.json", dict[str, Any])
            shown = [
                f"{key} {number(one['value'])}" for key, one in summary["metrics"].items() if not one.get("diagnostic")
            ]
            return f"evaluation, {config['protocol']}", _first(shown)
    except (RswError, KeyError, TypeError, AttributeError):  # a damaged run is in the list all the same
        return "damaged", ""
    return "", ""


def _first(words: list[str]) -> str:
    return " · ".join(words[:NUMBERS]) + (" · …" if len(words) > NUMBERS else "")


def list_page(root: Path) -> str:
    """The list as a page, with links to the pages of the runs."""
    rows = [[[one["name"], one["page"]], one["what"], one["numbers"], one["written"]] for one in listed(root)]
    columns: list[Any] = [["run", "link"], ["what", "text", True], ["numbers", "text"], ["written", "text"]]
    table: Mapping[str, Any] = {"columns": columns, "rows": rows, "size": ROWS}
    return render("runs.html", name=root.resolve().name, runs=table)
