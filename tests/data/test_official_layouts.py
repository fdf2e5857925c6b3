"""Adapters on small folders in the official layouts, as reference/benchmarks.md of the shared folder tells them: converted, checked, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples, write_jsonl


def picture(path: Path, height: int = 60, width: int = 80, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((height, width, 3), value, np.uint8))


def written(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def rsvg(folder: Path) -> None:
    """Two images of two objects each; the numbers of the lists run over all objects, in the order of the files' names."""
    for name, boxes in (("10", ((1, 2, 30, 40), (5.5, 5, 20, 20.25))), ("2", ((0, 0, 79, 59), (40, 10, 60, 30)))):
        objects = "".join(
            f"<object><name>dam</name><pose>x</pose><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
            f"<description>The dam {name} {a}</description></object>"
            for a, b, c, d in boxes
        )
        written(
            folder / "Annotations" / f"{name}.xml", f"<annotation><filename>{name}.png</filename>{objects}</annotation>"
        )
        picture(folder / "JPEGImages" / f"{name}.png")
    for split, numbers in (("train", "0\n"), ("val", "2\n"), ("test", "3\n1\n")):
        written(folder / f"{split}.txt", numbers)


def vrsbench(folder: Path) -> None:
    rows = [
        {"image_id": f"P000{n}_0002.png", "question": "The ship on the left", "ground_truth": f"{{<{n}><40><36><52>}}", "dataset": "RSBench",
         "question_id": n, "type": "ref", **({"unique": n % 2 == 0} if n else {"is_unique": True}), "obj_corner": [0] * 8, "obj_cls": "ship", "obj_ids": [0]}
        for n in range(3)
    ]  # fmt: skip
    written(folder / "VRSBench_EVAL_referring.json", rows)
    asked = [
        {"image_id": "P0001_0002.png", "question": "Is it?", "ground_truth": answer, "type": "existence"}
        for answer in ("yes", "no", "yes")
    ]
    written(folder / "VRSBench_EVAL_vqa.json", asked)
    written(
        folder / "VRSBench_EVAL_Cap.json",
        [
            {
                "image_id": "P0001_0002.png",
                "question": "Describe",
                "ground_truth": "A ship.\nIt sails.",
                "type": "caption",
            }
        ],
    )
    for n in range(3):
        picture(folder / "Images_val" / f"P000{n}_0002.png", 512, 512)


def choice(folder: Path) -> None:
    place = "perception/image_level_comprehension/image_quality"
    asked = [
        {
            "id": f"u{n}",
            "image_path": f"{place}/images/{n}.png",
            "question": "Best one?\nA.No\nB.can't judge\nC.Yes",
            "answer": "BAC"[n],
        }
        for n in range(3)
    ]
    written(folder / place / "image_quality.json", asked)
    ground = "perception/single_instance_identification/visual_grounding"
    polygon = [[0.25, 0.5], [0.5, 0.5], [0.5, 0.25], [0.25, 0.25]]
    written(
        folder / ground / "visual_grounding.json",
        [{"id": "g", "image_path": f"{ground}/images/0.png", "question": "Where?", "answer": polygon}],
    )
    masks = "perception/cross_instance_discerment/referring_expression_segmentation"
    name = f"{masks}/images/1.png"
    written(
        folder / masks / "referring_expression_segmentation.json",
        [{"id": "m", "image_path": name, "question": "Mask it.", "mask_path": f"{masks}/masks/1.png"}],
    )
    for path in (*(f"{place}/images/{n}.png" for n in range(3)), f"{ground}/images/0.png", name):
        picture(folder / path)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:20, 10:30] = 255
    (folder / masks / "masks").mkdir()
    write_png(folder / masks / "masks" / "1.png", np.repeat(mask[..., None], 3, axis=2))


def geobench(folder: Path) -> None:
    def rows(part: str, images: Any) -> list[dict[str, Any]]:
        return [
            {"image_path": images, "prompts": [f"{part} wording {n}?" for n in range(5)], "options": "A. x B. y C. z", "options_list": ["x", "y", "z"],
             "ground_truth": "xyz"[n], "ground_truth_option": "ABC"[n], "task": "Crop Type", "question_id": n, "cls_description": ""}
            for n in range(3)
        ]  # fmt: skip

    written(folder / "Single" / "qa.json", rows("one", "Single/images/x.png"))
    written(folder / "Temporal" / "qa.json", rows("more", [f"Temporal/images/{n}.png" for n in range(4)]))
    for path in ("Single/images/x.png", *(f"Temporal/images/{n}.png" for n in range(4))):
        picture(folder / path)


def lrs(folder: Path) -> None:
    rows = [
        {"question_id": f"{('FAIR', 'Bridge', 'STAR')[n % 3]}_{n}", "image": f"LRS_VQA/image/{n}.png", "category": "reasoning", "text": "Is it?\n Answer the question.",
         "ground_truth": ("yes", "no")[n % 2], "hbox": [1, 2, 3, 4], "abs_size": 3, "image_size": [4000, 4000], "size_bin": 1}
        for n in range(6)
    ]  # fmt: skip
    write_jsonl(folder / "LRS_VQA_merged.jsonl", rows)
    for n in range(6):
        picture(folder / "image" / f"{n}.png")


def earthvqa(folder: Path) -> None:
    asked = [
        ("Basic Judging", "Is it?", "Yes"),
        ("Basic Counting", "How many?", 3),
        ("Reasoning-based Counting", "What area?", "10%-20%"),
        ("Basic Judging", "Any?", "No"),
    ]
    written(
        folder / "Val_QA.json",
        {f"{n}.png": [dict(zip(("Type", "Question", "Answer"), one, strict=True)) for one in asked] for n in (3514, 0)},
    )
    written(folder / "Train_QA.json", {"1.png": [{"Type": "Basic Judging", "Question": "Is it?", "Answer": "Yes"}]})
    for n in (3514, 0):
        picture(folder / "Val" / "images_png" / f"{n}.png")


def classes(*parts: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for part in parts or ("",):
            for name in ("MediumResidential", "bare_land", "Port"):
                for n in range(2):
                    picture(folder / part / name / f"{name.lower()}_{n}.png", value=n)

    return build


def pairs(*names: str, value: int = 255) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for split in ("train", "test"):
            for n in range(3):
                for name in names[:2]:
                    picture(folder / split / name / f"{n:05}.png")
                mask = np.zeros((60, 80), np.uint8)
                mask[: 10 * n] = value
                (folder / split / names[2]).mkdir(parents=True, exist_ok=True)
                write_png(folder / split / names[2] / f"{n:05}.png", mask)

    return build


def bright(folder: Path) -> None:
    from PIL import Image

    for name in ("bata-explosion_00000007", "haiti-earthquake_00000012"):
        damage = np.zeros((16, 16), np.uint8)
        damage[2:6, 2:6], damage[8:12, 8:12], damage[12:, :4] = 1, 2, 3
        colours = np.dstack([np.full((16, 16), 90, np.uint8)] * 3)
        for part, word, pixels in (
            ("pre-event", "pre_disaster", colours),
            ("post-event", "post_disaster", damage * 20),
            ("target", "building_damage", damage),
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{name}_{word}.tif")
    written(folder / "test_set.txt", "haiti-earthquake_00000012\n")


CASES: list[tuple[str, Callable[[Path], None], dict[str, Any], int, tuple[str, ...]]] = [
    ("dior-rsvg", rsvg, {"split": "test"}, 2, ("visual-grounding", "opt-rsvg")),
    ("opt-rsvg", rsvg, {}, 4, ("visual-grounding", "opt-rsvg")),
    ("vrsbench", vrsbench, {}, 3, ("visual-grounding", "vrsbench-grounding")),
    ("vrsbench", vrsbench, {"task": "vqa"}, 3, ("exact-qa",)),
    ("choice", choice, {}, 5, ("multiple-choice", "choice-original", "choice-grounding", "referring-segmentation")),
    ("geobench-vlm", geobench, {}, 30, ("multiple-choice", "prompt-variants", "geobench-vlm")),
    ("lrs-vqa", lrs, {}, 6, ("exact-qa",)),
    ("earthvqa", earthvqa, {"split": "val"}, 8, ("exact-qa", "earthvqa")),
    ("aid", classes(), {}, 6, ("scene-classification",)),
    ("ucm", classes("Images"), {}, 6, ("scene-classification",)),
    ("resisc45", classes(), {}, 6, ("scene-classification",)),
    ("whu-rs19", classes(), {}, 6, ("scene-classification",)),
    ("firerisk", classes("train", "val"), {"split": "val"}, 6, ("scene-classification",)),
    ("clcd", pairs("time1", "time2", "label"), {"split": "test"}, 3, ("change-mask",)),
    ("sysu-cd", pairs("time1", "time2", "label"), {}, 6, ("change-mask",)),
    ("dsifn", pairs("t1", "t2", "mask", value=1), {"split": "test"}, 3, ("change-mask",)),
    ("bright", bright, {}, 2, ("class-map",)),
]


@pytest.mark.parametrize(
    ("name", "build", "options", "count", "protocols"), CASES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_from_the_official_layout_to_the_numbers(
    name: str,
    build: Callable[[Path], None],
    options: dict[str, Any],
    count: int,
    protocols: tuple[str, ...],
    tmp_path: Path,
) -> None:
    build(tmp_path / "data")
    done = rsw.data.convert(name, tmp_path / "data", tmp_path / "out", **options)
    assert done.samples == count
    samples = load_samples(done.file, done.roots)
    assert all(image.path is not None and image.path.is_file() for one in samples for image in one.images)
    assert len({one.id for one in samples}) == count
    for protocol in protocols:
        checked = rsw.validate(protocol, samples)
        assert checked.ok, [*checked.problems, *map(str, checked.failed)]
        found = rsw.evaluate(protocol, samples, policy="oracle")
        key = found.protocol.headline[0]
        assert found.metrics[key].value == pytest.approx(1.0, abs=1e-6), protocol
        for baseline, row in found.summary["baselines"].items():
            value = (row["metrics"].get(key) or {}).get("value")
            assert value is None or value <= 1.0 + 1e-6, (protocol, baseline)


def test_numbers_of_lists_are_those_of_objects_in_the_order_of_the_files(tmp_path: Path) -> None:
    rsvg(tmp_path)
    done = rsw.data.convert("dior-rsvg", tmp_path, tmp_path / "out", split="test")
    found = {
        one.id: (one.metadata["expression"], one.reference["boxes"]) for one in load_samples(done.file, done.roots)
    }
    assert found == {
        "dior_rsvg/test/1": ("The dam 10 5.5", [[5.5, 5.0, 20.0, 20.25]]),
        "dior_rsvg/test/3": ("The dam 2 40", [[40.0, 10.0, 60.0, 30.0]]),
    }
    written(tmp_path / "val.txt", "99\n")
    with pytest.raises(InputError, match="name more objects than the 4"):
        rsw.data.convert("dior-rsvg", tmp_path, tmp_path / "out", split="val")


def test_choices_stand_in_the_question_and_a_polygon_is_in_pixels(tmp_path: Path) -> None:
    choice(tmp_path)
    done = rsw.data.convert("choice", tmp_path, tmp_path / "out")
    samples = {one.id: one for one in load_samples(done.file, done.roots)}
    assert samples["choice/image_quality/u0"].reference == {"answers": ["B"], "choices": ["No", "can't judge", "Yes"]}
    assert samples["choice/visual_grounding/g"].reference["boxes"] == [[20.0, 30.0, 40.0, 30.0, 40.0, 15.0, 20.0, 15.0]]


def test_a_series_of_geobench_shows_its_first_and_its_last_image(tmp_path: Path) -> None:
    geobench(tmp_path)
    done = rsw.data.convert("geobench-vlm", tmp_path, tmp_path / "out", split="Temporal")
    (first, *_), samples = load_samples(done.file, done.roots), load_samples(done.file, done.roots)
    assert [image.path.name for image in first.images if image.path] == ["0.png", "3.png"]
    assert [one.id.rpartition("#")[2] for one in samples[:6]] == ["0", "1", "2", "3", "4", "0"]


def test_a_source_of_lrs_vqa_is_a_split(tmp_path: Path) -> None:
    lrs(tmp_path)
    assert rsw.data.convert("lrs-vqa", tmp_path, tmp_path / "out", split="Bridge").samples == 2
    with pytest.raises(InputError, match="holds the sources Bridge, FAIR, STAR, not 'test'"):
        rsw.data.convert("lrs-vqa", tmp_path, tmp_path / "out", split="test")


def test_a_list_of_bright_is_a_split(tmp_path: Path) -> None:
    bright(tmp_path)
    done = rsw.data.convert("bright", tmp_path, tmp_path / "out", split="test")
    (one,) = load_samples(done.file, done.roots)
    assert (one.kind, one.reference["classes"]) == (
        "haiti-earthquake",
        ["background", "intact", "damaged", "destroyed"],
    )
