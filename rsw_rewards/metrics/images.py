"""Numbers of two images."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsw_rewards.core.image_values import as_array
from rsw_rewards.metrics.checked import public
from rsw_rewards.verifiers import paired, structure

Images = Any
"""An array (H, W) or (H, W, C) of uint8, or what numpy makes one of (a PIL image)."""


def _images(*images: Images) -> list[np.ndarray]:
    """Images as (H, W, C) uint8 of one shape. Raises ``ValueError``."""
    arrays = [as_array(image) for image in images]
    for array in arrays:
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise ValueError(
                f"an image is an array (H, W) or (H, W, C) of uint8 in 0..255, not {array.shape} of {array.dtype}"
            )
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"the images have the shapes {' and '.join(str(array.shape) for array in arrays)}")
    return [array[..., None] if array.ndim == 2 else array for array in arrays]


@public
def ssim(predicted: Images, truth: Images) -> float:
    """Structural similarity of two images, in [-1, 1]; 1 for equal images.

    Wang et al. 2004: a Gaussian window of 11 x 11 pixels, averaged over channels and over pixels whose window lies inside the image.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape, at least 11 x 11 pixels.

    >>> image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> rsw.metrics.ssim(image, image)
    1.0
    >>> round(rsw.metrics.ssim(255 - image, image), 3)
    -0.826
    """
    first, second = _images(predicted, truth)
    inner = structure.interior(first.shape[:2])
    if not inner.any():
        raise ValueError(f"the window of 11 x 11 pixels does not fit into an image of {first.shape[:2]}")
    return float(structure.ssim_map(first, second)[inner].mean())


@public
def ms_ssim(predicted: Images, truth: Images, scales: int = 5) -> float:
    """Structural similarity of two images over several scales, in [0, 1]; 1 for equal images.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape; at least 11 x 11 pixels are needed at the coarsest scale.
        scales: 1 to 5; every further one halves the images.

    >>> image = np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
    >>> rsw.metrics.ms_ssim(image, image, scales=2)
    1.0
    """
    first, second = _images(predicted, truth)
    if not 1 <= scales <= len(structure.SCALE_WEIGHTS):
        raise ValueError(f"scales must be 1 to {len(structure.SCALE_WEIGHTS)}, not {scales}")
    shares = structure.scale_weights(np.ones(first.shape[:2], bool), scales, inner=True)
    if not all(share.any() for share in shares):
        raise ValueError(f"images of {first.shape[:2]} are too small for {scales} scales")
    return structure.ms_ssim(first, second, shares)


def _error(distance: paired.Distance, *images: Images) -> float:
    first, second = _images(*images)
    return float(paired.error_map(first, second, distance).mean())


@public
def mse(predicted: Images, truth: Images) -> float:
    """Mean squared error of two images, with pixels in [0, 1]: 0 for equal images, 1 for black against white.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape.

    >>> rsw.metrics.mse(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    1.0
    """
    return _error("mse", predicted, truth)


@public
def l1(predicted: Images, truth: Images) -> float:
    """Mean absolute error of two images, with pixels in [0, 1]: 0 for equal images, 1 for black against white.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape.

    >>> rsw.metrics.l1(np.full((2, 2), 51, np.uint8), np.zeros((2, 2), np.uint8))
    0.2
    """
    return _error("l1", predicted, truth)


@public
def psnr(predicted: Images, truth: Images) -> float:
    """Peak signal-to-noise ratio of two images in dB; 100 for equal images.

    Args:
        predicted, truth: (H, W) or (H, W, C) uint8 of one shape.

    >>> rsw.metrics.psnr(np.full((2, 2), 51, np.uint8), np.zeros((2, 2), np.uint8))
    13.979400086720375
    """
    return paired.psnr(_error("mse", predicted, truth))


@public
def gain_over_copy(predicted: Images, truth: Images, before: Images) -> float:
    """How much smaller the squared error of a forecast is than that of repeating the input: 1 is perfect, 0 as good as the copy.

    ``1 - mse(predicted, truth) / max(mse(before, truth), 0.003)``; worse forecasts are negative, without a limit.

    Args:
        predicted, truth, before: (H, W) or (H, W, C) uint8 of one shape; ``before`` is the image that the forecast starts from.

    >>> before, after = np.zeros((4, 4), np.uint8), np.full((4, 4), 100, np.uint8)
    >>> rsw.metrics.gain_over_copy(after, after, before), rsw.metrics.gain_over_copy(before, after, before)
    (1.0, 0.0)
    """
    copied = _error("mse", before, truth)
    return paired.gain_over_copy(_error("mse", predicted, truth), copied, paired.MIN_CHANGE["mse"])
