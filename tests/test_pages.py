"""The pages name what there is: every protocol, baseline, extra, command and figure; and their sentences can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rsw_rewards as rsw

ROOT = Path(__file__).parents[1]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "where"), [("protocols", "protocols benchmarks"), ("baselines", "baselines"), ("adapters", "data")]
)
def test_a_page_names_all_of_a_kind(kind: str, where: str) -> None:
    text = "".join(map(page, where.split()))
    assert not [name for name in rsw.names(kind) if f"`{name}`" not in text]


def test_every_figure_of_the_pages_has_a_command_that_prints_it() -> None:
    from benchmarks.figures import FIGURES

    named = set()
    for figures in FIGURES.values():
        assert (ROOT / "docs" / figures.page).is_file(), figures.page
        program = re.search(r"benchmarks/\w+\.py|configs/\w+\.yaml|make \w+", figures.command)
        assert program and (program[0].startswith("make ") or (ROOT / program[0]).is_file()), figures.command
        named.add(program[0])
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    told = {found for file in pages for found in re.findall(r"benchmarks/\w+\.py", file.read_text(encoding="utf-8"))}
    assert told <= named, "a page names a program that benchmarks/figures.py does not run"


def test_a_row_with_other_figures_is_said_to_have_changed() -> None:
    from benchmarks.figures import changed

    page = "| reward | copy | noise |\n|---|---|---|\n| `psnr` | 0.56 | 0.22 |\n| `ssim` | 0.92 | 0.50 |\n"
    assert changed(page, page) == []
    assert changed(page.replace("0.92", "0.91"), page) == ["ssim: 0.91 | 0.50"]
    assert changed("| another | 1 |", page) == []
