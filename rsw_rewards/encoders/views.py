"""An encoder that looks at an image several times, turned, moved and softened: what a small perturbation gains in one look it loses in others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsw_rewards.encoders.base import Encoder, check_images

MOST_VIEWS = 16
_SHIFTS = ((0, 0), (2, -1), (-1, 2), (-2, -2), (1, 1), (-1, -1), (2, 2), (-2, 1))
"""Rows and columns by which a view is moved; its border is repeated."""
_SOFTNESS = (0.0, 0.7, 1.0, 1.4)
"""Standard deviation of the Gaussian blur of a view, in pixels."""


class SeenInViews:
    """An encoder whose feature of an image is the mean unit feature of ``views`` views of it. Texts are read as before.

    View k is one of the eight ways to turn or mirror an image seen from above, moved by up to two pixels and blurred by up to 1.4. The
    views are the same for every image, so that a feature depends on the image alone.
    """

    def __init__(self, inner: Encoder, name: str, views: int) -> None:
        self.inner, self.name, self.views = inner, name, views
        self.dim, self.weights_sha256 = inner.dim, inner.weights_sha256
        self.input_size = getattr(inner, "input_size", None)
        self.resize = f"{getattr(inner, 'resize', 'as its author does')}, {views} views"
        if hasattr(inner, "truncates"):
            self.truncates = inner.truncates

    @property
    def id(self) -> str:
        """That of the encoder, and the number of views."""
        return f"{self.inner.id}+views{self.views}"

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """See :class:`rsw_rewards.encoders.Encoder`."""
        check_images(images)
        total = np.zeros((len(images), self.dim))
        for number in range(self.views):
            seen = self.inner.encode_images([view(image, number) for image in images], micro_batch).astype(np.float64)
            total += seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)
        return (total / self.views).astype(np.float32)

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """See :class:`rsw_rewards.encoders.Encoder`."""
        return self.inner.encode_texts(texts, micro_batch)


def view(image: np.ndarray, number: int) -> np.ndarray:
    """View ``number`` of an (H, W, 3) uint8 image, uint8; turned by a quarter it is (W, H, 3).

    >>> view(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 0)[0, 0].tolist()
    [0, 1, 2]
    """
    from scipy.ndimage import gaussian_filter

    seen = image.swapaxes(0, 1) if number & 4 else image
    seen = seen[:: -1 if number & 1 else 1, :: -1 if number & 2 else 1]
    rows, columns = _SHIFTS[number % len(_SHIFTS)]
    seen = seen[_moved(seen.shape[0], rows)][:, _moved(seen.shape[1], columns)]
    softness = _SOFTNESS[(number + number // 8) % len(_SOFTNESS)]
    if softness:
        seen = np.rint(gaussian_filter(seen.astype(np.float64), (softness, softness, 0), mode="nearest"))
    return np.ascontiguousarray(seen, np.uint8)


def view_tensor(pixels: Any, number: int) -> Any:
    """:func:`view` of an (n, 3, H, W) tensor, through which gradients flow; values are not rounded."""
    import torch

    seen = pixels.transpose(2, 3) if number & 4 else pixels
    seen = seen.flip([axis for axis, bit in ((2, 1), (3, 2)) if number & bit])
    rows, columns = _SHIFTS[number % len(_SHIFTS)]
    seen = seen[:, :, _moved(seen.shape[2], rows)][:, :, :, _moved(seen.shape[3], columns)]
    softness = _SOFTNESS[(number + number // 8) % len(_SOFTNESS)]
    if not softness:
        return seen
    reach = int(4 * softness + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=seen.dtype, device=seen.device) / softness) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    seen = torch.nn.functional.pad(seen, [reach] * 4, mode="replicate")
    seen = torch.nn.functional.conv2d(seen, kernel[..., None], groups=3)
    return torch.nn.functional.conv2d(seen, kernel[:, :, None], groups=3)


def _moved(side: int, by: int) -> np.ndarray:
    return np.clip(np.arange(side) + by, 0, side - 1)
