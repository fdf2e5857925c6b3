"""Fidelity and variety by nearest neighbours: improved precision and recall, density and coverage, in blocks of rows."""

from __future__ import annotations

import numpy as np

from rsw_rewards.verifiers.frechet import Moments, Reference, frechet_of_features, frechet_of_moments
from rsw_rewards.verifiers.kernel_distances import Features, Rows, squared_distances

BLOCK = 2048
"""Rows and columns of a distance matrix that are held at once."""


def radii(features: Rows, k: int) -> np.ndarray:
    """Squared distance of each of (n, d) features to its k-th nearest other one, (n,) float64. Raises ``ValueError`` for n <= k."""
    if not 1 <= k < features.count:
        raise ValueError(f"the {k}-th neighbour among {features.count} features does not exist")
    found = np.empty(features.count)
    for rows in features.blocks(BLOCK):
        # k + 1 nearest so far: the feature itself, at distance 0, is among them.
        nearest = np.full((rows.stop - rows.start, k + 1), np.inf)
        for columns in features.blocks(BLOCK):
            distances = squared_distances(features.read(rows), features.read(columns))
            nearest = np.partition(np.concatenate([nearest, distances], axis=1), k, axis=1)[:, : k + 1]
        found[rows] = nearest[:, k]
    return found


def precision_recall_density_coverage(real: Features, made: Features, k: int = 5) -> dict[str, float]:
    """How far two sets of features lie in each other's neighbourhoods.

    ``precision``: share of made samples within the k-th-neighbour ball of some real one; ``recall``: the reverse (Kynkaanniemi et
    al. 2019). ``density``: mean number of real balls that hold a made sample, over k, which may exceed 1; ``coverage``: share of
    real samples whose ball holds a made one (Naeem et al. 2020). Balls are closed.

    Args:
        real, made: (n, d) and (m, d), more than k rows each; they are read in blocks.
    """
    real, made = Rows.of(real), Rows.of(made)
    real_radii, made_radii = radii(real, k), radii(made, k)
    inside = np.zeros(made.count)
    recalled = np.zeros(real.count, dtype=bool)
    nearest = np.full(real.count, np.inf)
    for rows in made.blocks(BLOCK):
        for columns in real.blocks(BLOCK):
            distances = squared_distances(made.read(rows), real.read(columns))
            inside[rows] += (distances <= real_radii[columns]).sum(axis=1)
            recalled[columns] |= (distances <= made_radii[rows, None]).any(axis=0)
            nearest[columns] = np.minimum(nearest[columns], distances.min(axis=0))
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside.mean() / k),
        "coverage": float((nearest <= real_radii).mean()),
    }


def frechet_at_infinity(features: Features, reference: Reference, points: int = 15, seed: int = 0) -> float:
    """Frechet distance extrapolated to infinitely many samples: FID-infinity of Chong and Forsyth 2020 (arXiv 1911.07023).

    The distance falls about linearly in 1/n; it is taken on ``points`` nested random subsets from a fifth of the set up, at least
    twice the number the fit needs, and the intercept of the least-squares line is given. It may be slightly negative.

    Args:
        features: (n, d), n >= 10; they are read in blocks.
        reference: what they are held against.
    """
    made = Rows.of(features)
    if made.count < 10:
        raise ValueError(f"an extrapolation needs 10 samples, not {made.count}")
    order = np.random.default_rng(seed).permutation(made.count)
    sizes = np.unique(np.linspace(max(5, made.count // 5), made.count, points).astype(int))
    distances, moments = [], Moments(made.dim)
    for size in sizes.tolist():
        if size <= made.dim:
            distances.append(frechet_of_features(made.read(np.sort(order[:size])), reference))
            continue
        # The subsets are nested, so every sample is summed once.
        while moments.count < size:
            moments.update(made.read(np.sort(order[moments.count : min(size, moments.count + BLOCK)])))
        distances.append(frechet_of_moments(moments.copy(), reference))
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])
