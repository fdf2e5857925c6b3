"""Which generator seeds belong to which purpose, so that nothing is ever evaluated on what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_WIDTH = 1_000_000

SPLITS: Mapping[str, range] = MappingProxyType(
    {
        name: range(k * _WIDTH, (k + 1) * _WIDTH)
        for k, name in enumerate(("tokenizer", "supervised", "encoders", "rl", "dev", "test"))
    }
)


def split_seed(split: str, seed: int) -> int:
    """Generator seed of the ``seed``-th data set of a split.

    Args:
        split: a key of ``SPLITS``.
        seed: 0 or more, below the width of the split's range.

    Raises:
        ValueError: the split is unknown or the seed does not fit into its range.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown scene-world split {split!r}; choose one of {', '.join(SPLITS)}")
    seeds = SPLITS[split]
    if not 0 <= seed < len(seeds):
        raise ValueError(f"seed {seed} does not fit into split {split!r}: it must lie in [0, {len(seeds)})")
    return seeds[seed]
