"""Kernel distances between sets of features (KID, CMMD) and the witness that says which sample moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

BLOCK = 2048
"""Rows and columns of a kernel matrix that are held at once, however large the sets are."""

CMMD_BANDWIDTH = 10.0

Estimator = Literal["unbiased", "biased", "u-statistic"]
"""Whether the diagonals count: not within the sets, everywhere, or (for sets of one size) nowhere."""


Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rows:
    """(n, d) features that are read block by block, from wherever they lie."""

    count: int
    dim: int
    read: Callable[[slice | np.ndarray], np.ndarray]
    """A slice or (k,) places -> (k, d), any float type."""

    @classmethod
    def of(cls, features: Features) -> Rows:
        """The rows of an array, which may be memory-mapped."""
        return features if isinstance(features, Rows) else cls(len(features), features.shape[1], features.__getitem__)

    def blocks(self, size: int) -> Iterator[slice]:
        """Slices of up to ``size`` rows, in order."""
        for start in range(0, self.count, size):
            yield slice(start, min(self.count, start + size))

    @property
    def whole(self) -> np.ndarray:
        """All rows at once."""
        return self.read(slice(None))


Features = np.ndarray | Rows


def polynomial_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(x . y / d + 1)^3`` of (n, d) and (m, d): (n, m) float64, the kernel of KID (Binkowski et al. 2018)."""
    return (np.asarray(a, np.float64) @ np.asarray(b, np.float64).T / a.shape[1] + 1.0) ** 3


def rbf_kernel(a: np.ndarray, b: np.ndarray, bandwidth: float) -> np.ndarray:
    """``exp(-|x - y|^2 / (2 bandwidth^2))`` of (n, d) and (m, d): (n, m) float64."""
    return np.exp(squared_distances(a, b) / (-2.0 * bandwidth * bandwidth))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of (n, d) and (m, d): (n, m) float64, never negative."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    found = np.square(a).sum(1)[:, None] - 2.0 * (a @ b.T) + np.square(b).sum(1)
    return np.maximum(found, 0.0, out=found)


@dataclass(frozen=True, slots=True)
class KernelSums:
    """Sums of kernel values between parts of two sets, from which the MMD of any union of parts follows at once."""

    within_a: np.ndarray
    """(parts, parts) float64."""
    within_b: np.ndarray
    between: np.ndarray
    diagonals: np.ndarray
    """(3, parts) float64: of the three matrices; that of ``between`` where the sets have one size."""
    counts: np.ndarray
    """(2, parts) int64: members of the two sets in every part."""

    def mmd(self, keep: np.ndarray | None = None, estimator: Estimator = "unbiased") -> float:
        """Squared MMD of the parts in the (parts,) bool ``keep``, all by default. NaN for fewer than two members."""
        keep = np.ones(self.counts.shape[1], bool) if keep is None else keep
        n, m = (int(count) for count in self.counts[:, keep].sum(axis=1))
        if min(n, m) < 2:
            return float("nan")
        if estimator == "u-statistic" and n != m:
            raise ValueError(f"the u-statistic needs sets of one size, not {n} and {m}")
        a, b, ab = (sums[np.ix_(keep, keep)].sum() for sums in (self.within_a, self.within_b, self.between))
        if estimator == "biased":
            return float(a / n**2 + b / m**2 - 2.0 * ab / (n * m))
        own_a, own_b, own_ab = self.diagonals[:, keep].sum(axis=1)
        cross = 2.0 * (ab - own_ab) / (n * (n - 1)) if estimator == "u-statistic" else 2.0 * ab / (n * m)
        return float((a - own_a) / (n * (n - 1)) + (b - own_b) / (m * (m - 1)) - cross)


def kernel_sums(
    a: Features,
    b: Features,
    kernel: Kernel,
    part_a: np.ndarray | None = None,
    part_b: np.ndarray | None = None,
    count: int = 1,
) -> KernelSums:
    """Sums of a kernel over two sets, block by block.

    Args:
        a, b: (n, d) and (m, d), any float type.
        kernel: (n, d), (m, d) -> (n, m).
        part_a, part_b: (n,) and (m,) part numbers from 0; all in one part by default.
        count: number of parts.
    """
    sets = Rows.of(a), Rows.of(b)
    parts = [
        np.zeros(one.count, np.int64) if part is None else part
        for one, part in zip(sets, (part_a, part_b), strict=True)
    ]
    sums, diagonals = np.zeros((3, count, count)), np.zeros((3, count))
    for place, (first, second) in enumerate(((0, 0), (1, 1), (0, 1))):
        left, right = sets[first], sets[second]
        for rows in left.blocks(BLOCK):
            for columns in right.blocks(BLOCK):
                values = kernel(left.read(rows), right.read(columns))
                by_column = np.stack([np.bincount(parts[second][columns], row, count) for row in values])
                np.add.at(sums[place], parts[first][rows], by_column)
                if rows == columns and (place < 2 or left.count == right.count):
                    np.add.at(diagonals[place], parts[first][rows], np.diagonal(values))
    counts = np.stack([np.bincount(numbers, None, count) for numbers in parts])
    return KernelSums(sums[0], sums[1], sums[2], diagonals, counts)


def polynomial_mmd(a: np.ndarray, b: np.ndarray, estimator: Estimator = "unbiased") -> float:
    """Squared MMD of whole sets under KID's cubic kernel; the unbiased estimator has no need of subsets."""
    return kernel_sums(*_pair(a, b), polynomial_kernel).mmd(None, estimator)


def cmmd(a: np.ndarray, b: np.ndarray) -> float:
    """CLIP maximum mean discrepancy, times 1000: Jayasumana et al. 2024 (arXiv 2401.09603).

    Features are brought to unit length and the RBF kernel has the bandwidth 10. The estimator is the one of the authors' code
    (google-research/cmmd, distance.mmd), which leaves the diagonal in and is slightly biased upwards. On unit vectors the kernel
    is nearly linear, so as a reward it says little more than the mean: it is a benchmark number only.
    """
    return 1000.0 * kernel_sums(*_pair(a, b), unit_rbf_kernel).mmd(None, "biased")


def unit_rbf_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """:func:`rbf_kernel` of features brought to unit length, as CMMD has it: (n, m) float64."""
    return rbf_kernel(_unit(a), _unit(b), CMMD_BANDWIDTH)


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(np.finfo(np.float64).tiny)


def median_bandwidth(features: np.ndarray, most: int = 2000, seed: int = 0) -> float:
    """Median distance between different (n, d) features, of at most ``most`` of them: the bandwidth of the median heuristic.

    Equal features do not count. Positive; 1 where all are equal.
    """
    features = np.asarray(features, np.float64)
    if len(features) > most:
        features = features[np.random.default_rng(seed).choice(len(features), most, replace=False)]
    distances = squared_distances(features, features)[np.triu_indices(len(features), 1)]
    # Distances of equal features are rounding, which may lie above zero.
    rounding = 4 * np.finfo(np.float64).eps * max(features.shape[1], 64) * np.square(features).sum(1).max(initial=0.0)
    positive = distances[distances > rounding]
    return float(np.sqrt(np.median(positive))) if len(positive) else 1.0


def witness(features: np.ndarray, references: np.ndarray, bandwidth: float) -> np.ndarray:
    """What every sample contributes to lowering the RBF-MMD to the references: mean kernel to them minus mean kernel to its kin.

    ``r_i = mean_j k(x_i, R_j) - mean_{j != i} k(x_i, x_j)``, up to a factor of 2 the derivative of -MMD^2 with respect to the
    weight of sample i (Gretton et al. 2012, the witness function). The second term is what makes repeating oneself costly.

    Args:
        features: (n, d), n >= 2.
        references: (m, d).
        bandwidth: of the kernel, fixed on the references.

    Returns:
        (n,) float64 in (-1, 1).
    """
    features, references = _pair(features, references)
    n = len(features)
    toward, own = np.zeros(n), np.zeros(n)
    for columns in Rows.of(references).blocks(BLOCK):
        toward += rbf_kernel(features, references[columns], bandwidth).sum(1)
    for columns in Rows.of(features).blocks(BLOCK):
        own += rbf_kernel(features, features[columns], bandwidth).sum(1)
    return toward / len(references) - (own - 1.0) / (n - 1)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features of shape (n, d) and (m, d) with n, m >= 2 are needed, not {a.shape} and {b.shape}")
    return a, b
