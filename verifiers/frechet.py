"""Frechet distance between sets of features: streaming moments, three exact routes, and what each sample contributes to it.

Routes by the number of samples n and dimensions d: the Gram route needs an (n, n) eigenvalue problem and is for n <= d; above it
the symmetric (d, d) one is solved with a factor of the reference, which is computed once. Between two small sets the root's trace is a
nuclear norm. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rsw_rewards.extras import need

BLOCK = 1024
"""Rows whose offsets are held at once."""


def _checked(features: np.ndarray, least: int = 1) -> np.ndarray:
    """Features as (n, d) float64. Raises ``ValueError`` for another shape, fewer rows, or values that are not finite."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < least or not features.shape[1]:
        raise ValueError(f"features of shape (n, d) with n >= {least} are needed, not {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("the features hold values that are not finite")
    return features


@dataclass
class Moments:
    """Mean and covariance of features that are never held together: (d,) and (d, d) float64 sums about a fixed origin.

    A part of the set can be taken out again by subtraction.
    """

    dim: int
    count: int = 0
    origin: np.ndarray = field(default_factory=lambda: np.zeros(0))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    products: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray]) -> Moments:
        """Moments of (n_k, d) blocks, one after another. Raises ``ValueError`` where there is none, or they do not fit."""
        found: Moments | None = None
        for block in blocks:
            found = found or cls(np.shape(block)[-1])
            found.update(block)
        if found is None:
            raise ValueError("there are no features to take moments of")
        return found

    def update(self, features: np.ndarray) -> None:
        """Add (n, d) features. Raises ``ValueError`` for another dimension or values that are not finite."""
        features = _checked(features)
        if features.shape[1] != self.dim:
            raise ValueError(f"features of {features.shape[1]} dimensions among features of {self.dim}")
        if not self.count:
            # Any point among the data will do: sums about it do not cancel as sums about zero can.
            self.origin = features.mean(axis=0)
            self.total, self.products = np.zeros(self.dim), np.zeros((self.dim, self.dim))
        self.count += len(features)
        for start in range(0, len(features), BLOCK):
            offset = features[start : start + BLOCK] - self.origin
            self.total += offset.sum(axis=0)
            self.products += offset.T @ offset

    def without(self, part: Moments) -> Moments:
        """Moments of the set after a part of it, of one sample at least, was taken out."""
        rest = self.copy()
        shift = part.origin - self.origin
        rest.count -= part.count
        rest.total -= part.total + part.count * shift
        # Written in place: at 2048 dimensions every matrix is 32 MB.
        rest.products -= part.products
        outer = np.outer(part.total + 0.5 * part.count * shift, shift)
        rest.products -= outer
        rest.products -= outer.T
        return rest

    def copy(self) -> Moments:
        """Independent sums."""
        return Moments(self.dim, self.count, self.origin.copy(), self.total.copy(), self.products.copy())

    @property
    def mean(self) -> np.ndarray:
        """(d,) float64."""
        return self.origin + self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """(d, d) float64 sample covariance (n - 1). Raises ``ValueError`` below two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 samples, not {self.count}")
        covariance = np.outer(self.total, self.total / -self.count)
        covariance += self.products
        covariance /= self.count - 1
        return covariance


class Reference:
    """A fixed set, or a normal distribution, that others are held against; its root and factor are computed once, when first needed.

    Args:
        mean: (d,).
        covariance: (d, d), symmetric, positive semi-definite; it may be singular.
    """

    def __init__(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        self.covariance = np.atleast_2d(np.asarray(covariance, dtype=np.float64))
        if self.covariance.shape != (len(self.mean), len(self.mean)):
            raise ValueError(f"a mean of {len(self.mean)} and a covariance of shape {self.covariance.shape} do not fit")

    @classmethod
    def of(cls, features: np.ndarray) -> Reference:
        """The reference that (m, d) features make, m >= 2."""
        return cls.from_moments(Moments.of([_checked(features, 2)]))

    @classmethod
    def from_moments(cls, moments: Moments) -> Reference:
        """The reference of streamed moments."""
        return cls(moments.mean, moments.covariance)

    @cached_property
    def root(self) -> np.ndarray:
        """(d, d) symmetric square root of the covariance."""
        values, vectors = _eigh(self.covariance)
        return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

    @cached_property
    def factor(self) -> np.ndarray:
        """(d, d) lower triangular ``L`` with ``L L'`` the covariance, which may be singular; column-major, as LAPACK takes it."""
        values, vectors = _eigh(self.covariance)
        # Not by Cholesky's way, which stops at a singular matrix.
        vectors *= np.sqrt(np.maximum(values, 0.0))
        return np.asarray(np.linalg.qr(vectors.T, mode="r")).T


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    need("a Frechet distance", "torch")
    import torch

    values, vectors = torch.linalg.eigh(torch.from_numpy(np.ascontiguousarray(matrix)))
    return values.numpy(), vectors.numpy()


def _root_sum(matrices: np.ndarray) -> np.ndarray:
    """Sum of the roots of the eigenvalues of symmetric (..., k, k) matrices, of which the upper triangle is read.

    Rounding below zero counts as zero.
    """
    need("a Frechet distance", "torch")
    import torch

    values = torch.linalg.eigvalsh(torch.from_numpy(np.ascontiguousarray(matrices)), UPLO="U")
    return values.clamp(min=0.0).sqrt().sum(-1).numpy()


def _contrasts(rows: np.ndarray) -> np.ndarray:
    """n - 1 orthonormal contrasts of (..., n, d) rows: their products are those of the centred rows, without the null direction.

    A Householder reflection takes the mean's direction to the first axis, which is dropped. Centring leaves an eigenvalue of zero
    instead, and rounding at zero is what the root of an eigenvalue magnifies most.
    """
    n = rows.shape[-2]
    mirror = np.full(n, n**-0.5)
    mirror[0] -= 1.0
    mirror *= np.sqrt(2.0) / np.linalg.norm(mirror)
    return (rows - mirror[:, None] * (mirror @ rows)[..., None, :])[..., 1:, :]


def _distance(gap: np.ndarray, traces: float, cross: float) -> float:
    return max(0.0, float(gap @ gap) + traces - 2.0 * cross)


def frechet_to_reference(
    mean: np.ndarray, covariance: np.ndarray, reference: Reference, overwrite: bool = False
) -> float:
    """Squared Frechet (2-Wasserstein) distance of a normal distribution to a reference, never negative.

    ``|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))`` (Dowson and Landau 1982). The trace of the root comes from
    the eigenvalues of ``L' cov_a L`` with ``L L' = cov_b``, which is symmetric where ``cov_a cov_b`` is not: one triangular reduction, as
    ``L`` is kept, and one symmetric eigenvalue problem.

    Args:
        mean: (d,).
        covariance: (d, d), symmetric, positive semi-definite; it may be singular.
        reference: what it is held against.
        overwrite: lets the covariance's memory be used.
    """
    from scipy.linalg.lapack import dsygst

    traces = float(np.trace(covariance) + np.trace(reference.covariance))
    # A transpose is the same symmetric matrix, in the order that the next step takes without a copy.
    transposed = np.asarray(covariance, np.float64).T
    product, _ = dsygst(transposed, reference.factor, itype=2, lower=1, overwrite_a=overwrite)
    return _distance(np.asarray(mean) - reference.mean, traces, float(_root_sum(product.T)))


def frechet_of_moments(moments: Moments, reference: Reference) -> float:
    """:func:`frechet_to_reference` from streamed moments, which are used up. Raises ``ValueError`` below two samples."""
    mean, covariance = moments.mean, moments.covariance
    moments.products = np.zeros((0, 0))
    return frechet_to_reference(mean, covariance, reference, overwrite=True)


def frechet_of_features(features: np.ndarray, reference: Reference) -> float:
    """Frechet distance of a set of (n, d) features to a reference, by the Gram route for n <= d. Raises ``ValueError`` for n < 2."""
    features = _checked(features, 2)
    if len(features) > features.shape[1]:
        return frechet_of_moments(Moments.of([features]), reference)
    spread = _contrasts(features) / np.sqrt(len(features) - 1)
    gram = spread @ reference.covariance @ spread.T
    traces = float(np.square(spread).sum() + np.trace(reference.covariance))
    return _distance(features.mean(axis=0) - reference.mean, traces, float(_root_sum((gram + gram.T) / 2.0)))


def frechet_from_features(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two sets of features, with sample covariances (n - 1): the FID, exact for any number of images.

    Where both sets have at most d rows, the trace of the root is the nuclear norm of ``X Y'`` for the centred features X and Y,
    which loses no digits near zero; otherwise the larger set is the reference.

    Args:
        a, b: (n, d) and (m, d), any float type; at least 2 rows each.

    Raises:
        ValueError: fewer than 2 rows, different dimensions, or values that are not finite.
    """
    a, b = _checked(a, 2), _checked(b, 2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and of {b.shape[1]} dimensions have no distance")
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    if len(large) > a.shape[1]:
        return frechet_of_features(small, Reference.of(large))
    need("a Frechet distance", "torch")
    import torch

    x, y = (_contrasts(part) / np.sqrt(len(part) - 1) for part in (a, b))
    cross = float(torch.linalg.svdvals(torch.from_numpy(x @ y.T)).sum())
    return _distance(a.mean(axis=0) - b.mean(axis=0), float(np.square(x).sum() + np.square(y).sum()), cross)


STEP, REACH = 0.25, 24.0
"""Of the trapezoidal rule over log s in :func:`leave_one_out`: its error falls as ``exp(-pi^2 / STEP)``, what lies beyond as ``exp(-REACH)``."""


def leave_one_out(features: np.ndarray, reference: Reference) -> np.ndarray:
    """What every sample contributes to the distance of its set: the distance without it minus the distance with it.

    Positive: the set is better for the sample (the reward of LOO-FID). Leaving one sample out takes a rank-one part off the scatter
    matrix, so all n distances follow from one eigenvalue problem of size min(n, d): with eigenvalues ``t_j`` and the samples' shares
    ``u_ij^2`` in them, the sum of the roots falls by ``-1/pi int_0^inf log(1 - n/(n-1) sum_j u_ij^2 t_j / (t_j + s^2)) ds``. (The
    determinant of a rank-one change, under ``int_0^inf log(1 + t / s^2) ds = pi t^(1/2)``.)

    Args:
        features: (n, d), n >= 3.

    Returns:
        (n,) float64, exact up to rounding.
    """
    features = _checked(features, 3)
    n = len(features)
    mean = features.mean(axis=0)
    offset = features - mean
    scatter, share = _shares(offset, reference)
    share *= n / (n - 1.0)
    # What stays of a sample's directions in the limit s = 0: nothing where n <= d samples are independent.
    kept = 0.0 if len(scatter) == n - 1 else np.maximum(0.0, 1.0 - share.sum(axis=1, keepdims=True))
    squares = np.square(offset).sum(axis=1)
    fallen = np.zeros(n)
    if len(scatter):
        top, start = 0.5 * np.log(scatter[-1]), STEP / 2
        low = np.exp(top - np.arange(start, REACH, STEP))
        high = np.exp(top + np.arange(start, REACH, STEP))
        # 1 - sum u^2 t / (t + s^2), written so that nothing cancels where a sample is all that a direction has.
        left = kept + share @ (low**2 / (scatter[:, None] + low**2))
        fallen = np.log(np.clip(left, np.finfo(np.float64).tiny, 1.0)) @ low
        fallen += np.log1p(-np.minimum(share @ (scatter[:, None] / (scatter[:, None] + high**2)), 1.0)) @ high
        fallen *= STEP / np.pi
    whole = float(np.sqrt(scatter).sum())
    gap = mean - reference.mean
    # Without sample i the mean moves by -offset_i / (n - 1).
    moved = (squares / (n - 1.0) - 2.0 * (offset @ gap)) / (n - 1.0)
    spread = (squares.sum() - squares * (n / (n - 1.0))) / (n - 2.0) - squares.sum() / (n - 1.0)
    cross = (whole + fallen) / np.sqrt(n - 2.0) - whole / np.sqrt(n - 1.0)
    return moved + spread - 2.0 * cross


def _shares(offset: np.ndarray, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues over rounding, (k,), of the scatter of centred (n, d) samples in the reference's root, and (n, k) squared shares."""
    n, d = offset.shape
    if n <= d:
        values, vectors = _eigh(offset @ reference.covariance @ offset.T)
        values[0] = 0.0  # the mean's direction
    else:
        drawn = offset @ reference.factor
        values, vectors = _eigh(drawn.T @ drawn)
    there = values > max(n, d) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    values, vectors = values[there], vectors[:, there]
    return values, np.square(vectors) if n <= d else np.square(drawn @ vectors) / values


class Influence:
    """First-order influence of samples on the Frechet distance of a large set, from one eigenvalue decomposition.

    The derivative of the distance with respect to the weight of a sample x among n, whose set has mean m and covariance S:
    ``((x - m)' (I - M) (x - m) - tr((I - M) S) + 2 (m - mean_r)' (x - m)) / n`` with
    ``M = R (R S R)^(-1/2) R``, R the reference's root (derivative of the trace of the root: Bures metric, e.g. Bhatia, Jain and
    Lim 2019). Its negative is what leaving the sample out would add, to first order.

    Args:
        mean, covariance: moments of the set, history and batch together.
        count: its size.
        reference: what it is held against.
        floor: eigenvalues of ``R S R`` below this share of the largest are raised to it; directions that the set does not have
            would otherwise have an infinite derivative.
    """

    def __init__(
        self, mean: np.ndarray, covariance: np.ndarray, count: int, reference: Reference, floor: float = 1e-6
    ) -> None:
        root = reference.root
        product = root @ covariance @ root
        values, vectors = _eigh((product + product.T) / 2.0)
        values = np.maximum(values, floor * max(float(values[-1]), np.finfo(np.float64).tiny))
        half = root @ vectors * values**-0.25
        self._matrix = np.eye(len(mean)) - half @ half.T
        self._constant = float(np.einsum("ij,ij->", self._matrix, covariance))
        self._mean, self._slope, self._count = mean, 2.0 * (mean - reference.mean), count

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """What each of (n, d) features contributes, (n,) float64: positive where the set is better for it."""
        offset = _checked(features) - self._mean
        curved = np.einsum("ij,ij->i", offset @ self._matrix, offset)
        return -(curved - self._constant + offset @ self._slope) / self._count
