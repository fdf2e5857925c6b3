"""Functions that compare predictions with the truth: arrays and strings in, numbers out. They are what the verifiers compute with.

Every function takes the prediction first and the truth second. Images are arrays (H, W) or (H, W, C) of uint8, masks (H, W) of bool,
class maps (H, W) of whole numbers, features (n, d) of floats, captions texts. A number that the truth leaves undefined is None, never NaN.
Arguments of another kind raise :class:`rsw_rewards.InputError`. Functions that need an extra of the package say so.
"""

from __future__ import annotations

from rsw_rewards.metrics.boxes_and_numbers import average_precision, box_iou, mean_absolute_error, relative_accuracy
from rsw_rewards.metrics.captions import bleu, cider, meteor, rouge_l
from rsw_rewards.metrics.features import cmmd, frechet_distance, kernel_distance
from rsw_rewards.metrics.images import gain_over_copy, l1, ms_ssim, mse, psnr, ssim
from rsw_rewards.metrics.maps import confusion_matrix, f1, fscd, iou, kappa, miou, sek

__all__ = [
    "average_precision", "bleu", "box_iou", "cider", "cmmd", "confusion_matrix", "f1", "frechet_distance", "fscd", "gain_over_copy",
    "iou", "kappa", "kernel_distance", "l1", "mean_absolute_error", "meteor", "miou", "ms_ssim", "mse", "psnr", "relative_accuracy",
    "rouge_l", "sek", "ssim",
]  # fmt: skip
