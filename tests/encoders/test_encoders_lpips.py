"""LPIPS: equal to the published code with the same weights, place by place, whatever else is in the batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsw_rewards.encoders.lpips import FILES, MODELS, SMALLEST, LpipsNetwork, area_mean, lpips_from_maps
from rsw_rewards.errors import ConfigError


def pairs(n: int, height: int = 48, width: int = 64, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    both = np.random.default_rng(seed).integers(0, 256, (2, n, height, width, 3), dtype=np.uint8)
    return list(both[0]), list(both[1])


def features(net: str) -> Any:
    """torchvision's convolutional layers with random weights."""
    import torch
    import torchvision

    with torch.device("meta"):
        layers = getattr(torchvision.models, MODELS[net])(weights=None).features.to_empty(device="cpu")
    torch.manual_seed(3)
    for layer in layers.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return layers


def random_trunk(net: str, folder: Path) -> Path:
    """Random weights saved as torchvision publishes its own: with a classifier, here one of no use."""
    import torch

    state = {f"features.{key}": value for key, value in features(net).state_dict().items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(1)}, folder / FILES[net])
    return folder


@pytest.fixture(scope="module")
def alex(tmp_path_factory: pytest.TempPathFactory) -> LpipsNetwork:
    return LpipsNetwork.from_files("alex", random_trunk("alex", tmp_path_factory.mktemp("alex")))


def reference(
    net: str, first: list[np.ndarray], second: list[np.ndarray], patch: pytest.MonkeyPatch
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Distances and per-layer means of the lpips package with the same trunk, and its own heads."""
    import lpips
    import torch

    zoo = SimpleNamespace(**{MODELS[net]: lambda pretrained: SimpleNamespace(features=features(net))})
    patch.setattr(lpips.pretrained_networks, "tv", zoo)
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    scaled = [
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0 for images in (first, second)
    ]
    with torch.no_grad():
        total, layers = theirs(*scaled, retPerLayer=True)
    return total.flatten().numpy(), [layer.flatten().numpy() for layer in layers[1:]]


@pytest.mark.parametrize("net", MODELS)
def test_it_equals_the_published_code(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lpips")
    ours = LpipsNetwork.from_files(net, random_trunk(net, tmp_path))  # type: ignore[arg-type]
    first, second = pairs(3)
    wanted, layers = reference(net, first, second, monkeypatch)
    np.testing.assert_allclose(ours.distance(first, second, 4), wanted, rtol=1e-4)
    # The package adds its layers up in the first of them, so that one is not compared.
    for made, layer in zip(ours.maps(first, second, 4)[1:], layers, strict=True):
        np.testing.assert_allclose(made.mean((1, 2)), layer, rtol=1e-4, atol=1e-11)
    assert wanted.min() > 1e-3


def test_a_distance_depends_on_its_own_pair_alone(alex: LpipsNetwork) -> None:
    first, second = pairs(5)
    whole = alex.distance(first, second, 8)
    np.testing.assert_array_equal([alex.distance([a], [b], 8)[0] for a, b in zip(first, second, strict=True)], whole)
    np.testing.assert_array_equal(alex.distance(second, first, 8), whole)
    assert (alex.distance(first, first, 8) == 0).all() and (whole > 0).all()


def test_maps_say_where(alex: LpipsNetwork) -> None:
    (image,), _ = pairs(1, 256, 256)
    other = image.copy()
    other[:64, :64] = 255 - other[:64, :64]
    for layer in alex.maps([image], [other], 1):
        inside = layer[0][: layer.shape[1] // 4, : layer.shape[2] // 4].mean()
        outside = layer[0][layer.shape[1] * 3 // 4 :, layer.shape[2] * 3 // 4 :].mean()
        assert inside > 100 * outside
    maps = alex.maps([image], [other], 1)
    corner = np.zeros((256, 256), bool)
    corner[:64, :64] = True
    everywhere = np.ones((256, 256), bool)
    np.testing.assert_allclose(lpips_from_maps(maps, everywhere), lpips_from_maps(maps), rtol=1e-12)
    assert lpips_from_maps(maps, corner) > lpips_from_maps(maps) > lpips_from_maps(maps, ~corner)
    with pytest.raises(ValueError, match="no pixel counts"):
        lpips_from_maps(maps, np.zeros((256, 256), bool))


def test_area_means_keep_the_mean_and_cut_pixels_in_parts() -> None:
    values = np.random.default_rng(0).random((7, 10))
    np.testing.assert_allclose(area_mean(values, 3, 4).mean(), values.mean())
    np.testing.assert_allclose(area_mean(values, 7, 10), values)
    np.testing.assert_allclose(area_mean(np.array([[0.0, 3.0, 6.0]]), 1, 2), [[1.0, 5.0]])


def test_what_cannot_be_used_is_named(alex: LpipsNetwork, tmp_path: Path) -> None:
    import torch

    with pytest.raises(ConfigError, match="download torchvision's alexnet-owt"):
        LpipsNetwork.from_files("alex", tmp_path)
    random_trunk("alex", tmp_path)
    with pytest.raises(ConfigError, match="do not fit"):
        LpipsNetwork.from_files("vgg", tmp_path / FILES["alex"])
    torch.save({"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)}, tmp_path / "heads.pth")
    with pytest.raises(ConfigError, match=r"lin0.model.1.weight should be of shape \(1, 64, 1, 1\)"):
        LpipsNetwork.from_files("alex", tmp_path, tmp_path / "heads.pth")
    torch.save({"lin0": Path("x")}, tmp_path / "trap.pth")
    with pytest.raises(ConfigError, match="cannot be read"):
        LpipsNetwork.from_files("alex", tmp_path, tmp_path / "trap.pth")
    (small,), (other,) = pairs(1, 16, 64)
    with pytest.raises(ValueError, match="31 pixels or more"):
        alex.maps([small], [other], 1)
    with pytest.raises(ValueError, match="one size"):
        alex.maps([small], [pairs(1)[0][0]], 1)


@pytest.mark.parametrize("net", MODELS)
def test_the_smallest_picture_is_seen_and_a_smaller_one_refused(net: str, tmp_path: Path) -> None:
    network = LpipsNetwork.from_files(net, random_trunk(net, tmp_path))  # type: ignore[arg-type]
    side = SMALLEST[net]
    assert network.distance(*pairs(1, side, side), 1)[0] > 0
    with pytest.raises(ValueError, match=f"{side} pixels or more"):
        network.distance(*pairs(1, side - 1, side), 1)
