from __future__ import annotations

import base64
import io
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation import pages
from rsw_rewards.evaluation.numbers import Mark, axis_between, lane
from rsw_rewards.evaluation.pages import gathered, read_cards
from rsw_rewards.evaluation.pictures import PALETTE, THUMBNAIL, data_uri, drawn, pictures
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.report import choose, histograms, kind_lanes, lanes, tiles

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


def held(page: Path) -> list[dict[str, Any]]:
    """The JSON that a page holds."""
    parts = page.read_text(encoding="utf-8").split('<script type="application/json">')[1:]
    return [json.loads(part.split("</script>")[0]) for part in parts]


def test_what_files_say_is_shown_and_never_run(report: Path) -> None:
    for page in (report, report.parent / "report" / "samples-0001.html"):
        text = page.read_text()
        assert ATTACK not in text and '<script>document.title="taken"' not in text and "<img src=x" not in text
        assert "default-src 'none'" in text
    cards = held(report)[0]["cards"]
    assert any(card["answer"] == ATTACK for card in cards) and all(ATTACK in card["prompt"] for card in cards)


def test_nothing_is_fetched_from_anywhere(report: Path) -> None:
    for page in (report, report.parent / "report" / "samples-0001.html"):
        addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page.read_text())
        assert all(address.startswith(("data:", "#", "../report.html")) for address in addresses)


def test_all_samples_are_in_the_table_with_a_link_to_each(report: Path) -> None:
    table = held(report)[1]
    assert [column[0] for column in table["columns"]][:3] == ["sample", "kind", "status"] and len(table["rows"]) == 12
    assert [row[0] for row in table["rows"]] == [[str(n), f"report/samples-0001.html#s{n}"] for n in range(12)]
    page = held(report.parent / "report" / "samples-0001.html")[0]
    assert [card["anchor"] for card in page["cards"]] == [f"s{n}" for n in range(12)]


def test_why_outputs_failed_stands_at_the_top_with_counts(report: Path) -> None:
    text = report.read_text()
    assert (
        "6 of 12 outputs are invalid, which counts as wrong, or were not scored by every component" in text
        and "6 invalid_output (exact_match), the first 0:" in text
    )


def test_cards_are_read_back_from_the_pages(tmp_path: Path) -> None:
    sample = masked("m")
    output = Output("m", mask=ImageRef(array=np.full((300, 200), 255, np.uint8)))
    rsw.evaluate(PROTOCOLS.find("change-mask"), [sample], [output], tmp_path / "run")
    (card,) = read_cards(tmp_path / "run" / "report.html", [("m", 0), ("other", 0)]).values()
    assert [picture["src"] for picture in card["pictures"]] == [picture["src"] for picture in pictures(sample, output)]
    page = tmp_path / "run" / "report" / "samples-0001.html"
    page.write_text(page.read_text().replace('"image":0', '"image":99'))
    with pytest.raises(InputError, match="is damaged"):
        read_cards(tmp_path / "run" / "report.html", [("m", 0)])


def test_a_page_holds_few_images_and_a_large_card_stands_alone() -> None:
    cards = [{"pictures": [{"src": letter * size}]} for letter, size in zip("abcde", (5, 5, 30, 4, 4), strict=True)]
    assert [len(gathered(cards[start:], 10)["cards"]) for start in (0, 2, 3)] == [2, 1, 2]
    again = [{"pictures": [{"src": "x" * 6}]}] * 3
    assert gathered(again, 10) == {"images": ["x" * 6], "cards": [{"pictures": [{"image": 0}]}] * 3}


@pytest.mark.parametrize(("cards", "images"), [(2, 10**9), (60, 2 * 12_000)])
def test_pages_hold_a_number_of_samples_or_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: int, images: int
) -> None:
    monkeypatch.setattr(pages, "CARDS", cards)
    monkeypatch.setattr(pages, "PAGE_LIMIT", images)
    rng = np.random.default_rng(0)
    noise = [ImageRef(array=rng.integers(0, 255, (50, 50, 3), np.uint8)) for _ in range(5)]
    mask = ImageRef(array=np.eye(50, dtype=np.uint8) * 255)
    samples = [Sample(str(n), Task.CHANGE_MASK, (one, one), "", {"mask": mask}) for n, one in enumerate(noise)]
    outputs = [Output(one.id, mask=mask) for one in samples]
    rsw.evaluate("change-mask", samples, outputs).report(tmp_path / "a b.html")
    written = sorted((tmp_path / "a b").iterdir())
    assert [[card["anchor"] for card in held(page)[0]["cards"]] for page in written] == [
        ["s0", "s1"],
        ["s2", "s3"],
        ["s4"],
    ]
    assert "samples-0001.html" in written[1].read_text() and "samples-0003.html" in written[1].read_text()
    links = [row[0][1] for row in held(tmp_path / "a b.html")[1]["rows"]]
    assert links == [f"a%20b/samples-000{1 + n // 2}.html#s{n}" for n in range(5)]


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
    assert chosen["s20", 0] == "disputed" and chosen["bad", 0] == "not scored"
    assert list(chosen.values()).count("random") > 0


def test_a_component_that_fails_on_everything_hides_no_output() -> None:
    frame = pd.concat(
        [scores({(f"s{n}", "one"): n / 9 for n in range(9)}), scores({(f"s{n}", "down"): None for n in range(9)})]
    )
    assert "worst" in choose(frame.reset_index(drop=True)).values()


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
    first, second = pixels
    assert first.tolist() == second.tolist() == PALETTE.tolist()


def test_a_picture_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    sample = Sample("m", Task.CHANGE_MASK, (ImageRef(path=tmp_path / "gone.png"),), "", {})
    assert "gone.png" in pictures(sample, Output("m"))[0]["problem"]


def test_a_picture_of_a_file_is_kept_for_the_next_card_and_no_other_is_taken_for_it(tmp_path: Path) -> None:
    levels = (np.full((8, 8), level, np.uint8) for level in (0, 0, 255))
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for file, pixels in zip(files, levels, strict=True):
        Image.fromarray(pixels).save(file)
    before, after, mask = (ImageRef(path=file) for file in files)
    known = lru_cache(drawn)

    def source(image: ImageRef, mask: ImageRef, **reference: Any) -> list[str]:
        sample = Sample("m", Task.CHANGE_MASK, (image,), "", {"mask": mask, **reference})
        shown = pictures(sample, Output("m"), known=known)
        assert shown == pictures(sample, Output("m"))
        return [one["src"] for one in shown]

    assert source(before, mask) == source(after, mask)
    assert source(before, mask) != source(before, mask, levels=[255, 0])  # other colours of the same file
    unnamed = [ImageRef(array=np.full((8, 8, 3), level, np.uint8)) for level in (0, 99)]
    assert unnamed[0] == unnamed[1] and source(unnamed[0], mask)[0] != source(unnamed[1], mask)[0]
    files[0].unlink()
    again = pictures(Sample("m", Task.CHANGE_MASK, (before,), "", {}), Output("m"), known=known)
    assert "src" in again[0]  # not read a second time


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


def test_a_number_stands_on_an_axis_that_shows_all_that_is_beside_it() -> None:
    entry = {"value": 0.5, "ci95": [0.4, 0.7], "n": 9}
    summary = {
        "metrics": {"a": entry, "psnr": {**entry, "value": 23.0}},
        "baselines": {"copy": {"metrics": {"a": {"value": -0.5}, "psnr": {"value": 9.0}}}},
    }
    row, wide = lanes(summary)
    assert (row["at"], row["axis"].zero, row["marks"][0]["at"]) == (75, 50, 25)
    ticks = [place for place, _ in wide["axis"].ticks]
    assert all(0 <= place <= 100 for place in (wide["at"], wide["marks"][0]["at"], *ticks))
    assert [tile["place"] for tile in tiles(summary)] == ["between", "between"]


def test_names_of_marks_do_not_cover_each_other() -> None:
    marks = [Mark("baseline", f"a baseline {n}", 0.5 + n / 1000) for n in range(3)]
    row = lane("a", 0.5, axis_between(0.0, 1.0), None, marks)
    assert sorted(mark["row"] for mark in row["marks"]) == [0, 1, 2] and row["rows"] == 3


def test_slices_with_wide_intervals_stay_on_their_line() -> None:
    slices = {
        kind: {"gain": {"value": value, "ci95": [value - 2.0, value + 2.0], "n": 3}}
        for kind, value in (("a", 0.2), ("b", -0.4))
    }
    key, drawn = kind_lanes({"metrics": {"gain": {}}, "slices": slices})
    assert key == "gain" and [row["name"] for row in drawn] == ["a", "b"]
    for row in drawn:
        start, width = row["interval"]
        assert 0 <= start <= start + width <= 100 and 0 <= row["at"] <= 100


def test_histograms_leave_out_verifiers_that_only_say_yes_or_no() -> None:
    graded = {(str(n), "graded"): n / 10 for n in range(11)}
    binary = {(str(n), "binary"): float(n % 2) for n in range(11)}
    (plot,) = histograms(scores({**graded, **binary}))
    assert plot["verifier"] == "graded" and sum(column["count"] for column in plot["columns"]) == 11
