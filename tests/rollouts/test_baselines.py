"""Baselines: what each of them gives, that the blind one never uses its own truth, that the oracle gives the truth of every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.rollouts.baselines import BASELINES, make_baseline
from rsw_rewards.rollouts.policy import Policy, Request
from rsw_rewards.verifiers import caption_base


def ask(name: str, samples: list[Sample]) -> list[Output]:
    return make_baseline(name, samples).generate([Request(sample) for sample in samples])


def texts(name: str, samples: list[Sample]) -> list[str | None]:
    return [output.text for output in ask(name, samples)]


def question(
    number: int, answer: Any, prompt: str = "?", kind: str | None = None, scene: str = "", **more: Any
) -> Sample:
    reference = {"answers": answer if isinstance(answer, list) else [answer], **more}
    return Sample(f"q{number}", Task.CHANGE_QA, (), prompt, reference, scene or f"s{number}", kind)


def picture(height: int, width: int, value: int = 0) -> ImageRef:
    return ImageRef(array=np.full((height, width), value, np.uint8))


@pytest.mark.parametrize("protocol", PROTOCOLS.built_in.values(), ids=PROTOCOLS.built_in)
def test_every_protocol_names_baselines_that_do_its_task(protocol: Any) -> None:
    sample = Sample("a", protocol.task, ())
    for name in protocol.baselines:
        policy = make_baseline(name, [sample])
        assert isinstance(policy, Policy) and policy.name == name
        assert protocol.task in policy.tasks, name


def test_blind_answers_by_wording_before_kind_before_all() -> None:
    asked = [
        question(0, "red", "roof?", "colour"),
        question(1, "red", "roof?", "colour"),
        question(2, "blue", "sky?", "colour"),
        question(3, "blue", "lake?", "colour"),
        question(4, "blue", "sea?", "colour"),
        question(5, "7", "how many?", "count"),
    ]
    # 0 and 1 see each other's red; 2 sees no other 'sky?' and takes its kind's (two of each elsewhere: by alphabet); 5 is alone
    # in its kind and takes the most common of all.
    assert texts("blind", asked) == ["red", "red", "blue", "blue", "blue", "blue"]
    assert texts("majority", asked) == ["blue"] * 5 + ["7"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3)), min_size=2, max_size=12))
def test_blind_never_uses_the_truth_of_its_own_scene(rows: list[tuple[str, str, int]]) -> None:
    asked = [question(i, answer, prompt, scene=f"s{scene}") for i, (prompt, answer, scene) in enumerate(rows)]
    before = texts("blind", asked)
    for number, sample in enumerate(asked):
        changed = [question(i, "!" if s.scene == sample.scene else s.reference["answers"][0], s.prompt, scene=s.scene)
                   for i, s in enumerate(asked)]  # fmt: skip
        assert texts("blind", changed)[number] == before[number]


def test_annotators_and_labels_are_read_as_one_truth() -> None:
    assert texts("oracle", [question(0, ["two", "2", "2"])]) == ["2"]
    many = Sample(
        "m", Task.CLASSIFICATION, (), reference={"labels": ["sea", "ship"], "vocabulary": ["sea", "ship", "sand"]}
    )
    assert texts("oracle", [many]) == ["sea, ship"]
    assert texts("all_labels", [many]) == ["sea, ship, sand"]
    one = Sample("o", Task.CLASSIFICATION, (), reference={"label": "sea"})
    assert texts("all_labels", [one, many]) == ["sea, ship, sand", "sea, ship, sand"]


NO_CHANGE = caption_base.NO_CHANGE[0]


def captioned() -> list[Sample]:
    said = [["a road", "a new road"], [NO_CHANGE, "no change has occurred"], [NO_CHANGE, "there is no difference"]]
    return [
        Sample(f"c{i}", Task.CHANGE_CAPTION, (), reference={"captions": captions}, scene=f"s{i}")
        for i, captions in enumerate(said)
    ]


def test_caption_baselines() -> None:
    asked = captioned()
    assert texts("constant", asked) == texts("no_change", asked) == [NO_CHANGE] * 3
    assert texts("oracle", asked) == ["a road", NO_CHANGE, NO_CHANGE]
    assert texts("empty", asked) == [""] * 3


def test_no_change_speaks_as_the_data_set_does() -> None:
    own = {"captions": ["rien n'a change"], "no_change": ["rien n'a change"]}
    asked = [Sample("own", Task.CHANGE_CAPTION, (), reference=own), *captioned()]
    assert texts("no_change", asked) == ["rien n'a change", *[NO_CHANGE] * 3]


@given(st.integers(2, 9), st.integers(1, 3))
def test_shuffled_gives_what_another_scene_said(count: int, scenes: int) -> None:
    asked = [question(i, f"a{i}", scene=f"s{i % scenes}") for i in range(count)]
    given_back = texts("shuffled", asked)
    assert given_back == texts("shuffled", asked)
    for sample, text in zip(asked, given_back, strict=True):
        source = asked[int(str(text)[1:])]
        assert source.id != sample.id
        if len({s.scene for s in asked}) > 1:
            assert source.scene != sample.scene


def test_a_shuffled_caption_does_not_tell_whether_its_pair_changed() -> None:
    asked = [
        Sample(
            f"c{i}", Task.CHANGE_CAPTION, (), "", {"captions": [f"text {i}"]}, f"s{i}", ("changed", "unchanged")[i % 2]
        )
        for i in range(40)
    ]
    crossed = [int(str(text).split()[1]) % 2 != i % 2 for i, text in enumerate(texts("shuffled", asked))]
    assert 8 <= sum(crossed) <= 32


def test_shuffled_alone_says_nothing() -> None:
    assert texts("shuffled", [question(0, "yes")]) == [""]


REFERENCES: dict[Task, dict[str, Any]] = {
    Task.CHANGE_QA: {"answers": ["yes"]},
    Task.CHANGE_CAPTION: {"captions": ["a road", "a new road"]},
    Task.CHANGE_MASK: {"mask": picture(4, 6, 255)},
    Task.SEMANTIC_CHANGE: {"map_before": picture(4, 6, 1), "map_after": picture(4, 6, 2)},
    Task.DAMAGE: {"buildings": picture(4, 6, 1), "damage": picture(4, 6, 3)},
    Task.FORECAST: {"images": [picture(4, 6, 9)]},
    Task.GROUNDING: {"boxes": [[1, 2, 3, 4]]},
    Task.CLASSIFICATION: {"label": "sea"},
}
IMAGE = ImageRef(array=np.zeros((4, 6, 3), np.uint8))
ELSEWHERE = {"tokenizer_ceiling", "persistence", "climatology"}
"""Those that take other pictures than the ones here."""


@pytest.mark.parametrize("task", list(Task))
def test_every_baseline_answers_the_tasks_it_says_it_does(task: Task) -> None:
    asked = [Sample(name, task, (IMAGE,), reference=REFERENCES[task], scene=name) for name in "ab"]
    found = {name for name in BASELINES.built_in if name not in ELSEWHERE and task in make_baseline(name, asked).tasks}
    assert {"oracle"} < found
    for name in found:
        output, _ = ask(name, asked)
        assert output.lost is None and output.invalid is None
        assert any(getattr(output, field) is not None for field in OUTPUT_FIELDS[task]), name


def test_oracle_is_the_truth_of_every_picture_task() -> None:
    for task in (Task.CHANGE_MASK, Task.SEMANTIC_CHANGE, Task.DAMAGE):
        (output,) = ask("oracle", [Sample("a", task, (), reference=REFERENCES[task])])
        assert {field: getattr(output, field) for field in OUTPUT_FIELDS[task]} == REFERENCES[task]
    future = [picture(2, 2, 1), picture(2, 2, 2)]
    (output,) = ask("oracle", [Sample("a", Task.FORECAST, (), reference={"images": future})])
    assert output.images == tuple(future) and output.forecast is future[1]
    (output,) = ask("oracle", [Sample("a", Task.GROUNDING, (), reference=REFERENCES[Task.GROUNDING])])
    assert output.boxes == ((1.0, 2.0, 3.0, 4.0),)


def values(image: ImageRef | None) -> tuple[tuple[int, ...], list[int]]:
    assert image is not None and image.array is not None and image.array.dtype == np.uint8
    return image.array.shape, sorted(set(image.array.ravel().tolist()))


def test_pictures_have_the_size_and_the_values_of_the_truth() -> None:
    mask = Sample("a", Task.CHANGE_MASK, (), reference=REFERENCES[Task.CHANGE_MASK])
    classes = Sample("b", Task.CHANGE_MASK, (), reference={**mask.reference, "classes": ["none", "road"]})
    assert [values(output.mask) for output in ask("all_changed", [mask, classes])] == [((4, 6), [255]), ((4, 6), [1])]
    assert [values(output.mask) for output in ask("all_unchanged", [mask])] == [((4, 6), [0])]
    maps = Sample("c", Task.SEMANTIC_CHANGE, (), reference=REFERENCES[Task.SEMANTIC_CHANGE])
    (swapped,), (unchanged,) = ask("swapped", [maps]), ask("all_unchanged", [maps])
    assert values(swapped.map_before) == ((4, 6), [2]) and values(swapped.map_after) == ((4, 6), [1])
    assert values(unchanged.map_before) == values(unchanged.map_after) == ((4, 6), [0])
    houses = Sample("d", Task.DAMAGE, (), reference=REFERENCES[Task.DAMAGE])
    (built,) = ask("no_damage", [houses])
    assert values(built.buildings) == values(built.damage) == ((4, 6), [1])


def test_the_whole_image_has_as_many_corners_as_the_truth() -> None:
    boxes = {4: [[0, 0, 1, 1]], 8: [[0, 0, 1, 0, 1, 1, 0, 1]]}
    asked = [Sample(f"g{n}", Task.GROUNDING, (IMAGE,), reference={"boxes": box}) for n, box in boxes.items()]
    upright, rotated = ask("whole_image", asked)
    assert upright.boxes == ((0.0, 0.0, 6.0, 4.0),)
    assert rotated.boxes == ((0.0, 0.0, 6.0, 0.0, 6.0, 4.0, 0.0, 4.0),)
    assert [output.boxes for output in ask("empty", asked)] == [(), ()]


def test_a_missing_picture_or_truth_is_the_data_s_fault(tmp_path: Path) -> None:
    gone = ImageRef(path=tmp_path / "gone.png")
    (output,) = ask("all_changed", [Sample("a", Task.CHANGE_MASK, (), reference={"mask": gone})])
    assert output.lost and "gone.png" in output.lost
    (output,) = ask("oracle", [Sample("a", Task.DAMAGE, ())])
    assert output.lost == "sample 'a' has no reference.buildings"


def forecast(number: int, value: int, size: int = 4, shown: bool = True) -> Sample:
    images = (picture(size, size, 10),) if shown else ()
    return Sample(
        f"f{number}", Task.FORECAST, images, reference={"images": [picture(size, size, value)]}, scene=f"s{number // 2}"
    )


def test_futures_of_others_are_their_mean_or_one_of_another_scene() -> None:
    asked = [forecast(number, 10 * number) for number in range(6)] + [forecast(9, 200, size=8)]
    means, others = (ask(name, asked) for name in ("mean_image", "other_future"))
    assert [int(output.image.pixels().mean()) for output in means if output.image] == [25] * 6 + [200]
    for sample, output in zip(asked, others, strict=True):
        assert output.image is not None
        found = next(one for one in asked if one.reference["images"][0] is output.image)  # type: ignore[index]
        assert found.scene != sample.scene
    assert [output.image for output in ask("other_future", asked)] == [output.image for output in others]
    (alone,) = ask("other_future", asked[:1])
    assert alone.lost == "there is no sample of another scene"


def test_a_forecast_from_a_text_alone_has_no_input_to_copy() -> None:
    asked = [forecast(number, 40, shown=False) for number in range(4)]
    for name in ("copy_before", "blurred_copy"):
        assert {output.lost for output in ask(name, asked)} == {f"sample 'f{i}' has no input image" for i in range(4)}
    for name in ("noise", "mean_image", "other_future", "oracle"):
        assert all(
            output.image is not None and output.image.pixels().shape[:2] == (4, 4) for output in ask(name, asked)
        ), name
