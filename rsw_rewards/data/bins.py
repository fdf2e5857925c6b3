"""Percentage bins of the CDVQA answers: the one function that label makers and verifiers share."""

from __future__ import annotations

import math

RATIO_BINS: tuple[str, ...] = ("0", *(f"{10 * k}_to_{10 * (k + 1)}" for k in range(10)))


def ratio_bin(ratio: float) -> str:
    """Name of the CDVQA bin that holds an area ratio.

    Args:
        ratio: share of an area, in [0, 1] (not in percent).

    Returns:
        ``"0"`` for exactly 0. Otherwise the bin whose lower edge is included and whose upper edge is not
        (``0.10`` is ``10_to_20``); the lowest bin leaves 0 out and the highest one includes 1:
        ``(0, 0.1)``, ``[0.1, 0.2)``, ..., ``[0.9, 1.0]``.

    Raises:
        ValueError: the ratio is not a number or lies outside [0, 1].
    """
    if not math.isfinite(ratio) or not 0.0 <= ratio <= 1.0:
        raise ValueError(f"an area ratio must lie in [0, 1], got {ratio!r}")
    if ratio == 0.0:
        return RATIO_BINS[0]
    # A ratio such as 3/10 times ten may land a hair below the edge it stands for.
    tenth = math.floor(ratio * 10 + 1e-9)
    return RATIO_BINS[1 + min(tenth, 9)]
