"""The Inception network of 2015, by clean-fid's file and resize rule: the only encoder of a number called ``fid``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.encoders.base import BuiltIn
from rsw_rewards.encoders.names import INCEPTION
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""The one file whose distances may be called ``fid``."""
INCEPTION_VARIABLE = "RSW_INCEPTION"
"""Environment variable that holds the path of :data:`INCEPTION_FILE` (or of its folder) where the name gives none."""
SIDE = 299


def clean_resize(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """clean-fid's resize: each channel as float32 by Pillow's antialiased bicubic filter, clipped, not rounded.

    (H, W, 3) uint8 -> (side, side, 3) float32 in [0, 255]. Parmar, Zhang and Zhu 2022.
    """
    from PIL import Image

    channels = [
        np.asarray(Image.fromarray(image[..., band].astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
        for band in range(3)
    ]
    return np.stack(channels, axis=-1).clip(0.0, 255.0).astype(np.float32)


class InceptionEncoder(BuiltIn):
    """The Inception network of 2015 as clean-fid uses it: the encoder of the published FID. (n, 2048) features."""

    dim = 2048
    input_size = SIDE
    resize = f"each channel to {SIDE} x {SIDE} as float32, Pillow bicubic, not rounded (clean-fid)"

    def __init__(self, network: Any, weights_sha256: str, device: str, name: str = INCEPTION) -> None:
        self.model = network
        self.weights_sha256 = weights_sha256
        self.device = device
        self.name = name

    @classmethod
    def load(cls, place: str, device: str, name: str) -> InceptionEncoder:
        """The file that a name or the environment variable gives. Raises :class:`ConfigError`."""
        return cls.from_file(place or os.environ.get(INCEPTION_VARIABLE, ""), device, name)

    @classmethod
    def from_file(cls, path: str, device: str, name: str = INCEPTION) -> InceptionEncoder:
        """Load the TorchScript file. Raises :class:`ConfigError` when it is not there or is another file."""
        need(f"the encoder {name!r}", "torch")
        import torch

        file = Path(path).expanduser() if path else Path(INCEPTION_FILE)
        file = file / INCEPTION_FILE if file.is_dir() else file
        if not file.is_file():
            raise ConfigError(
                f"the encoder {INCEPTION!r} has no weights at {file}: fetch {INCEPTION_FILE} (the TorchScript file that clean-fid "
                f"downloads) and name it as {INCEPTION}:<path> or in the environment variable {INCEPTION_VARIABLE}"
            )
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != INCEPTION_SHA256:
            raise ConfigError(
                f"{file} is not the {INCEPTION_FILE} that published FIDs use: its SHA-256 is {digest[:12]}..., "
                f"not {INCEPTION_SHA256[:12]}...; fetch it again, or name your own network as an encoder pkg.mod:object"
            )
        network = torch.jit.load(str(file), map_location=device).eval()
        return cls(network.layers, digest, device, name)

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        import torch

        return torch.from_numpy(np.stack([clean_resize(image) for image in images])).permute(0, 3, 1, 2)

    def features(self, pixels: Any) -> Any:
        """(n, d) of pixels in [0, 255], which enter as ``(x - 128) / 128`` at 299 x 299."""
        import torch

        with torch.jit.optimized_execution(False):
            return self.model.forward((pixels - 128.0) / 128.0).reshape(len(pixels), self.dim)
