"""The visual tokenizer: deterministic whatever else is in the batch, and good enough for forecasts to beat a copy."""

from __future__ import annotations

import numpy as np
import pytest

from rsw_rewards.assets import ASSETS
from rsw_rewards.data.scene_world import make_scene, split_seed
from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer, VisualTokenizerConfig
from rsw_rewards.training.tokenizer import gain_over_copy


@pytest.fixture(scope="module")
def tokenizer():
    return VisualTokenizer.load(ASSETS / "tokenizer")


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(split_seed("dev", 901), index) for index in range(120)]


def test_ceiling_over_changed_scenes_leaves_room_above_copying(tokenizer, scenes):
    changed = [s for s in scenes if s.changed]
    before, after = (np.stack([getattr(s, name) for s in changed]) for name in ("before", "after"))
    made = tokenizer.decode_forecast(before, tokenizer.encode(after))
    assert gain_over_copy(made, before, after) >= 0.7


def test_a_copied_forecast_is_the_input_bit_for_bit(tokenizer, scenes):
    before = np.stack([s.before for s in scenes[:20]])
    copied = tokenizer.decode_forecast(before, tokenizer.encode(before))
    assert np.array_equal(copied, before)
    assert gain_over_copy(copied, before, np.stack([s.after for s in scenes[:20]])) == 0.0


def test_results_do_not_depend_on_the_batch(tokenizer, scenes):
    images = np.stack([s.after for s in scenes[:37]])
    codes = tokenizer.encode(images)
    assert codes.shape == (37, 64)
    assert codes.min() >= 0
    assert codes.max() < 256
    assert np.array_equal(tokenizer.encode(images[30:31])[0], codes[30])
    assert np.array_equal(tokenizer.decode(codes)[30], tokenizer.decode(codes[30:31])[0])
    assert np.array_equal(tokenizer.encode(images[::-1])[::-1], codes)


def test_other_sizes_and_grids(tokenizer):
    images = np.zeros((1, 64, 96, 3), np.uint8)
    codes = tokenizer.encode(images)
    assert codes.shape == (1, 8 * 12)
    assert tokenizer.decode(codes, (8, 12)).shape == (1, 64, 96, 3)
    with pytest.raises(ValueError, match="multiples of 8"):
        tokenizer.encode(np.zeros((1, 60, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="do not fill"):
        tokenizer.decode(codes)
    with pytest.raises(ValueError, match=r"\[0, 256\)"):
        tokenizer.decode(np.full((1, 64), 256))


def test_saved_weights_are_read_back(tmp_path):
    fresh = VisualTokenizer(VisualTokenizerConfig(codes=32, dim=8, width=8)).eval()
    fresh.save(tmp_path)
    again = VisualTokenizer.load(tmp_path)
    assert again.config == fresh.config
    for name, value in fresh.state_dict().items():
        assert np.array_equal(again.state_dict()[name].numpy(), value.half().float().numpy())
