from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.evaluation.gallery import PALETTE, THUMBNAIL, choose, data_uri, pictures
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.report import histograms, lanes, slice_lanes

ATTACK = '<script>document.title="taken"</script><img src=x onerror=alert(1)>"\'{{ 7 * 7 }}'


def question(name: str, answer: str = "yes", kind: str = "change") -> Sample:
    vocabulary = {"vocabulary": ["yes", "no"]}
    return Sample(name, Task.CHANGE_QA, (), f"{name}? {ATTACK}", {"answers": [answer], **vocabulary}, f"s{name}", kind)


def masked(name: str) -> Sample:
    rng = np.random.default_rng(len(name))
    images = tuple(ImageRef(array=rng.integers(0, 255, (300, 200, 3), np.uint8)) for _ in range(2))
    mask = ImageRef(array=np.pad(np.full((100, 100), 255, np.uint8), ((0, 200), (0, 100))))
    return Sample(name, Task.CHANGE_MASK, images, "Mark it.", {"mask": mask})


@pytest.fixture
def report(tmp_path: Path) -> Path:
    samples = [question(str(n), "yes" if n % 3 else "no", f"kind {n % 2} {ATTACK}") for n in range(12)]
    outputs = [Output(s.id, text="yes" if n % 2 else ATTACK) for n, s in enumerate(samples)]
    rsw.evaluate(PROTOCOLS.find("exact-qa"), samples, outputs, tmp_path / "run")
    return tmp_path / "run" / "report.html"


def test_what_files_say_is_shown_and_never_run(report: Path) -> None:
    page = report.read_text()
    assert "document.title=&#34;taken&#34;" in page and '<script>document.title="taken"' not in page
    assert "<img src=x" not in page and "&lt;img src=x onerror" in page
    assert "{{ 7 * 7 }}" in page and "default-src 'none'" in page


def test_nothing_is_fetched_from_anywhere(report: Path) -> None:
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", report.read_text())
    assert all(address.startswith("data:") for address in addresses)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser_filters_work_and_nothing_runs_over_the_edge(report: Path, width: int) -> None:
    probe = """<script>
    const kind = document.getElementById("filter-kind"), status = document.getElementById("filter-status");
    kind.selectedIndex = 1; kind.onchange();
    const visible = () => cards.filter(card => !card.hidden);
    document.body.dataset.only = visible().every(card => card.dataset.kind === kind.value) && visible().length < cards.length;
    kind.selectedIndex = 0; kind.onchange();
    status.value = "invalid_output"; status.onchange();
    document.body.dataset.both = visible().length > 0 && visible().every(card => card.dataset.status === "invalid_output");
    document.body.dataset.over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    </script>"""
    page = report.with_name("probe.html")
    page.write_text(report.read_text().replace("</body>", probe + "</body>"))
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command += [f"--user-data-dir={report.parent}/browser", f"--window-size={width},900", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    body = re.search(r"<body[^>]*>", dom)
    assert body is not None
    assert 'data-only="true"' in body[0] and 'data-both="true"' in body[0] and 'data-over="0"' in body[0]
    assert "taken" not in re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]  # type: ignore[index]


def scores(values: dict[tuple[str, str], float | None], kind: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"sample": sample, "candidate": 0, "verifier": verifier, "value": np.nan if value is None else value,
             "status": "ok" if value is not None else "error", "kind": kind}
            for (sample, verifier), value in values.items()
        ]
    )  # fmt: skip


def test_the_gallery_holds_both_ends_every_kind_what_failed_and_what_is_disputed() -> None:
    frame = scores({(f"s{n:02}", v): n / 40 for n in range(40) for v in ("one", "two")})
    frame.loc[frame["sample"] == "s20", "value"] = [0.0, 1.0]
    frame = pd.concat(
        [frame, scores({("lonely", "one"): 0.6, ("lonely", "two"): 0.6}, "b"), scores({("bad", "one"): None}, "c")]
    )
    chosen = choose(frame.reset_index(drop=True))
    assert [key for key, sort in chosen.items() if sort == "worst"][:2] == [("s00", 0), ("s01", 0)]
    assert ("s39", 0) in [key for key, sort in chosen.items() if sort == "best"]
    assert chosen["lonely", 0] == "best" and chosen["s20", 0] == "disagreeing" and chosen["bad", 0] == "not scored"


def test_a_mask_is_drawn_against_the_truth_in_colours() -> None:
    sample = masked("m")
    shown = pictures(sample, Output("m", mask=ImageRef(array=np.full((300, 200), 255, np.uint8))))
    assert [picture["label"] for picture in shown[:2]] == ["input 1", "input 2"] and "orange" in shown[2]["label"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[2]["src"].split(",")[1]))))
    assert tuple(pixels[5, 5]) == (245, 245, 245) and tuple(pixels[-5, -5]) == (213, 94, 0)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_a_map_of_classes_is_drawn_in_a_colour_for_each(kind: type) -> None:
    classes = ImageRef(array=np.arange(18, dtype=kind).reshape(2, 9))
    sample = Sample("m", Task.DAMAGE, (), "", {"buildings": classes, "damage": classes})
    source = pictures(sample, Output("m"))[0]["src"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
    first, second = pixels[5, 14::28], pixels[-5, 14::28]
    assert first.tolist() == second.tolist() == PALETTE.tolist()


def test_a_picture_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    sample = Sample("m", Task.CHANGE_MASK, (ImageRef(path=tmp_path / "gone.png"),), "", {})
    assert "gone.png" in pictures(sample, Output("m"))[0]["problem"]


def test_boxes_that_leave_the_picture_or_are_no_numbers_do_not_stop_the_report() -> None:
    image = ImageRef(array=np.zeros((20, 20, 3), np.uint8))
    sample = Sample("g", Task.GROUNDING, (image,), "", {"boxes": [[2.0, 2.0, 9.0, 9.0]]})
    for box in ((-1e9, -1e9, 1e9, 1e9), (-1e300, -1e300, 1e300, 1e300), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)):
        assert {"src", "problem"} & set(pictures(sample, Output("g", boxes=(box,)))[-1])
    short = Sample("g", Task.GROUNDING, (image,), "", {"boxes": [[1.0, 2.0, 3.0]]})
    assert pictures(short, Output("g", boxes=()))[-1]["problem"] == "a box has 4 or 8 numbers, not 3"


def test_thumbnails_are_small_whatever_the_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 900, 3), np.uint8)
    source = data_uri(noise, photo=True)
    assert source.startswith("data:image/jpeg") and len(source) < 200_000
    assert max(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size) == THUMBNAIL


def test_a_lane_starts_below_zero_only_where_a_number_does() -> None:
    entry = {"value": 0.5, "ci95": [0.4, 0.7], "n": 9}
    summary = {
        "metrics": {"a": entry, "psnr": {**entry, "value": 23.0}},
        "baselines": {"copy": {"metrics": {"a": {"value": -0.5}}}},
    }
    (lane,) = lanes(summary)
    assert (
        lane["at"] == pytest.approx(75)
        and lane["zero"] == pytest.approx(50)
        and lane["marks"][0]["at"] == pytest.approx(25)
    )
    (lane,) = lanes({**summary, "baselines": {}})
    assert lane["at"] == pytest.approx(50) and lane["zero"] is None and lane["width"] == pytest.approx(30)


def test_slices_with_wide_intervals_stay_on_their_line() -> None:
    slices = {
        kind: {"gain": {"value": value, "ci95": [value - 2.0, value + 2.0], "n": 3}}
        for kind, value in (("a", 0.2), ("b", -0.4))
    }
    key, drawn = slice_lanes({"metrics": {"gain": {}}, "slices": slices})
    assert key == "gain" and [lane["key"] for lane in drawn] == ["a", "b"]
    for lane in drawn:
        assert 0 <= lane["from"] <= lane["from"] + lane["width"] <= 100 and 0 <= lane["at"] <= 100


def test_histograms_leave_out_verifiers_that_only_say_yes_or_no() -> None:
    graded = {(str(n), "graded"): n / 10 for n in range(11)}
    binary = {(str(n), "binary"): float(n % 2) for n in range(11)}
    (plot,) = histograms(scores({**graded, **binary}))
    assert plot["verifier"] == "graded" and sum(column["count"] for column in plot["columns"]) == 11
