"""LPIPS: how differently a network of image classification sees two images, place by place (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rsw_rewards.encoders.base import check_images, in_package, load_exactly, padded, read_state, repeatable, state_hash
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

if TYPE_CHECKING:
    import torch

Trunk = Literal["alex", "vgg", "squeeze"]

MODELS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
"""What torchvision calls the networks."""
TAPS: dict[str, tuple[int, ...]] = {
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
}
"""Layers of torchvision's ``features`` whose outputs are compared; richzhang/PerceptualSimilarity@pretrained_networks.py."""
FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""What torchvision calls its weights of ImageNet."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""By which pixels in [-1, 1] are brought to the trunk's training distribution."""
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Pixels on the shorter side below which the last layer has no output."""
EPSILON = 1e-10


class LpipsNetwork:
    """A trunk with LPIPS's linear heads, version 0.1, over pairs of images.

    Args:
        trunk: torchvision's ``features``.
        heads: (C,) non-negative weights of the channels of each tapped layer.
        net: ``alex`` (what published tables mean by LPIPS, unless they say otherwise), ``vgg`` or ``squeeze``.
        device: where it runs.
    """

    def __init__(self, trunk: torch.nn.Module, heads: Sequence[torch.Tensor], net: str, device: str) -> None:
        import torch

        self.net = net
        self.device = device
        self.trunk: Any = trunk.eval().requires_grad_(False).to(device)
        self.heads = [head.detach().float().to(device) for head in heads]
        self._shift = torch.tensor(SHIFT, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(SCALE, device=device).view(1, 3, 1, 1)
        state = {**trunk.state_dict(), **{f"head{place}": head for place, head in enumerate(self.heads)}}
        self.weights_sha256 = state_hash(state)

    @property
    def id(self) -> str:
        """Name and hash of the weights of trunk and heads."""
        return f"lpips-{self.net}@{self.weights_sha256[:12]}"

    @classmethod
    def from_files(cls, net: Trunk, backbone: Path, heads: Path | None = None, device: str = "cpu") -> LpipsNetwork:
        """From torchvision's weights of AlexNet, VGG-16 or SqueezeNet 1.1 and a file of linear heads.

        Args:
            net: which trunk.
            backbone: torchvision's state dictionary, or the folder that holds it under torchvision's name.
            heads: ``v0.1/<net>.pth`` of the lpips project; None: the one in the installed ``lpips`` package.
            device: where it runs.

        Raises:
            ConfigError: a file is missing, with what to put where, or does not fit.
        """
        path = Path(backbone).expanduser()
        path = path / FILES[net] if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(
                f"the ImageNet weights that LPIPS needs are missing; download torchvision's {FILES[net]} to {path}"
            )
        what = f"the LPIPS trunk {net!r}"
        trunk = _trunk(net)
        state = {
            key.removeprefix("features."): value
            for key, value in read_state(path, what).items()
            if not key.startswith("classifier.")
        }
        load_exactly(trunk, state, what)
        lines = read_state(_heads_file(net) if heads is None else Path(heads).expanduser(), f"LPIPS ({net})")
        widths = [_width(trunk, tap) for tap in TAPS[net]]
        chosen = [lines.get(f"lin{place}.model.1.weight") for place in range(len(widths))]
        weights: list[torch.Tensor] = []
        for place, (head, width) in enumerate(zip(chosen, widths, strict=True)):
            if head is None or tuple(head.shape) != (1, width, 1, 1):
                raise ConfigError(
                    f"the LPIPS heads do not fit {net!r}: lin{place}.model.1.weight should be of shape {(1, width, 1, 1)}; "
                    f"use v0.1/{net}.pth of the lpips project"
                )
            weights.append(head.flatten())
        return cls(trunk, weights, net, device)

    def maps(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray], micro_batch: int) -> list[np.ndarray]:
        """Difference maps of at most ``micro_batch`` pairs, one array per layer: (n, h, w) float32, 0 where nothing differs.

        A place of a map covers about H / h x W / w pixels of the images. The mean over a map, summed over layers, is LPIPS.

        Args:
            first: (H, W, 3) uint8 images of one size.
            second: as many of the same size.
            micro_batch: pairs per forward pass, always padded to this number, so that a pair's maps depend on nothing else.

        Raises:
            ValueError: images of different sizes, or smaller than the trunk can see.
        """
        import torch

        check_images([*first, *second])
        sizes = {image.shape[:2] for image in (*first, *second)}
        if len(sizes) != 1 or len(first) != len(second):
            raise ValueError(
                f"LPIPS compares images of one size pairwise, not {len(first)} and {len(second)} of {sorted(sizes)}"
            )
        if min(next(iter(sizes))) < SMALLEST[self.net]:
            raise ValueError(
                f"LPIPS ({self.net}) needs images of {SMALLEST[self.net]} pixels or more on a side, not {sizes}"
            )
        with repeatable(self.device):
            seen = [self._seen(torch.from_numpy(np.stack(list(images))), micro_batch) for images in (first, second)]
            return [
                (((one - other) ** 2) * head.view(1, -1, 1, 1)).sum(1)[: len(first)].float().cpu().numpy()
                for one, other, head in zip(*seen, self.heads, strict=True)
            ]

    def _seen(self, images: torch.Tensor, micro_batch: int) -> list[torch.Tensor]:
        """The tapped layers, each place scaled to unit length over its channels."""
        x = padded(images, micro_batch).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        x = (x - self._shift) / self._scale
        layers = []
        for place, layer in enumerate(self.trunk):
            x = layer(x)
            if place in TAPS[self.net]:
                layers.append(x / (x.pow(2).sum(1, keepdim=True).sqrt() + EPSILON))
        return layers

    def distance(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """LPIPS of at most ``micro_batch`` pairs: (n,) float64 in [0, inf), 0 for equal images; see :meth:`maps`."""
        return lpips_from_maps(self.maps(first, second, micro_batch))


def lpips_from_maps(maps: Sequence[np.ndarray], weight: np.ndarray | None = None) -> np.ndarray:
    """LPIPS of pairs from their difference maps: (n,) float64, the sum over layers of the (weighted) mean over places.

    Args:
        maps: (n, h, w) per layer, from :meth:`LpipsNetwork.maps`.
        weight: (H, W) bool or float: how much each pixel counts. A place counts by the share of its pixels that do. Its features see
            farther than those pixels, so what lies just outside still has some effect.

    Raises:
        ValueError: no pixel counts.
    """
    if weight is None:
        return np.sum([layer.astype(np.float64).mean((1, 2)) for layer in maps], axis=0)
    if not float(weight.sum()) > 0:
        raise ValueError("no pixel counts")
    total = np.zeros(len(maps[0]))
    for layer in maps:
        share = area_mean(weight.astype(np.float64), layer.shape[1], layer.shape[2])
        total += (layer.astype(np.float64) * share).sum((1, 2)) / share.sum()
    return total


def area_mean(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) -> (height, width): means over the cells of a regular grid; a pixel that a line of the grid cuts counts in parts."""
    return _cells(values.shape[0], height) @ values @ _cells(values.shape[1], width).T


def _cells(size: int, cells: int) -> np.ndarray:
    """(cells, size) float64 shares of each pixel in each cell, rows summing to 1."""
    edges = np.arange(cells + 1) * (size / cells)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)[None, :]
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0.0, None) / (size / cells)


def _trunk(net: str) -> Any:
    """torchvision's convolutional layers, without weights, up to the last that is tapped."""
    need("LPIPS", "torchvision")
    import torch
    import torchvision

    made = getattr(torchvision.models, MODELS[net])
    with torch.device("meta"):  # the classifier, nine tenths of the network, is never made
        layers = made(weights=None).features
    return layers[: TAPS[net][-1] + 1].to_empty(device="cpu")


def _width(trunk: Any, tap: int) -> int:
    """Channels of a tapped activation: those of the convolution before it, or of the two that a module of SqueezeNet ends with."""
    if hasattr(trunk[tap], "expand1x1"):
        return int(trunk[tap].expand1x1.out_channels + trunk[tap].expand3x3.out_channels)
    return int(trunk[tap - 1].out_channels)


def _heads_file(net: str) -> Path:
    """The heads in the installed lpips package, found without importing it. Raises :class:`ConfigError` where it is absent."""
    if file := in_package("lpips", f"weights/v0.1/{net}.pth"):
        return file
    raise ConfigError(
        f"LPIPS has no linear heads: pip install 'rsw_rewards[lpips]', or name v0.1/{net}.pth of the lpips project"
    )
