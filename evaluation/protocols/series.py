"""Protocols of series of images."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

PROTOCOLS = (
    Protocol(
        name="earthnet2021",
        title="EarthNet2021: EarthNetScore of forecasts of Sentinel-2 series",
        task=Task.FORECAST,
        source="the package earthnet 0.3.11, earthnet/parallel_score.py (Requena-Mesa et al. 2021, arXiv 2104.10066)",
        components=({"use": "earthnet_score"},),
        headline=("ens", "mad", "ols", "emd", "ssim"),
        baselines=("oracle",),
        notes=(
            "Of up to ten candidates of a cube the best counts, with its own four scores.",
            "A truth with clouds, filled in by each pixel's mean where nothing was seen, does not reach 1: see the oracle's row.",
            "The package adds a random matrix of up to 1e-4 to its normal equations; here its mean is added, so numbers differ in the sixth digit.",
            "Where no plane of any cube is clear, ssim is null and ens is over the other three; the package prints an ens of 1.",
            "Structural similarity has a data range of 2, as scikit-image had for floats before 0.20; published numbers were made so.",
        ),
        lenient=True,
    ),
    Protocol(
        name="greenearthnet",
        title="GreenEarthNet: forecasts of NDVI over vegetation",
        task=Task.FORECAST,
        source="vitusbenson/greenearthnet@a032963 eval.py (Benson et al., arXiv 2303.16198)",
        components=({"use": "greenearthnet_score"},),
        headline=("nse", "R2", "rmse", "biasabs"),
        diagnostic=("nnse", "valid_rate"),
        only_named=False,
        baselines=("persistence", "climatology", "oracle"),
        notes=(
            "Pixels count that are vegetated, above 0 throughout, seen 10 times in the future and 3 times in the past, and vary by more than 0.1.",
            "A mean is over pixels of a land cover in a cube, then over cubes, then over land covers; nse is 2 - 1 / nnse of that mean.",
            "rmse/0_5 to rmse/15_20 are over five frames of the forecast each, which are 25 days of a forecast every five days.",
            "The original skips cubes without a forecast; here an invalid output has an nnse and an R2 of 0. A forecast without a number counts as 0.5 in both.",
            "Where a forecast is constant at a pixel, R2 is left out there; the original then prints what rounding leaves.",
        ),
        lenient=True,
    ),
    Protocol(
        name="ndvi-series",
        title="Vegetation forecasting: series of NDVI",
        task=Task.FORECAST,
        source="nnse as in GreenEarthNet (Benson et al., arXiv 2303.16198), over all observed pixels; see the card of index_series",
        components=({"use": "index_series"},),
        headline=("nnse", "mae", "rmse"),
        diagnostic=("bias", "valid_rate"),
        baselines=("persistence", "climatology", "oracle"),
        notes=(
            "Clouded pixels are left out of every number; frames are arrays in the unit of the index, NaN where clouded.",
            "nnse is averaged over pixels; GreenEarthNet's vegetation score is 2 - 1 / nnse over vegetated pixels alone.",
        ),
    ),
)
