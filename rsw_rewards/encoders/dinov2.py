"""DINOv2 through transformers, from a local folder or the hub: the encoder of the Frechet distance that Stein et al. recommend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.encoders.base import BuiltIn, loading
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""
KINDS = ("dinov2", "dinov2_with_registers")


class DinoV2Encoder(BuiltIn):
    """The class token of a DINOv2, after the last normalisation. (n, d) features, d = 384, 768, 1024 or 1536 for S, B, L, G.

    Images enter as in layer6ai-labs/dgm-eval@models/dinov2.py (Stein et al. 2023, arXiv 2306.04675): both sides to 224 by Pillow's
    antialiased bicubic filter, without a crop. Its published FD-DINOv2 are of ViT-L/14 without registers.
    """

    input_size = SIDE
    resize = f"to {SIDE} x {SIDE}, Pillow bicubic"

    def __init__(self, model: Any, device: str, name: str) -> None:
        super().__init__(model, device, name)
        self.network = str(model.config.model_type)
        self.dim = int(model.config.hidden_size)

    @classmethod
    def load(cls, place: str, device: str, name: str) -> DinoV2Encoder:
        """The model in a folder (``config.json`` and safetensors), or that of a name on the hub such as ``facebook/dinov2-large``.

        Raises:
            ConfigError: it is not there, is another kind of model, or cannot be loaded.
        """
        return cls(load_transformers(place, KINDS, name, "facebook/dinov2-large"), device, name)

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        import torch

        return torch.from_numpy(np.stack([squashed(image, SIDE, MEAN, STD) for image in images]))

    def features(self, pixels: Any) -> Any:
        return self.model(pixels).pooler_output


def squashed(
    image: np.ndarray, side: int, mean: Sequence[float], std: Sequence[float], resampling: str = "BICUBIC"
) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, side, side) float32: resized by a filter of Pillow, scaled to [0, 1], ``(x - mean) / std``."""
    from PIL import Image

    resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling[resampling]))
    scaled = (resized.astype(np.float32) / 255.0 - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def load_transformers(place: str, kinds: Sequence[str], name: str, example: str) -> Any:
    """A float32 model of the transformers library from safetensors; code that a repository brings along is never run.

    Raises:
        ConfigError: neither a folder with a model of these kinds nor a name on the hub.
    """
    need(f"the encoder {name!r}", "torch", "transformers")
    import torch
    from transformers import AutoConfig, AutoModel

    folder = Path(place).expanduser()
    local = folder.is_dir()
    if not local and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", place):
        raise ConfigError(
            f"the encoder {name!r} has no weights: put config.json and model.safetensors into {folder}, or name a model of the hub "
            f"such as {example}"
        )
    if local and not ((folder / "config.json").is_file() and list(folder.glob("*.safetensors"))):
        raise ConfigError(f"the encoder {name!r} has no weights: put config.json and model.safetensors into {folder}")
    source = str(folder) if local else place
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    with loading(name):
        config = AutoConfig.from_pretrained(source, **options)
        if config.model_type not in kinds:
            raise ConfigError(f"the encoder {name!r} is a {config.model_type} model, not one of {', '.join(kinds)}")
        return AutoModel.from_pretrained(source, config=config, use_safetensors=True, dtype=torch.float32, **options)
