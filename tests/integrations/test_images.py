"""Our rewards of images in verl-omni, Flow-GRPO and Flow-Factory: the same as outside of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.integrations import flow_factory, flow_grpo, verl_omni

LEVELS = np.random.default_rng(0)
BEFORE, AFTER, OTHER = (LEVELS.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(3))
SAMPLE = {"id": "a", "task": "forecast", "images": [BEFORE], "reference": {"images": [AFTER]}}
RUBRIC = {"gain_over_copy": 0.7, "ssim": 0.3}


def expected(images: list[np.ndarray]) -> list[float]:
    return [result.reward for result in rsw.Reward(RUBRIC).many(images, [SAMPLE] * len(images))]


@pytest.fixture
def images() -> list[np.ndarray]:
    return [AFTER, BEFORE, OTHER, (AFTER // 2 + BEFORE // 2).astype(np.uint8)]


def tensor(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array.copy())


def test_verl_omni_gives_our_rewards(images: list[np.ndarray]) -> None:
    given = [
        verl_omni.compute_score("scenes", tensor(np.moveaxis(image, -1, 0)), "a", {}, rubric=RUBRIC, samples=[SAMPLE])
        for image in images
    ]
    assert [row["score"] for row in given] == expected(images)
    assert all(set(row) == {"score", *RUBRIC} for row in given)
    frames = tensor(np.moveaxis(images[2], -1, 0)[None])
    assert verl_omni.compute_score("scenes", frames, "a", rubric=RUBRIC, samples=[SAMPLE]) == given[2]


def test_flow_grpo_gives_our_rewards_from_bytes_and_floats(images: list[np.ndarray]) -> None:
    functions = flow_grpo.RSWReward(RUBRIC, [SAMPLE]).score_functions()
    assert list(functions) == ["rsw", *(f"rsw_{name}" for name in RUBRIC)]
    metadata, prompts = [{"id": "a"}] * len(images), ["a road"] * len(images)
    floats = tensor(np.moveaxis(np.stack(images), -1, 1)).float() / 255
    for batch in (np.stack(images), floats):
        assert functions["rsw"]()(batch, prompts, metadata) == (expected(images), {})
        parts = functions["rsw_gain_over_copy"]()(batch, prompts, metadata)[0]
        assert parts == [rsw.Reward({"gain_over_copy": 1.0}).one(image, SAMPLE).reward for image in images]


def test_an_image_that_is_not_finite_is_invalid_and_one_of_another_kind_is_refused() -> None:
    score = flow_grpo.RSWReward(RUBRIC, [SAMPLE]).score_functions()["rsw"]()
    broken = tensor(np.full((1, 3, 16, 16), np.nan, np.float32))
    assert score(broken, ["a road"], [{"id": "a"}]) == ([0.0], {})
    with pytest.raises(rsw.InputError, match=r"the float32 array of .* images must be uint8 arrays as \(H, W, C\)"):
        score(np.zeros((1, 3, 16, 16), np.float32), ["a road"], [{"id": "a"}])
    with pytest.raises(rsw.InputError, match="the metadata of a prompt has no 'id'; it has name"):
        score(np.zeros((1, 16, 16, 3), np.uint8), ["a road"], [{"name": "a"}])
    with pytest.raises(
        rsw.InputError, match=r"a value of the type bytes; this trainer's images must be uint8 arrays as \(C, H, W\)"
    ):
        verl_omni.compute_score("scenes", b"a file", "a", rubric=RUBRIC, samples=[SAMPLE])


def test_an_image_that_was_read_from_a_jpeg_is_refused() -> None:
    Image.fromarray(AFTER).save(file := io.BytesIO(), "JPEG")
    rewards = flow_factory.Rewards({"rubric": RUBRIC, "samples": [{**SAMPLE, "prompt": "a road"}]}, groups=False)
    with pytest.raises(rsw.InputError, match="the image is a JPEG, which changes what is measured; make it a PNG"):
        rewards.of_batch(["a road"], [[Image.open(file)]])
