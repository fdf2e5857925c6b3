"""The pages as a site: they build without a warning, need nothing from elsewhere, and name everything that is public."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rsw_rewards as rsw

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return folder


LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc(?:set)?=\"?(?P<source>[^\s\">]+)"
    r"|<link\b(?![^>]*rel=\"?canonical)[^>]*\bhref=\"?(?P<link>[^\s\">]+)"
    r"|(?:url\(|@import\s)[\"']?(?P<style>[^)\"']+)"
)
"""What a page or a style sheet loads by itself, without a click."""


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 20
    loaded = [
        (file.name, address)
        for file in files
        for found in LOADED.finditer(file.read_text(encoding="utf-8"))
        if re.match(r"(?:https?:)?//", address := next(filter(None, found.groups())))
    ]
    assert not loaded
    # Diagrams of Mermaid would be drawn by a script from a content network.
    assert not [file.name for file in site.rglob("*.html") if 'class="mermaid"' in file.read_text(encoding="utf-8")]


def test_the_reference_shows_every_public_name(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    modules = (rsw.data, rsw.metrics, rsw.predictions)
    public = [getattr(rsw, name) for name in rsw.__all__ if name != "__version__"]
    public = [found for found in public if found not in modules]
    public += [getattr(module, name) for module in modules for name in module.__all__]
    places = {found.__name__: f"{found.__module__}.{found.__name__}" for found in public}
    assert not [name for name, place in places.items() if f'id="{place}"' not in page]


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]
    assert not [page for page in pages if not re.search(rf"\b{page}$", listed, re.MULTILINE)]
