"""Fidelity and variety by nearest neighbours: improved precision and recall, density and coverage, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rsw_rewards.verifiers.kernel_distances import Rows, squared_distances

BLOCK = 2048
"""Rows and columns of a distance matrix that are held at once."""


def _blocks(features: Rows) -> Iterator[slice]:
    for start in range(0, len(features), BLOCK):
        yield slice(start, min(len(features), start + BLOCK))


def radii(features: Rows, k: int) -> np.ndarray:
    """Squared distance of each of (n, d) features to its k-th nearest other one, (n,) float64. Raises ``ValueError`` for n <= k."""
    if not 1 <= k < len(features):
        raise ValueError(f"the {k}-th neighbour among {len(features)} features does not exist")
    found = np.empty(len(features))
    for rows in _blocks(features):
        # k + 1 nearest so far: the feature itself, at distance 0, is among them.
        nearest = np.full((rows.stop - rows.start, k + 1), np.inf)
        for columns in _blocks(features):
            distances = squared_distances(features[rows], features[columns])
            nearest = np.partition(np.concatenate([nearest, distances], axis=1), k, axis=1)[:, : k + 1]
        found[rows] = nearest[:, k]
    return found


def precision_recall_density_coverage(real: Rows, made: Rows, k: int = 5) -> dict[str, float]:
    """How far two sets of features lie in each other's neighbourhoods.

    ``precision``: share of made samples within the k-th-neighbour ball of some real one; ``recall``: the reverse (Kynkaanniemi et
    al. 2019). ``density``: mean number of real balls that hold a made sample, over k, which may exceed 1; ``coverage``: share of
    real samples whose ball holds a made one (Naeem et al. 2020). Balls are closed.

    Args:
        real, made: (n, d) and (m, d), more than k rows each; memory-mapped arrays will do, they are read in blocks.
    """
    real_radii, made_radii = radii(real, k), radii(made, k)
    inside = np.zeros(len(made))
    recalled = np.zeros(len(real), dtype=bool)
    nearest = np.full(len(real), np.inf)
    for rows in _blocks(made):
        for columns in _blocks(real):
            distances = squared_distances(made[rows], real[columns])
            inside[rows] += (distances <= real_radii[columns]).sum(axis=1)
            recalled[columns] |= (distances <= made_radii[rows, None]).any(axis=0)
            nearest[columns] = np.minimum(nearest[columns], distances.min(axis=0))
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside.mean() / k),
        "coverage": float((nearest <= real_radii).mean()),
    }


def frechet_at_infinity(made: Rows, reference: object, points: int = 15, seed: int = 0) -> float:
    """Frechet distance extrapolated to infinitely many samples: FID-infinity of Chong and Forsyth 2020 (arXiv 1911.07023).

    The distance falls about linearly in 1/n; it is taken on ``points`` nested random subsets from a fifth of the set up, at least
    twice the number the fit needs, and the intercept of the least-squares line is given. It may be slightly negative.

    Args:
        made: (n, d), n >= 10; rows are read by index, in blocks, so that they need not be in memory.
        reference: a :class:`rsw_rewards.verifiers.frechet.Reference`.
    """
    from rsw_rewards.verifiers.frechet import Moments, Reference, frechet_of_features, frechet_of_moments

    assert isinstance(reference, Reference)
    if len(made) < 10:
        raise ValueError(f"an extrapolation needs 10 samples, not {len(made)}")
    order = np.random.default_rng(seed).permutation(len(made))
    sizes = np.unique(np.linspace(max(5, len(made) // 5), len(made), points).astype(int))
    distances, moments = [], Moments(made.shape[1])
    for size in sizes.tolist():
        if size <= made.shape[1]:
            distances.append(frechet_of_features(made[np.sort(order[:size])], reference))
            continue
        # The subsets are nested, so every sample is summed once.
        while moments.count < size:
            moments.update(made[np.sort(order[moments.count : min(size, moments.count + BLOCK)])])
        distances.append(frechet_of_moments(moments.copy(), reference))
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])
