"""Change detectors: the shipped one sees change, change vectors need no labels, and others are found by path or name."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from rsw_rewards.data.scene_world import make_scene, split_seed
from rsw_rewards.detectors import (
    MICRO_BATCH,
    SCENE_DETECTOR_FOLDER,
    ChangeVectors,
    Detector,
    Views,
    change_magnitude,
    detector_bands,
    load_damage_detector,
    load_detector,
    otsu_threshold,
    predict_pairs,
)
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.encoders import mask_scores
from rsw_rewards.verifiers.confusion import binary_change_metrics, confusion_matrix
from tests.shared_data import shared


class Everything:
    """A detector that finds change everywhere."""

    name = "everything"
    weights_sha256 = "0" * 64

    def __init__(self, device: str) -> None:
        self.device = device

    def predict(self, before, after, valid=None):
        return np.ones(before.shape[:3], np.float32)


class Blind:
    """Not a detector: it has no ``predict``."""

    def __init__(self, device: str) -> None:
        self.device = device


class Difference(torch.nn.Module):
    """Logits from a mean difference of bands; ``outputs`` channels."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(1, outputs, 1)
        torch.nn.init.constant_(self.head.weight, 40.0)
        torch.nn.init.constant_(self.head.bias, -4.0)

    def forward(self, before, after):
        return self.head((before - after).abs().mean(1, keepdim=True))


def difference() -> torch.nn.Module:
    return Difference()


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
    for name in ("scene-detector", "cva"):
        detector = load_detector(name)
        assert np.array_equal(detector.predict(before, after)[20], detector.predict(before[20:21], after[20:21])[0])


def test_detectors_by_path_and_object(tmp_path: Path):
    assert isinstance(load_detector(str(SCENE_DETECTOR_FOLDER)), Detector)
    found = load_detector(f"{__file__}:Everything")
    assert found.predict(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)).all()
    weights = (SCENE_DETECTOR_FOLDER / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(json.dumps({"width": 16}))
    with pytest.raises(ConfigError, match="shape"):
        load_detector(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"widht": 24}))
    with pytest.raises(ConfigError, match="does not describe"):
        load_detector(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "unheard-of",
        f"{__file__}:Nowhere",
        f"{__file__}:Blind",
        f"{__file__}:MICRO_BATCH",
        "cva:much",
        "cva:-1",
        "cva:nan",
        "cva#bands=a",
        "cva#bands=1,",
        "cva#colour=red",
        "cva#output=logits",
        f"{__file__}:Everything#weights=nowhere.safetensors",
        f"{__file__}:difference#weights=nowhere.safetensors",
        f"{__file__}:difference#weights=nowhere.safetensors&output=magic",
        "torchscript:nowhere.pt",
    ],
)
def test_what_is_no_detector_is_refused(name):
    with pytest.raises(ConfigError):
        load_detector(name)


def test_shapes_are_checked(pairs):
    detector = load_detector()
    with pytest.raises(ValueError, match="shape"):
        detector.predict(pairs[0], pairs[1][:3])
    with pytest.raises(ValueError, match="multiples of 4"):
        detector.predict(pairs[0][:, :63], pairs[1][:, :63])
    with pytest.raises(ValueError, match="uint8"):
        detector.predict(pairs[0].astype(np.float32), pairs[1].astype(np.float32))


def views(before: np.ndarray, after: np.ndarray, valid: np.ndarray | None = None) -> Views:
    return Views(before, after, np.ones(before.shape[:2], bool) if valid is None else valid)


def test_networks_of_others(tmp_path: Path, pairs):
    before, after = (part[:MICRO_BATCH] for part in pairs[:2])
    expected = 1 / (1 + np.exp(4 - 40 * np.abs(before / 255.0 - after / 255.0).mean(-1)))
    traced = torch.jit.trace(Difference(), (torch.rand(16, 3, 64, 64), torch.rand(16, 3, 64, 64)))
    traced.save(str(tmp_path / "net.pt"))
    torch.save(Difference().state_dict(), tmp_path / "state.pth")
    for name in (f"torchscript:{tmp_path}/net.pt", f"{__file__}:difference#weights={tmp_path}/state.pth"):
        detector = load_detector(name)
        assert np.allclose(detector.predict(before, after), expected, atol=1e-5), name
        assert len(detector.weights_sha256) == 64
    # Two channels are a softmax, and five are damage.
    torch.jit.script(Difference(2)).save(str(tmp_path / "two.pt"))
    assert np.allclose(load_detector(f"torchscript:{tmp_path}/two.pt").predict(before, after), 0.5)
    torch.jit.script(Difference(5)).save(str(tmp_path / "five.pt"))
    levels = load_damage_detector(f"torchscript:{tmp_path}/five.pt").predict_levels(before, after)
    assert levels.shape == (MICRO_BATCH, 64, 64, 5) and np.allclose(levels.sum(-1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="5 channels"):
        load_detector(f"torchscript:{tmp_path}/five.pt").predict(before, after)
    with pytest.raises(ConfigError, match="predict_levels"):
        load_damage_detector("cva")


class Sigmoid(Difference):
    def forward(self, before, after):
        return self.head((before - after).abs().mean(1, keepdim=True)).sigmoid()


def test_probabilities_are_not_taken_for_logits(tmp_path: Path, pairs):
    torch.jit.trace(Sigmoid(), (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))).save(str(tmp_path / "net.pt"))
    before, after = (part[:4] for part in pairs[:2])
    with pytest.raises(ValueError, match="output=probabilities"):
        load_detector(f"torchscript:{tmp_path}/net.pt").predict(before, after)
    said = load_detector(f"torchscript:{tmp_path}/net.pt#output=probabilities").predict(before, after)
    assert said.min() < 0.1 and said.max() > 0.9


def test_no_file_is_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"head.weight": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "archive.pt2").write_bytes((tmp_path / "trap.pth").read_bytes())
    for name in (
        f"{__file__}:difference#weights={tmp_path}/trap.pth",
        f"torchscript:{tmp_path}/trap.pth",
        f"torchscript:{tmp_path}/archive.pt2",
    ):
        with pytest.raises(ConfigError):
            load_detector(name)
    assert not (tmp_path / "sprung").exists()


def test_otsu_is_that_of_scikit_image():
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.7):
        values = np.where(rng.random(5000) < share, rng.normal(5, 1, 5000), rng.normal(1, 0.5, 5000))
        assert otsu_threshold(values) == pytest.approx(filters.threshold_otsu(values), rel=1e-12)
    assert otsu_threshold(np.full(10, 3.0)) is None and otsu_threshold(np.zeros(0)) is None


def test_change_vectors_on_a_real_pair_give_the_published_numbers():
    """Landsat-7 pair of Taizhou, six bands: the golden mask to the pixel, F1 0.916 on what is labelled."""
    golden = shared("golden/change_mask_taizhou_partial")
    data = shared("data/landsat_taizhou")
    expected = json.loads((golden / "expected.json").read_text())
    with np.load(data / "bands_uint8.npz") as bands:
        before, after = (np.ascontiguousarray(np.moveaxis(bands[key], 0, -1)) for key in ("t1", "t2"))
    assert otsu_threshold(change_magnitude(before, after)) == pytest.approx(expected["otsu_threshold"], rel=1e-9)
    detector = load_detector("cva#bands=0,1,2,3,4,5")
    (said,) = predict_pairs(detector.predict, [views(before, after)], "cva", "cpu")
    found = said >= 0.5
    mask = np.asarray(Image.open(golden / "pred_cva_otsu.png")) > 127
    assert np.array_equal(found, mask)
    changed, unchanged = (np.asarray(Image.open(data / f"{name}.png")) > 127 for name in ("change", "unchanged"))
    counts = confusion_matrix(changed, found, changed | unchanged)
    assert counts.tolist() == expected["confusion_rows_gt_cols_pred"]
    numbers = binary_change_metrics(counts)
    assert numbers["f1"] == pytest.approx(expected["F1"], rel=1e-9)
    assert numbers["kappa"] == pytest.approx(expected["kappa"], rel=1e-9)


def test_change_vectors_see_no_change_of_light_and_none_in_noise(pairs):
    before, after, mask = pairs
    detector = ChangeVectors()
    lighter = np.rint(before.astype(np.float64) * 0.7 + 20).astype(np.uint8)
    assert (detector.predict(before, lighter) < 0.5).all()
    assert (detector.predict(before, before) == 0).all()
    still = ~mask.any((1, 2))
    assert (detector.predict(before[still], after[still]) >= 0.5).mean() < 0.01
    assert mask_scores(detector.predict(before, after)[~still], mask[~still])["f1"] > 0.5
    flat = np.full((1, 8, 8, 3), 7, np.uint8)
    assert (detector.predict(flat, flat + 9) == 0).all()


def test_a_fixed_threshold_means_what_it_says():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 1, 12, 12, 4))
    magnitude = change_magnitude(before[0], after[0])
    assert np.array_equal(ChangeVectors(2.0).predict(before, after)[0] >= 0.5, magnitude >= 2.0)
    assert load_detector("cva:2").threshold == 2.0  # type: ignore[attr-defined]


loaded = functools.cache(load_detector)


@given(arrays(np.uint8, (6, 8, 5)), arrays(np.bool_, (6, 8)), st.sampled_from(["cva", "scene-detector"]))
def test_pixels_without_data_change_no_bit(garbage: np.ndarray, valid: np.ndarray, name: str):
    rng = np.random.default_rng(3)
    channels = 3 if name == "scene-detector" else 5
    before, after = rng.integers(0, 256, (2, 6, 8, channels), dtype=np.uint8)
    spoiled = [np.where(valid[..., None], part, garbage[..., :channels]) for part in (before, after)]
    detector = loaded(name)
    one, other = predict_pairs(detector.predict, [views(before, after, valid), views(*spoiled, valid)], name, "cpu")
    assert np.array_equal(one, other)


def test_bands_are_read_from_the_name():
    assert detector_bands("cva") is None
    assert detector_bands("cva:3#bands=5,0,11,2") == (5, 0, 11, 2)
    with pytest.raises(ConfigError, match="bands"):
        detector_bands("cva#bands=" + ",".join("1" * 65))


def test_a_broken_detector_is_named(pairs):
    broken = lambda before, after, valid: np.full(before.shape[:3], 1.5)  # noqa: E731
    with pytest.raises(ValueError, match="'odd'"):
        predict_pairs(broken, [views(pairs[0][0], pairs[1][0])], "odd", "cpu")
