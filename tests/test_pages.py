"""The pages name what there is: every protocol, baseline, extra, command and figure; and their sentences can be read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import rsw_rewards as rsw
from rsw_rewards.core.rubric import VERIFIERS

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
        program = re.search(r"[\w/]+\.(?:py|yaml)|make [\w-]+", figures.command)
        assert program and (program[0].startswith("make ") or (ROOT / program[0]).is_file()), figures.command
        named.add(program[0])
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    told = {found for file in pages for found in re.findall(r"benchmarks/\w+\.py", file.read_text(encoding="utf-8"))}
    assert told <= named, "a page names a program that benchmarks/figures.py does not run"


def test_every_page_with_measured_tables_is_printed_again() -> None:
    from benchmarks.figures import FIGURES, rows

    printed = {(ROOT / "docs" / figures.page).resolve() for figures in FIGURES.values()}
    measured = re.compile(r"\d\.\d.*\d\.\d")
    for file in (ROOT / "docs").rglob("*.md"):
        found = [
            name
            for name, cells in rows(file.read_text(encoding="utf-8"))
            if measured.search(re.sub(r"`[^`]*`|\barXiv [\d., ]+", "", cells))
        ]
        assert len(found) < 4 or file.resolve() in printed, (
            f"{file} has measured rows, such as {found[0]}, and no command"
        )


def test_a_row_with_other_figures_is_said_to_have_changed() -> None:
    from benchmarks.figures import changed

    page = "| reward | copy | noise |\n|---|---|---|\n| `psnr` | 0.56 | 0.22 |\n| `ssim` | 0.92 | 0.50 |\n"
    assert changed(page, page) == []
    assert changed(page.replace("0.92", "0.91"), page) == ["ssim: 0.91 | 0.50"]
    assert changed("| another | 1 |", page) == []


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_SENTENCE, LONGEST_LINE = 35, 200


def prose(text: str) -> list[str]:
    """The paragraphs, list items and cells of a page, without code blocks; a span of code or a link counts as its words."""
    text = re.sub(r"^```.*?^```.*?$|<!--.*?-->", "\n\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\s*(?:[*-]|\d+\.|#+) ", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\|.*$", lambda row: "\n\n" + row[0].replace("|", "\n\n") + "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "Code", text)).replace("*", "")
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def sentences(text: str) -> list[str]:
    """The sentences of a page; a colon that is followed by a capital ends one as well.

    >>> sentences("One. Two `a. b` three:\\n\\n* Four")
    ['One.', 'Two Code three:', 'Four']
    """
    return [one for part in prose(text) for one in re.split(r"(?<=[.!?:])[)\"]?\s+(?=[A-Z\"(])", part)]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_sentences_and_lines_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    words = re.compile(r"\w[\w'\u2019.,/-]*")
    assert not [one for one in sentences(text) if len(words.findall(one)) > LONGEST_SENTENCE]
    # A row of a table is one line in Markdown, however many cells it has.
    assert not [line for line in text.splitlines() if len(line) > LONGEST_LINE and not line.startswith("|")]


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


LONGEST_PART = 190


def test_a_card_is_six_short_lines() -> None:
    """Summary, range, transform, source, gaming and cost; what needs more words stands in docs/verifiers.md."""
    long = [
        (name, key)
        for name, found in VERIFIERS.all().items()
        for key, text in dataclasses.asdict(found.card).items()
        if len(text) > LONGEST_PART
    ]
    assert not long
    headings = re.findall(r"^## (\w+)$", page("verifiers"), re.MULTILINE)
    assert headings and set(headings) <= {*rsw.names("verifiers")}
