"""Change detectors: the shipped one sees change, and others are found by path or name."""

from __future__ import annotations

import numpy as np
import pytest

from rsw_rewards.data.scene_world import make_scene, split_seed
from rsw_rewards.detectors import SCENE_DETECTOR_FOLDER, Detector, load_detector
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.encoders import mask_scores


class Everything:
    """A detector that finds change everywhere."""

    name = "everything"
    weights_sha256 = "0" * 64

    def __init__(self, device: str) -> None:
        self.device = device

    def predict(self, before, after):
        return np.ones(before.shape[:3], np.float32)


class Blind:
    """Not a detector: it has no ``predict``."""

    def __init__(self, device: str) -> None:
        self.device = device


@pytest.fixture(scope="module")
def pairs():
    scenes = [make_scene(split_seed("dev", 904), index) for index in range(40)]
    return tuple(np.stack([getattr(s, name) for s in scenes]) for name in ("before", "after", "mask"))


def test_the_shipped_detector_sees_change_and_no_season(pairs):
    before, after, mask = pairs
    probability = load_detector().predict(before, after)
    assert probability.dtype == np.float32
    assert probability.shape == mask.shape
    assert mask_scores(probability, mask)["f1"] > 0.95
    still = ~mask.any((1, 2))
    assert (probability[still] > 0.5).mean() < 0.001


def test_a_pair_is_judged_by_itself(pairs):
    before, after, _ = pairs
    detector = load_detector()
    assert np.array_equal(detector.predict(before, after)[20], detector.predict(before[20:21], after[20:21])[0])


def test_detectors_by_path_and_object():
    assert isinstance(load_detector(str(SCENE_DETECTOR_FOLDER)), Detector)
    found = load_detector(f"{__file__}:Everything")
    assert found.predict(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)).all()


@pytest.mark.parametrize("name", ["unheard-of", f"{__file__}:Nowhere", f"{__file__}:Blind"])
def test_what_is_no_detector_is_refused(name):
    with pytest.raises(ConfigError):
        load_detector(name)


def test_shapes_are_checked(pairs):
    detector = load_detector()
    with pytest.raises(ValueError, match="shape"):
        detector.predict(pairs[0], pairs[1][:3])
    with pytest.raises(ValueError, match="multiples of 4"):
        detector.predict(pairs[0][:, :63], pairs[1][:, :63])
