"""Encoders: images (and texts) to feature vectors, behind one interface, by name, path or ``module:object``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rsw_rewards.errors import ConfigError


class Encoder(Protocol):
    """A frozen feature extractor."""

    name: str
    weights_sha256: str
    dim: int

    @property
    def id(self) -> str:
        """Name and the first digits of the weights' hash: what stored features are kept under."""
        ...

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """At most ``micro_batch`` (H, W, 3) uint8 images -> (n, d) float32; the forward pass is padded to ``micro_batch``."""
        ...

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """At most ``micro_batch`` texts -> (n, d) float32. Raises ``ConfigError`` for an encoder without a text tower."""
        ...


def load_encoder(name: str, device: str) -> Encoder:
    raise ConfigError(f"no encoder is named {name!r}")
