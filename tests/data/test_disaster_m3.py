"""The disaster-m3 adapter on small folders in both layouts that are in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.disaster_m3 import convert, parse_letters, parse_options
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples

PAIR = {"pre_image_path": "test_images\\flood_pre_0.png", "post_image_path": "test_images\\flood_post_0.png"}
COUNT = {
    **PAIR, "post_image_type": "SAR", "task": "Building Damage Counting", "prompts": "How many buildings were destroyed?",
    "options_str": "A. 0-3, B. 4-9, C. 10-19, D. 20-49, E. more than 49",
    "options_list": ["0-3", "4-9", "10-19", "20-49", "more than 49"], "ground_truth": 7, "ground_truth_option": "B",
    "training_answer": "B", "answer_format": "single choice", "type": "counting", "qa_id": "q0",
}  # fmt: skip
BODIES = {
    **PAIR, "task": "Disaster Bearing Bodies Recognition", "prompts": ["Which bodies were hit?"],
    "options_list": ["A. buildings", "B. roads", "C. water"], "ground_truth": "roads, buildings", "ground_truth_option": "B, A",
}  # fmt: skip
LAND = {
    **PAIR, "task": "Disaster Scene Recognition", "prompts": "Which land use?", "options_str": "A. farm B. town",
    "ground_truth_option": "B",
}  # fmt: skip
BOXED = {
    "image_path": "test_images\\box\\b.png", "task": "relational reasoning", "prompts": "Where is the red box?",
    "option_str": "A. left, B. right", "ground_truth_option": "A",
}  # fmt: skip
REPORT = {**PAIR, "task": "Disaster Report", "prompts": "Report.", "ground_truth": "DISASTER: flood"}
MASK = {**PAIR, "task": "Referring Expression Segmentation", "prompts": "Mark.", "ground_truth": "masks\\x.png"}
# In spite of its task's name a share of the area, and a choice.
ROADS = {
    **PAIR, "task": "Road Damage Counting", "prompts": "Which share of the roads is debris?", "ground_truth": "5.22%",
    "options_list": ["1.10%", "5.22%", "9.76%", "14.03%", "20.50%"],
    "options_str": "A. 1.10%, B. 5.22%, C. 9.76%, D. 14.03%, E. 20.50%", "ground_truth_option": "B",
}  # fmt: skip


def release(folder: Path, records: list[Any], images: str = "test_images") -> Path:
    place = folder / "DisasterM3_Bench"
    (place / images / "box").mkdir(parents=True)
    for name in ("flood_pre_0", "flood_post_0", "box/b"):
        write_png(place / images / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    (place / "benchmark_release.json").write_text(json.dumps(records))
    return folder


@pytest.mark.parametrize("images", ["test_images", "test_images/test_images"])
def test_release(tmp_path: Path, images: str) -> None:
    source = release(tmp_path / "m3", [COUNT, REPORT, BODIES, LAND, BOXED, MASK, ROADS], images)
    done = convert(source, tmp_path / "out")
    assert done.notes == ["left out, as they are no choices: 1 Disaster Report, 1 Referring Expression Segmentation"]
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == [f"disaster_m3/test/{n}" for n in (0, 2, 3, 4, 6)]
    assert {sample.task for sample in samples} == {Task.CHANGE_QA}
    assert [sample.reference["answers"] for sample in samples] == [["B"], ["A, B"], ["B"], ["A"], ["B"]]
    assert [sample.reference.get("choices") for sample in samples] == [
        COUNT["options_list"], ["A. buildings", "B. roads", "C. water"], ["farm", "town"], ["left", "right"], ROADS["options_list"],
    ]  # fmt: skip
    shown = [[image.path.name for image in sample.images if image.path] for sample in samples]
    assert shown == [["flood_pre_0.png", "flood_post_0.png"]] * 2 + [["flood_pre_0.png"], ["b.png"], shown[0]]
    assert samples[0].scene == samples[2].scene == "disaster_m3/flood_0"
    assert samples[0].metadata["sensor"] == "SAR"
    assert samples[0].prompt == (
        "Analyze both the pre-disaster and post-disaster images to answer the following question. Choose the best option from the "
        "candidate options provided.\n\nQuestion: How many buildings were destroyed?\nOptions: A. 0-3, B. 4-9, C. 10-19, D. 20-49, "
        "E. more than 49\n\nYour task is to respond with ONLY the capital letter of the correct option (e.g., C). Do not include any "
        "explanation or other text."
    )
    several = "ONLY the capital letters of the correct options, separated by a comma and a space (e.g., C, D, H)."
    assert [several in sample.prompt for sample in samples] == [False, True, True, False, False]
    both = "both the pre-disaster and post-disaster images"
    assert [both in sample.prompt for sample in samples] == [True, True, False, False, True]
    assert "Options: A. buildings, B. roads, C. water\n" in samples[1].prompt
    assert all(image.pixels().shape == (4, 4, 3) for sample in samples for image in sample.images)


def test_a_prompt_does_not_tell_how_many_options_are_right(tmp_path: Path) -> None:
    """The authors ask for one option of this task whatever the truth is."""
    done = convert(release(tmp_path / "m3", [{**COUNT, "ground_truth_option": "A, B"}]), tmp_path / "out")
    (sample,) = load_samples(done.file, done.roots)
    assert "Choose the best option from" in sample.prompt and sample.reference["answers"] == ["A, B"]


def test_a_count_without_options_is_no_choice(tmp_path: Path) -> None:
    plain = {
        **PAIR,
        "task": "Building Damage Counting",
        "prompts": "How many?",
        "ground_truth": "12",
        "ground_truth_option": "",
    }
    done = convert(release(tmp_path / "m3", [COUNT, plain]), tmp_path / "out")
    assert (done.samples, done.notes) == (1, ["left out, as they are no choices: 1 Building Damage Counting"])


def test_a_list_of_options_counts_more_than_their_text(tmp_path: Path) -> None:
    record = {**COUNT, "options_str": "A) few; B) some, C many", "options_list": ["few", "U.S. road", "many"]}
    done = convert(release(tmp_path / "m3", [record]), tmp_path / "out")
    (sample,) = load_samples(done.file, done.roots)
    assert sample.reference["choices"] == ["few", "U.S. road", "many"]


def test_lettered_options_are_read_by_the_verifier(tmp_path: Path) -> None:
    from rsw_rewards.core.records import Output
    from rsw_rewards.core.verifier import Batch
    from rsw_rewards.verifiers.choices import MultipleChoice

    done = convert(release(tmp_path / "m3", [COUNT, BODIES]), tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    texts = ("B) 4-9", "4-9", "A", "b, a", "A, B, C")
    outputs = [Output(samples[n > 2].id, n, text=text) for n, text in enumerate(texts)]
    assert [score.value for score in MultipleChoice().score(Batch.of(samples, outputs))] == [1, 1, 0, 1, 0]


def test_subsets_of_the_authors_code(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "images" / "test_images").mkdir(parents=True)
    for name in ("flood_pre_0", "flood_post_0"):
        write_png(source / "images" / "test_images" / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    for subset, record in (("building_damage_counting", COUNT), ("landuse", LAND)):
        (source / f"{subset}.json").write_text(json.dumps([{key: record[key] for key in record if key != "task"}]))
    (source / "caption.json").write_text("[{}]")
    done = convert(source, tmp_path / "out")
    ids = [sample.id for sample in load_samples(done.file, done.roots)]
    assert ids == ["disaster_m3/building_damage_counting/0", "disaster_m3/landuse/0"]
    (sample,) = load_samples(convert(source, tmp_path / "out", split="landuse").file, done.roots)
    assert (sample.kind, len(sample.images)) == ("landuse", 1)
    with pytest.raises(InputError, match="holds building_damage_counting, landuse, not 'test'"):
        convert(source, tmp_path / "out", split="test")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. 1,000 m, B. U.S. road, C. none", ["1,000 m", "U.S. road", "none"]),
        ("(A) one (B) two", ["one", "two"]),
        ("A: one\nB: two", ["one", "two"]),
        ("A. only", []),
        ("one, two", []),
        ("A. one, B. , C. two", []),
    ],
)  # fmt: skip
def test_options(text: str, options: list[str]) -> None:
    assert parse_options(text) == options


@pytest.mark.parametrize(
    ("value", "letters"),
    [("B", ["B"]), ("C, A.", ["A", "C"]), (["D", "(A)"], ["A", "D"]), ("A, A", []), ("N/A", []), ("AB", []), (None, []), (3, [])],
)  # fmt: skip
def test_letters(value: Any, letters: list[str]) -> None:
    assert parse_letters(value) == letters


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ground_truth_option": "F"}, "has the answer F, but only 5 options"),
        ({"prompts": []}, "has no 'prompts' that is a question"),
        ({"task": None}, "has no 'task'"),
        ({"pre_image_path": "..\\x.png"}, "not a path inside the data set"),
        ({"pre_image_path": "/etc/passwd"}, "not a path inside the data set"),
        ({"post_image_path": 7}, "'post_image_path' is '7', not a path"),
        ({"post_image_path": "test_images\\no.png"}, r"names test_images/no.png, which was expected in .*DisasterM3_Bench"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    source = release(tmp_path / "m3", [{**COUNT, **changes}])
    with pytest.raises(InputError, match=sentence):
        convert(source, tmp_path / "out")


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"should hold benchmark_release.json with test_images"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="holds no choice"):
        convert(release(tmp_path / "m3", [REPORT]) / "DisasterM3_Bench", tmp_path / "out")
