"""The change detector that comes with the package: a small network trained on the scene world."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.assets import ASSETS
from rsw_rewards.detectors.base import MICRO_BATCH
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

if TYPE_CHECKING:
    import torch

SCENE_DETECTOR = "scene-detector"
SCENE_DETECTOR_FOLDER = ASSETS / "detector"


def build_network(width: int = 24) -> torch.nn.Module:
    """The network of the shipped detector, about 0.06 M parameters at the default width.

    One encoder sees both dates at three scales; what differs between its features is decoded to one logit per pixel.
    Features are normalised per picture, so that a change of light over the whole scene is not a change.

    Returns:
        A module: (n, 3, h, w) before and after, float32 in [0, 1], sides multiples of 4 -> (n, h, w) logits.
    """
    import torch
    from torch import Tensor, nn

    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
        )

    class SiameseDetector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine = block(3, width)
            self.middle = block(width, width)
            self.coarse = block(width, width)
            self.join_middle = block(2 * width, width)
            self.join_fine = block(2 * width, width)
            self.head = nn.Conv2d(width, 1, 1)

        def scales(self, x: Tensor) -> list[Tensor]:
            fine = self.fine(2 * x - 1)
            middle = self.middle(nn.functional.avg_pool2d(fine, 2))
            return [fine, middle, self.coarse(nn.functional.avg_pool2d(middle, 2))]

        def forward(self, before: Tensor, after: Tensor) -> Tensor:
            return self.compared(self.scales(before), self.scales(after))

        def compared(self, before: list[Tensor], after: list[Tensor]) -> Tensor:
            fine, middle, coarse = ((a - b).abs() for a, b in zip(before, after, strict=True))
            x = self.join_middle(torch.cat([nn.functional.interpolate(coarse, scale_factor=2), middle], 1))
            x = self.join_fine(torch.cat([nn.functional.interpolate(x, scale_factor=2), fine], 1))
            return self.head(x)[:, 0]

    return SiameseDetector()


class SceneDetector:
    """A detector of this project's own network, from a folder with ``config.json`` and ``model.safetensors``."""

    def __init__(self, folder: Path, device: str, name: str) -> None:
        from rsw_rewards.encoders.base import load_exactly, read_state

        need(f"the detector {name!r}", "torch")
        config, weights = folder / "config.json", folder / "model.safetensors"
        if not config.is_file() or not weights.is_file():
            raise ConfigError(f"{folder} holds no change detector; it needs config.json and model.safetensors")
        self.name = name
        self.device = device
        self.weights_sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        try:
            self.network = build_network(**json.loads(config.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{config} does not describe a network of this kind: {error}") from None
        load_exactly(self.network, read_state(weights, f"the change detector {name!r}"), f"the network of {config}")
        self.network.to(device).eval().requires_grad_(False)

    def predict(
        self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """See :class:`rsw_rewards.detectors.Detector`; uint8 only. Runs in padded micro-batches of one size."""
        import torch

        if before.shape != after.shape or before.ndim != 4 or before.shape[-1] != 3:
            raise ValueError(f"two arrays of shape (n, h, w, 3) are needed, got {before.shape} and {after.shape}")
        if before.dtype != np.uint8 or after.dtype != np.uint8:
            raise ValueError(f"the detector {self.name!r} reads uint8 pictures, not {before.dtype} and {after.dtype}")
        if before.shape[1] % 4 or before.shape[2] % 4:
            raise ValueError(f"sides must be multiples of 4, got {before.shape[2]} x {before.shape[1]} pixels")
        out = np.empty(before.shape[:3], np.float32)
        with torch.inference_mode():
            for start in range(0, len(before), MICRO_BATCH):
                n = min(MICRO_BATCH, len(before) - start)
                pair = [self._batch(x[start : start + n]) for x in (before, after)]
                out[start : start + n] = self.network(*pair)[:n].sigmoid().cpu().numpy()
        return out

    def _batch(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        full = np.zeros((MICRO_BATCH, *pictures.shape[1:]), np.uint8)
        full[: len(pictures)] = pictures
        return torch.from_numpy(full).to(self.device).permute(0, 3, 1, 2).float() / 255
