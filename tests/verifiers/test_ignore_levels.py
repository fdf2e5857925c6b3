"""``ignore_levels``: a change of a copy that no one sees earns what the copy earns, whatever network looks at it."""

from __future__ import annotations

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.rubric import build

LEVELS = 12
ENCODER = {"use": "encoder_similarity", "config": {"gain": True, "ignore_levels": LEVELS}}
DETECTOR = {"use": "detector_consistency", "config": {"ignore_levels": LEVELS}}


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, true future and change mask: a bright roof on noise, under light that moved by a few levels."""
    chance = np.random.default_rng(3)
    before = chance.integers(70, 120, (64, 64, 3)).astype(np.uint8)
    after = before + chance.integers(0, 7, before.shape).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 24:44] = 255
    after[mask > 0] = (220, 210, 205)
    return before, after, mask


def values(part: dict, *outputs: np.ndarray) -> list[float]:
    before, after, mask = scene()
    sample = {"task": "forecast", "images": [before], "reference": {"images": [after], "mask": mask}}
    with rsw.Reward({"components": [part]}) as reward:
        return [result.reward for result in reward.many(list(outputs), [sample] * len(outputs))]


@pytest.mark.parametrize("part", [ENCODER, DETECTOR], ids=["encoder", "detector"])
def test_changes_within_the_levels_earn_what_a_copy_earns(part: dict) -> None:
    before, after, _ = scene()
    chance = np.random.default_rng(0)
    near = [(before + chance.integers(-LEVELS, LEVELS + 1, before.shape)).astype(np.uint8) for _ in range(3)]
    beyond = near[0].copy()
    beyond[20:40, 24:44] = before[20:40, 24:44] + LEVELS + 60
    copy, *rest, moved, truth = values(part, before, *near, beyond, after)
    assert rest == [copy] * 3 and moved != copy
    assert truth > 0.9 > copy


def test_without_it_a_change_within_the_levels_is_seen() -> None:
    before, after, _ = scene()
    hint = np.where(after.astype(int) > before, np.minimum(after, before + LEVELS), before).astype(np.uint8)
    open_eyed = {"use": "encoder_similarity", "config": {"gain": True}}
    copy, hinted = values(open_eyed, before, hint)
    assert copy != hinted
    assert len(set(values(ENCODER, before, hint))) == 1


def test_the_keys_say_that_numbers_are_others() -> None:
    keys = [
        key
        for part in (ENCODER, DETECTOR)
        for metric in build(part["use"], part["config"]).metrics()
        for key in metric.keys
    ]
    assert "gain_cos_scene-clip_over12" in keys and "change_f1/over12" in keys


@pytest.mark.parametrize(
    "part",
    [
        {"use": "encoder_similarity", "config": {"ignore_levels": 3}},
        {"use": "detector_consistency", "config": {"ignore_levels": 3, "detector": "cva#bands=0,1,2"}},
        {"use": "detector_consistency", "config": {"ignore_levels": -1}},
    ],
)
def test_what_cannot_be_is_refused(part: dict) -> None:
    with pytest.raises(rsw.RswError, match="ignore_levels"):
        build(part["use"], part["config"])
