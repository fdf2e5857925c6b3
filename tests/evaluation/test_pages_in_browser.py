"""The pages in a real browser: filters, search, sorting, paging, the viewer, and that nothing but the pages' own files is asked for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.evaluation.protocols import PROTOCOLS

BROWSERS = (os.environ.get("RSW_BROWSER"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
WIDTHS = (390, 1200)
MANY = 130


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the browser extra (playwright) and chromium")
    found = next((path for path in BROWSERS if path), None)
    if found is None:
        pytest.skip("needs chromium (apt-get install chromium, or RSW_BROWSER)")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of forecasts, of which the first is the truth itself."""
    rng = np.random.default_rng(0)
    samples, outputs = [], []
    for k in range(MANY):
        before, after = (rng.integers(0, 255, (16, 16, 3), np.uint8) for _ in range(2))
        kind = "flood" if k % 5 else "road"
        inputs, truth = (ImageRef(array=before),), {"images": [ImageRef(array=after)]}
        samples.append(Sample(f"s/{k:03d}", Task.FORECAST, inputs, f"a {kind}", truth, kind=kind))
        outputs.append(Output(f"s/{k:03d}", image=ImageRef(array=after if k == 0 else before)))
    protocol = rsw.protocol("gains", ["gain_over_copy"], task="forecast", baselines=["copy_before", "oracle"])
    folder = tmp_path_factory.mktemp("runs") / "gains"
    rsw.evaluate(protocol, samples, outputs, folder)
    return folder


@pytest.fixture(params=WIDTHS)
def page(browser: Any, run: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The report, opened; the test fails where a page raised an error, asked for anything, or runs over the edge."""
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto((run / "report.html").as_uri())
    yield opened
    assert errors == []
    assert all(url.startswith(("file://", "data:")) for url in asked)
    assert opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    opened.close()


def visible(page: Any) -> int:
    return int(page.locator(".gallery .card:visible").count())


def test_samples_are_filtered(page: Any) -> None:
    whole = visible(page)
    page.locator(".gallery select[data-name=kind]").select_option("road")
    assert 0 < visible(page) < whole
    assert all("road" in text for text in page.locator(".gallery .card:visible header").all_inner_texts())
    page.locator(".gallery select[data-name=show]").select_option("best")
    assert visible(page) == 1 and "s/000" in page.locator(".gallery .card:visible header").inner_text()


def test_the_table_is_searched_sorted_and_paged_and_links_to_each_sample(page: Any) -> None:
    rows = page.locator(".rows tbody tr")
    first = rows.first.inner_text()
    page.locator(".pager button", has_text="next").click()
    assert rows.first.inner_text() != first and "page 2 of" in page.locator(".pager").inner_text()
    page.locator(".rows thead button", has_text="gain_over_copy").click()
    assert rows.first.inner_text().startswith("000") and "page 1 of" in page.locator(".pager").inner_text()
    page.locator(".rows input[type=search]").fill("road 12")
    assert rows.count() == 2 and f"2 of {MANY}" in page.locator(".rows .filters").inner_text()
    rows.locator("a").first.click()
    assert "/report/samples-" in page.url
    assert page.locator(".card:target header b").inner_text() in ("s/120", "s/125")


def test_an_image_opens_large_and_is_compared(page: Any) -> None:
    page.locator(".gallery .card", has_text="s/000").locator("figure", has_text="forecast").locator("button").click()
    viewer = page.locator("dialog#viewer")
    assert viewer.is_visible() and viewer.locator(".told").inner_text() == "forecast"
    viewer.locator(".mode-slider").click()
    viewer.locator("input.cut").fill("20")
    images = viewer.locator(".stage img")
    assert images.count() == 2 and "80%" in images.last.evaluate("image => image.style.clipPath")
    viewer.locator(".mode-difference").click()
    drawn = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 16, 16).data.slice(0, 3)]"
    assert viewer.locator(".stage canvas").evaluate(drawn) == [32, 36, 42]  # the forecast is the truth
    viewer.locator(".mode-flicker").click()
    viewer.locator(".stage img").last.wait_for(state="hidden", timeout=3000)
    viewer.locator(".larger").click()
    assert float(viewer.get_attribute("data-zoom")) == 1.5
    viewer.locator(".stage").hover()
    page.mouse.wheel(0, -200)
    assert float(viewer.get_attribute("data-zoom")) > 1.5
    page.keyboard.press("0")
    assert float(viewer.get_attribute("data-zoom")) == 1.0
    name = viewer.locator("b.grow").inner_text()
    page.keyboard.press("ArrowRight")
    assert viewer.locator("b.grow").inner_text() != name
    page.keyboard.press("ArrowLeft")
    assert viewer.locator("b.grow").inner_text() == name
    page.keyboard.press("Escape")
    assert not viewer.is_visible()


ATTACK = '<script>document.title="taken"</script><img src=x onerror="document.title=\'taken\'">'


def test_what_files_say_is_never_run(browser: Any, tmp_path: Path) -> None:
    reference = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    samples = [Sample(f"{k} {ATTACK}", Task.CHANGE_QA, (), ATTACK, reference, kind=ATTACK) for k in range(4)]
    outputs = [Output(sample.id, text=ATTACK if k else "yes") for k, sample in enumerate(samples)]
    rsw.evaluate(PROTOCOLS.find("exact-qa"), samples, outputs, tmp_path / "run")
    for file in (tmp_path / "run" / "report.html", tmp_path / "run" / "report" / "samples-0001.html"):
        page = browser.new_page()
        page.goto(file.as_uri())
        assert "taken" not in page.title().replace(ATTACK, "") and ATTACK in page.locator(".card").first.inner_text()
        page.close()


def test_a_page_of_ten_thousand_samples_opens_soon(browser: Any, tmp_path: Path) -> None:
    words = [
        "a",
        "road",
        "was",
        "built",
        "in",
        "the",
        "north",
        "of",
        "the",
        "bare",
        "land",
        "while",
        "the",
        "river",
        "and",
        "the",
        "trees",
        "stayed",
        "as",
        "they",
        "were",
        "before",
    ]
    reference = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    samples = [
        {"id": f"q{k}", "task": "change_qa", "kind": f"kind {k % 7}", "prompt": " ".join(words[k % 9 :]), "images": [], "reference": reference}
        for k in range(10_000)
    ]  # fmt: skip
    answers = [("yes", "no", "no idea")[k % 3] for k in range(10_000)]
    found = rsw.evaluate("exact-qa", samples, answers).report(tmp_path / "large.html")
    page = browser.new_page()
    start = time.monotonic()
    page.goto(found.as_uri())
    page.locator(".rows tbody tr").first.wait_for()
    print(f"opened in {time.monotonic() - start:.2f} s, {found.stat().st_size / 1e6:.1f} MB")
    assert found.stat().st_size < 5_000_000 and page.locator(".rows .filters").inner_text().endswith("10,000 of 10,000")
    page.close()
