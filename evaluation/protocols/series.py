"""Protocols of series of images."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

PROTOCOLS = (
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
