"""A truth that cannot be used is one error for every output of its sample, whether it was answered or not."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import VERIFIERS, build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.engine.calls import scored
from rsw_rewards.errors import InputError
from rsw_rewards.features.bank import FeatureBank
from tests.chat_server import chat_server, completion

MISSING = object()
"""In place of a value: the key is left out."""
ODD: tuple[Any, ...] = (
    MISSING, None, True, 5, -1.5, math.nan, math.inf, "", " ", "zzz", {}, {"zzz": 1}, [], [""], [" "], ["zzz"], [5],
    [True], [math.nan], [math.inf], [None], [[]], [{}], ["zzz", 5, None], ["<answer>zzz</answer>"], ["<think>so</think>zzz"],
)  # fmt: skip
"""What every key of a reference is set to in turn."""
NOTHING = (MISSING, None)
ABSENT = (MISSING, None, [])
TORN = ImageRef(path=Path(__file__).with_name("no-such-mask.png"))
COLOURED = ImageRef(array=np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
MASK = ImageRef(array=np.array([[0, 255], [0, 0]], np.uint8))


@dataclass(frozen=True)
class Case:
    """A verifier, a sample with a usable truth, and what becomes of that truth when a key of it is set to something odd."""

    verifier: str
    task: Task
    reference: Mapping[str, Any]
    right: Mapping[str, Any]
    """Fields of an output that is right."""
    unreadable: Mapping[str, Any]
    """Fields of an output that the verifier cannot read."""
    config: Mapping[str, Any] = field(default_factory=dict)
    usable: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Key -> values that leave a truth to score by."""
    unasked: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Key -> values with which the sample does not ask the verifier's question."""
    broken: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Key -> further values that break the truth."""

    def __str__(self) -> str:
        return "-".join([self.verifier, self.task, *self.reference, *(str(value) for value in self.config.values())])


def qa(name: str, right: str, reference: Mapping[str, Any], unreadable: str = "", **rest: Any) -> Case:
    return Case(name, Task.CHANGE_QA, reference, {"text": right}, {"text": unreadable}, **rest)


def caption(name: str, reference: Mapping[str, Any], unreadable: str = "road " * 20_000, **rest: Any) -> Case:
    return Case(name, Task.CHANGE_CAPTION, reference, {"text": "a road was built"}, {"text": unreadable}, **rest)


YES = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
ROADS = {"captions": ["a road was built", "a new road appears"]}
ENTRY = {"object": "road", "change": "appeared"}
CASES = [
    qa("exact_match", "yes", YES, "maybe", usable={"vocabulary": ABSENT}, broken={"answers": [["yes", ""], ["no idea"]]}),
    qa("exact_match", "yes", YES, "maybe", config={"answers": "closed"}, unasked={"vocabulary": ABSENT}),
    qa("exact_match", "a pond", {"answers": ["a pond"]}, usable={"answers": [["zzz"], [5]]}),
    Case(
        "exact_match", Task.CLASSIFICATION, {"label": "river", "vocabulary": ["river", "beach"]},
        {"text": "river"}, {"text": "pond"}, usable={"vocabulary": ABSENT},
    ),
    Case(
        "scene_label", Task.CLASSIFICATION, {"label": "river", "vocabulary": ["river", "beach"]},
        {"text": "river"}, {"text": "pond"}, usable={"vocabulary": ABSENT},
    ),
    Case(
        "label_set", Task.CLASSIFICATION, {"labels": ["river", "beach"], "vocabulary": ["river", "beach", "port"]},
        {"text": "river, beach"}, {"text": "[river"}, usable={"labels": [[]], "vocabulary": ABSENT},
        broken={"labels": [["river", "beech"]], "vocabulary": [["river"]]},
    ),
    qa(
        "numeric_match", "3 m", {"answers": ["3"], "unit": "m"}, "1 or 2",
        usable={"answers": [[5]], "unit": [*NOTHING, "", " ", "zzz"]},
        broken={"answers": [["3 m2"], ["1 or 2"], ["1e99"]], "unit": ["m^7"]},
    ),
    qa("numeric_match", "3", {"answers": ["3"]}, "x", config={"reading": "first_token"}, usable={"answers": [[5]]}),
    qa(
        "numeric_match", "12 %", {"answers": ["10_to_20"]}, "lots", config={"ranges": "cdvqa"}, usable={"answers": [[5]]},
        broken={"answers": [["110 %"]]},
    ),
    qa(
        "numeric_match", "yes", YES, "maybe", config={"ranges": "rsvqa"},
        usable={"vocabulary": ABSENT, "answers": [[5]]},
    ),
    qa("change_counts", "1 new road and no new buildings", {"answers": ["1 road and no buildings"]}, "many",
       usable={"answers": [[5]]}, broken={"answers": [["2 roads"], ["1 road and 2 roads and 1 building"]]}),
    qa("grid_localization", "roads ['top-left'] buildings []", {"answers": ["roads ['top-left'] buildings []"]}, "roads",
       broken={"answers": [["roads ['moon'] buildings []"], ["roads []"]]}),
    qa("multiple_choice", "A", {"answers": ["A"], "choices": ["a road", "a pond"]}, "A or B",
       usable={"choices": [*ABSENT, ["zzz"]]}, broken={"answers": [["C"], ["A", "?"]], "choices": [["x"] * 27, ["x", ""]]}),
    qa("vqa_accuracy", "yes", {"answers": ["yes"] * 6 + ["no"] * 4}, broken={"answers": [["yes"] * 9, [""] * 10]}),
    qa("difference_list", "road | appeared", {"changes": [ENTRY]}, "a road",
       unasked={"changes": NOTHING}, usable={"changes": [[]]},
       broken={"changes": [[ENTRY, {"object": "road"}], [{**ENTRY, "count": 0}], [{**ENTRY, "where": "moon"}], [{**ENTRY, "x": 1}]]}),
    Case(
        "box_iou", Task.GROUNDING, {"boxes": [[1, 1, 5, 5]]}, {"boxes": ((1, 1, 5, 5),)}, {"boxes": ((5, 5, 1, 1),)},
        usable={"boxes": [[]]},
        broken={"boxes": [[[5, 5, 1, 1]], [[1, 1, math.nan, 5]], [[1, 1, math.inf, 5]], [[1, 1, 5]], [1, 1, 5, 5], [["1", 1, 5, 5]]]},
    ),
    Case(
        "referring_mask", Task.GROUNDING, {"mask": MASK}, {"mask": MASK}, {"mask": TORN},
        broken={"mask": [TORN, COLOURED, ImageRef(array=np.full((2, 2), 0.5))]},
        unasked={"mask": [ImageRef(array=np.zeros((0, 0), np.uint8))]},
    ),
    *(caption(name, {**ROADS, "changed": True}, usable={"captions": [["zzz"]], "changed": ODD}) for name in ("bleu", "rouge_l", "cider_d")),
    caption(
        "captions", {**ROADS, "changed": True, "no_change": ["nothing changed"]}, config={"meteor": False},
        usable={"captions": [["zzz"]], "changed": [*NOTHING, True], "no_change": [*NOTHING, [""], [" "], ["zzz"]]},
    ),
    caption("caption_gate", {**ROADS, "changed": True}, usable={"captions": [["zzz"]], "changed": [*NOTHING, True]}),
    caption("sentence_similarity", ROADS, "<answer>a road", usable={"captions": [["zzz"]]}),
    qa("sentence_similarity", "a road was built", {"answers": ["a road was built"]},
       usable={"answers": [["zzz"]]}, unasked={"answers": [[5]]}),
    caption("judge", ROADS, usable={"captions": [["zzz"]]}),
    qa("judge", "yes", YES, usable={"vocabulary": ABSENT}, broken={"answers": [["no idea"]]}),
    qa("judge", "a road", {"answers": ["a road"]}, config={"answers": "open"}, usable={"answers": [["zzz"], [5]]}),
    qa("win_rate", "yes", YES, "maybe", config={"use": "exact_match"}, usable={"vocabulary": ABSENT},
       broken={"answers": [["yes", ""], ["no idea"]]}),
    qa("soft_overlong", "yes", YES, "yes it has", config={"unit": "words", "limit": 2, "cache": 1},
       usable={"answers": ODD, "vocabulary": ODD}),
    qa("answer_format", "yes", YES, "<answer>yes", usable={"answers": ODD, "vocabulary": ODD}),
]  # fmt: skip
OF_IMAGES = {"caption_contrast", "clip_score", "ref_clip_score"}
"""Verifiers of captions that read images; they stand with those of forecasts."""
OF_PUBLISHED_CODE = {"published_answer", "published_box", "detection_ap"}
"""Verifiers that read every output somehow and give no value; test_readings.py and test_published_boxes.py have their truths."""


def is_one_of(value: Any, values: Sequence[Any]) -> bool:
    """Whether a value is listed; NaN is equal to itself here, and True is not 1."""
    return any(value is one or (repr(value) == repr(one) and not isinstance(one, ImageRef)) for one in values)


class Words:
    """An encoder of texts: a bag of words, each at a place that its hash says."""

    name, weights_sha256, dim, id = "words", "0" * 64, 64, "words@test"

    def __init__(self, device: str) -> None:
        self.device = device

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        features = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in text.split() or [""]:
                features[row, hashlib.sha256(word.encode()).digest()[0] % self.dim] += 1
        return features

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        raise NotImplementedError


@contextmanager
def ready(case: Case, url: str) -> Iterator[Verifier]:
    needs: dict[str, dict[str, Any]] = {
        "judge": {"base_url": url, "model": "m"},
        "sentence_similarity": {"encoder": f"{__file__}:Words"},
    }
    verifier = build(case.verifier, {**needs.get(case.verifier, {}), **case.config})
    other = replace(sample_of(case, case.reference), reference={"captions": ["nothing changed"]})
    verifier.prepare([sample_of(case, case.reference), other])
    verifier.setup(Context(FeatureBank()))
    try:
        yield verifier
    finally:
        verifier.close()


def sample_of(case: Case, reference: Mapping[str, Any]) -> Sample:
    return Sample("s", case.task, (), "what is there?", reference, scene="s")


def scores_of(verifier: Verifier, case: Case, sample: Sample) -> list[Score]:
    """Of an output that is right, one that says nothing, one that cannot be read, and one that is missing."""
    fields: list[Mapping[str, Any]] = [case.right, {}, case.unreadable, {"invalid": "no prediction"}]
    outputs = [Output("s", number, **one) for number, one in enumerate(fields)]
    found = scored(verifier, Batch.of([sample], outputs))
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with chat_server(lambda body, number: completion("Yes.\nVERDICT: CORRECT")) as server:
        yield server.url


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_broken_truth_is_one_error_for_every_output(case: Case, url: str) -> None:
    with ready(case, url) as verifier:
        good = scores_of(verifier, case, sample_of(case, case.reference))
        assert good[0].status is Status.OK and good[0].value == pytest.approx(1.0, abs=0.5)
        assert [score.status for score in good[1:]] == [Status.INVALID_OUTPUT] * 3
        for key in case.reference:
            for value in (*ODD, *case.broken.get(key, ()), *case.unasked.get(key, ())):
                changed = {name: entry for name, entry in case.reference.items() if name != key}
                if value is not MISSING:
                    changed[key] = value
                try:
                    sample = sample_of(case, changed)
                except InputError as error:  # a record refuses what has another type, naming the field
                    assert f"reference.{key}" in str(error)
                    continue
                value = sample.reference.get(key, MISSING)  # as the record completed it
                found = scores_of(verifier, case, sample)
                about = f"{key} = {value!r:.80}: {found}"
                if is_one_of(value, case.usable.get(key, ())):
                    assert {score.status for score in found} <= {Status.OK, Status.INVALID_OUTPUT}, about
                    assert (found[3].status, found[3].reason) == (Status.INVALID_OUTPUT, "no prediction"), about
                    continue
                status = Status.NOT_APPLICABLE if is_one_of(value, case.unasked.get(key, ())) else Status.ERROR
                assert [(score.status, score.value) for score in found] == [(status, None)] * 4, about
                assert len({score.reason for score in found}) == 1, about
                if status is Status.ERROR:  # in words, not as what Python raised
                    assert found[0].reason.startswith("the truth of sample 's' cannot be "), about
                    assert "Error: " not in found[0].reason, about


def test_a_key_that_a_verifier_does_not_read_changes_nothing(url: str) -> None:
    for case in CASES:
        with ready(case, url) as verifier:
            remarked = sample_of(case, {**case.reference, "remark": math.nan})
            plain = sample_of(case, case.reference)
            assert scores_of(verifier, case, remarked) == scores_of(verifier, case, plain), case


def test_every_verifier_of_answers_captions_labels_and_boxes_is_tried() -> None:
    tasks = {Task.CHANGE_QA, Task.CHANGE_CAPTION, Task.CLASSIFICATION, Task.GROUNDING}
    built_in = {name: VERIFIERS.find(name) for name in VERIFIERS.built_in}
    assert {case.verifier for case in CASES} == {
        name for name, cls in built_in.items() if cls.tasks & tasks
    } - OF_IMAGES - OF_PUBLISHED_CODE
