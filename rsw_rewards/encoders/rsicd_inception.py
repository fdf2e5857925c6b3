"""The Inception-v3 that Txt2Img-MHN fine-tunes on the 30 scene classes of RSICD; the encoder of ``fid_rsicd``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.encoders.base import BuiltIn, load_exactly, read_state
from rsw_rewards.encoders.dinov2 import MEAN, STD, squashed
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

RSICD_INCEPTION = "rsicd-inception"
CLASSES = 30


def squash(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, side, side) float32: both sides resized by Pillow's bilinear filter, then ImageNet's normalisation."""
    return squashed(image, side, MEAN, STD, "BILINEAR")


class RsicdInception(BuiltIn):
    """torchvision's Inception-v3 with a head of 30 classes, up to its pooled features: (n, 2048).

    As in YonghaoXu/Txt2Img-MHN@is_fid_score/is_fid_score.py the picture enters at 256 x 256 under ImageNet's normalisation, and the
    network's own change of normalisation (``transform_input``), which was on while it was fine-tuned, is off.
    """

    dim = 2048
    input_size = 256
    resize = "both sides to 256, Pillow bilinear"

    @property
    def id(self) -> str:
        """The same weights under another path are the same encoder."""
        made_of = [self.weights_sha256, self.input_size, self.resize]
        return f"{RSICD_INCEPTION}@{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}"

    @classmethod
    def load(cls, place: str, device: str, name: str) -> RsicdInception:
        """The network in a state dictionary that ``pretrain_inception.py`` of Txt2Img-MHN, or torchvision's own format, wrote.

        Raises:
            ConfigError: the file is missing or does not fit.
        """
        if not place:
            raise ConfigError(
                f"the encoder {name!r} has no weights: fine-tune Inception-v3 on RSICD with is_fid_score/pretrain_inception.py of"
                f" Txt2Img-MHN, whose weights are not published, and name the file as {RSICD_INCEPTION}:<file>"
            )
        need(f"the encoder {name!r}", "torchvision")
        state = read_state(Path(place).expanduser(), f"the encoder {name!r}")
        from torch import nn
        from torchvision.models import inception_v3

        network: Any = inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=False, num_classes=CLASSES
        )
        state = {key: value for key, value in state.items() if not key.startswith("AuxLogits.")}
        load_exactly(network, state, f"an Inception-v3 of {CLASSES} classes")
        network.fc = nn.Identity()
        return cls(network, device, name)

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        import torch

        return torch.from_numpy(np.stack([squash(image, self.input_size) for image in images]))
