"""What all adapters share: rows as samples, images as trainers hand them over, and what a failed reward becomes."""

from __future__ import annotations

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample
from rsw_rewards.integrations.adapter import Adapter, from_text, group_means
from rsw_rewards.io.given_images import KINDS, from_image, images_of

QUESTION = {"id": "q", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
RUBRIC = {"exact_match": 0.9, "answer_format": 0.1}
PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    "truth",
    [
        QUESTION,
        json.dumps(QUESTION),
        {**QUESTION, "reference": {"answers": np.array(["yes"], dtype=object), "vocabulary": np.array(["yes", "no"]), "unit": None}},
    ],
    ids=["mapping", "JSON", "arrays of a Parquet file"],
)  # fmt: skip
def test_a_row_holds_its_whole_sample(truth: object) -> None:
    adapter = Adapter(RUBRIC)
    assert adapter.sample(truth).reference == Sample(**QUESTION).reference
    assert adapter.reward.one("yes", adapter.sample(truth)).reward == 1.0


@pytest.mark.parametrize("name", ["q", np.str_("q"), np.array("q", dtype=object)])
def test_a_row_names_its_sample(name: object) -> None:
    assert Adapter(RUBRIC, [QUESTION]).sample(name) == Sample(**QUESTION)


def test_a_rows_truth_is_the_answer() -> None:
    adapter = Adapter({"exact_match": 1.0}, truth=("change_qa", "answers"))
    assert [adapter.reward.one("3", adapter.sample(truth)).reward for truth in (3, "3", ["4", "3"], np.int64(3), "4")] == [
        1, 1, 1, 1, 0,
    ]  # fmt: skip


def test_an_unknown_id_is_a_sentence() -> None:
    with pytest.raises(rsw.InputError, match=r"'other' is the id of none of the 1 samples"):
        Adapter(RUBRIC, [QUESTION]).sample("other")
    with pytest.raises(rsw.InputError, match=r"'q' is no sample; give 'samples'"):
        Adapter(RUBRIC).sample("q")


URL = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": URL},
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "input_image", "image_url": URL},
        SimpleNamespace(type="image", image=URL),
        SimpleNamespace(type="image_url", image_url=SimpleNamespace(url=URL)),
    ],
    ids=["transformers", "OpenAI", "Responses", "Inspect", "verifiers"],
)
def test_the_images_of_a_prompt(part: object) -> None:
    text = {"type": "text", "text": "Changed?"}
    turns = [{"role": "system", "content": "Look."}, {"role": "user", "content": [text, part]}, {"role": "tool"}]
    assert images_of(turns) == images_of([SimpleNamespace(content=[part])]) == [URL]
    assert images_of("Changed?") == images_of(None) == []


def test_the_images_of_a_prompt_are_those_of_a_sample_in_the_row_that_names_none() -> None:
    file = Image.fromarray(PIXELS)
    (shown,) = Adapter(RUBRIC).sample(json.dumps(QUESTION), [file]).images
    assert np.array_equal(shown.pixels(), PIXELS)
    assert Adapter(RUBRIC).sample({**QUESTION, "images": ["own.png"]}, [file]).images[0].path.name == "own.png"
    assert Adapter(RUBRIC, [QUESTION]).sample("q", [file]).images == ()
    assert Adapter({"exact_match": 1.0}, truth=("change_qa", "answers")).sample("yes", [file]).images


def test_a_sample_that_is_not_answered_by_what_the_trainer_gives_is_a_sentence() -> None:
    pair = {"id": "m", "task": "change_mask", "images": [PIXELS, PIXELS], "reference": {"mask": PIXELS[..., 0] > 0}}
    with pytest.raises(
        rsw.InputError, match=r"'m' is of the task change_mask, which is answered by mask, but here .* a text"
    ):
        Adapter({"change_mask": 1.0}, [pair]).sample("m")
    with pytest.raises(
        rsw.InputError, match=r"'q' is of the task change_qa, which is answered by text, but here .* an image"
    ):
        Adapter(RUBRIC, gives="image").sample(QUESTION)


IMAGES = {
    "pil": Image.fromarray(PIXELS),
    "bytes": encoded("PNG"),
    "base64": base64.b64encode(encoded("PNG")).decode(),
    "data_url": "data:image/png;base64," + base64.b64encode(encoded("PNG")).decode(),
    "float_chw": np.moveaxis(PIXELS, -1, 0).astype(np.float32) / 255,
    "float_hwc": PIXELS.astype(np.float32) / 255,
    "uint8_chw": np.moveaxis(PIXELS, -1, 0),
    "uint8_hwc": PIXELS,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_what_its_kind_says(kind: str, tmp_path: object) -> None:
    (path := tmp_path / "image.png").write_bytes(encoded("PNG"))  # type: ignore[operator]
    images = {**IMAGES, "path": path}
    output = from_image(images[kind], kind)
    assert np.array_equal(output.image.pixels(), PIXELS)
    for other in set(images) - {kind}:
        if kind[0] != other[0] or "_" not in kind:  # the two layouts of a square array are not told apart
            with pytest.raises(rsw.InputError, match=f"images must be {re.escape(KINDS[other].text)}"):
                from_image(images[kind], other)


def test_a_jpeg_is_refused() -> None:
    for value, kind in (
        (encoded("JPEG"), "bytes"),
        (base64.b64encode(encoded("JPEG")).decode(), "base64"),
        ("data:image/jpeg;base64," + base64.b64encode(encoded("JPEG")).decode(), "data_url"),
        (Image.open(io.BytesIO(encoded("JPEG"))), "pil"),
    ):
        with pytest.raises(rsw.InputError, match="make it a PNG"):
            from_image(value, kind)


def test_an_image_without_finite_numbers_is_the_policys_fault() -> None:
    output = from_image(np.full((3, 8, 8), np.nan, np.float32), "float_chw")
    assert output.invalid == "the image holds numbers that are not finite"


def test_a_text_that_was_cut_off_is_invalid() -> None:
    reward = rsw.Reward(RUBRIC)
    assert [reward.one(from_text("yes", cut_off), QUESTION).reward for cut_off in (False, True)] == [1.0, 0.0]


def advantages(rewards: list[float]) -> np.ndarray:
    """As GRPO has them, in float64."""
    values = np.array(rewards)
    return (values - values.mean()) / max(values.std(ddof=1), 1e-300)


@given(st.lists(st.integers(0, 100), min_size=3, max_size=9).filter(lambda known: len(set(known)) > 1))
def test_the_mean_moves_no_siblings_advantage_but_by_one_factor(known: list[int]) -> None:
    without = [value / 100 for value in known]
    filled = group_means([*without, None], "a" * (len(without) + 1))
    n = len(filled)
    assert advantages(filled)[-1] == pytest.approx(0, abs=1e-12)
    assert advantages(filled)[:-1] == pytest.approx(advantages(without) * np.sqrt((n - 1) / (n - 2)), abs=1e-9)


def test_a_group_with_fewer_than_two_rewards_teaches_nothing() -> None:
    assert group_means([None, 0.7, None, None], "aabb") == [0.7, 0.7, 0.0, 0.0]


@rsw.verifier(tasks="change_qa")
def share(sample: Sample, output: rsw.Output) -> float:
    """The number that the output is; a text is a fault of the verifier's."""
    return float(output.text or "")


def test_a_failure_becomes_what_was_chosen() -> None:
    texts, groups = ["1", "0", "broken", "0.5"], ["a", "a", "a", "b"]
    for on_failure, expected in (("drop", [1.0, 0.0, None, 0.5]), ("group_mean", [1.0, 0.0, 0.5, 0.5])):
        adapter = Adapter(share, on_failure=on_failure, choices=("raise", "drop", "group_mean"))
        results = adapter.reward.many(texts, [QUESTION] * 4, groups)
        assert adapter.numbers(results, groups) == expected
    adapter = Adapter(share)
    with pytest.raises(rsw.RunStopped, match=r"no reward: share: .*could not convert"):
        adapter.numbers(results, groups)
    with pytest.raises(rsw.RunStopped, match="no reward: share"):
        adapter.number(results[2])
    assert [row["share"] for row in map(adapter.logged, results)] == pytest.approx([1.0, 0.0, np.nan, 0.5], nan_ok=True)


def test_failures_that_a_trainer_fills_are_said_and_not_in_every_step(caplog: pytest.LogCaptureFixture) -> None:
    adapter = Adapter(share, on_failure="group_mean", choices=("raise", "group_mean"))
    results = adapter.reward.many(["1", "broken", "0"], [QUESTION] * 3, list("aaa"))
    for _ in range(5):
        adapter.numbers(results, "aaa")
    said = [record.message for record in caplog.records]
    assert [text.partition(" outputs")[0] for text in said] == ["1", "2", "4"]
    assert "share: ValueError" in said[0] and "mean of its group's others" in said[0]


def test_settings_that_nothing_reads_are_refused() -> None:
    with pytest.raises(rsw.ConfigError, match="there is no setting 'timeout_s'"):
        Adapter(share, timeout_s=3)
    with pytest.raises(rsw.ConfigError, match="there is no setting 'sample'"):
        Adapter(share, sample=[QUESTION])
    with pytest.raises(rsw.ConfigError, match="with 'samples' a row's truth is the id of one"):
        Adapter(share, [QUESTION], truth=("change_qa", "answers"))


def test_what_a_trainer_cannot_do_is_refused() -> None:
    with pytest.raises(rsw.ConfigError, match="'on_failure' cannot be 'drop' here; known are raise"):
        Adapter(share, on_failure="drop")
    with pytest.raises(
        rsw.ConfigError, match=r"normalises each component within a group .* and verl shows one output at a time"
    ):
        Adapter(
            {"combine": "normalize_each", "components": [{"use": "exact_match"}]},
            alone="verl shows one output at a time",
        )
