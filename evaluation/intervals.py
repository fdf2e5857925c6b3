"""Jackknife intervals, sign-flip tests and Holm's correction: pure functions over numbers that were recomputed without some evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from rsw_rewards.core.metric import Bounds

LEVEL = 0.95
FEWEST_FREEDOM = 4.0
"""Degrees of freedom below which the kurtosis of a few replicates is noise; a lower count only widens intervals without end."""
DOUBTED = 2.0
"""Mistakes, or right answers where those are fewer, that count for scenes being alike inside; chosen for the coverage in ``docs/statistics.md``."""
EXACT_SCENES = 12
"""Up to here all 2^n sign flips are tried; above, random ones."""
FIRST_FLIPS, ALL_FLIPS = 999, 9999
"""Random sign flips: the first ones, and how many there are in all where the first leave a p-value below :data:`WORTH_MORE`."""
WORTH_MORE = 0.1
_SEED = 20_260_101

Interval = tuple[float, float]


def deal(n: int, most: int) -> np.ndarray:
    """Deal ``n`` scenes into at most ``most`` parts of almost equal size.

    Returns:
        (n,) int64 part of each scene; each scene is a part of its own where ``n <= most``.
    """
    return np.arange(n) if n <= most else np.random.default_rng(_SEED).permutation(n) % most


def spread(replicates: np.ndarray) -> tuple[float, float]:
    """Standard error of a number, and its degrees of freedom, from its values without each part.

    The error is the (delete-a-group) jackknife's (Efron and Tibshirani 1993, chapter 11). Its degrees of freedom are those of
    the scaled chi-square that has the variance which the error's square shows: ``2 n / (kurtosis - 1)``, at most ``n - 1``
    (Satterthwaite's matching, for per-cluster terms as in Pan and Wall 2002, Statistics in Medicine 21, 1429). A few scenes
    with most of the pixels or questions raise the kurtosis, and so widen the interval as they should.

    Args:
        replicates: (parts,) float64, two or more, none NaN.
    """
    n = len(replicates)
    terms = replicates - replicates.mean()
    squares = float((terms**2).sum())
    error = math.sqrt((n - 1) / n * squares)
    if error <= 1e-10 * max(1.0, float(np.abs(replicates).max())):  # what rounding leaves of equal numbers
        return 0.0, n - 1.0
    kurtosis = n * float((terms**4).sum()) / squares**2
    freedom = 2 * n / (kurtosis - 1) if kurtosis > 1 else math.inf
    return error, min(n - 1.0, max(FEWEST_FREEDOM, freedom))


def student_interval(value: float, error: float, freedom: float, bounds: Bounds | None = None) -> Interval:
    """Student's t interval, on a logarithmic scale where the number has one bound.

    A number with one bound is taken to the logarithm of its distance from it (the error by the delta method), and the ends are taken
    back. This makes room on the side where there is some (DiCiccio and Efron 1996, Statistical Science 11, section 3, on why the
    scale matters). No interval leaves the range. For numbers with two bounds see :func:`score_interval`.

    Args:
        value: the number.
        error: its standard error, above 0.
        freedom: degrees of freedom.
        bounds: the range of the number; between two bounds, and on a bound, the plain interval is cut to it.
    """
    half = _student(freedom) * error
    low, high = bounds or (-math.inf, math.inf)
    if math.isinf(high) and low < value < math.inf and math.isfinite(low):
        factor = _exp(half / (value - low))
        return low + (value - low) / factor, low + (value - low) * factor
    if math.isinf(low) and -math.inf < value < high and math.isfinite(high):
        factor = _exp(half / (high - value))
        return high - (high - value) * factor, high - (high - value) / factor
    return max(low, value - half), min(high, value + half)


def score_interval(value: float, replicates: np.ndarray, n: float, bounds: Bounds) -> Interval:
    """The score interval of a number with two bounds: for right answers of independent scenes that of Wilson (1927, Journal of the
    American Statistical Association 22, 209).

    Its ends are the numbers ``p`` that lie ``t sqrt(p (1 - p) / m)`` from the one that was found, all scaled to [0, 1]. ``m`` is how many
    independent right or wrong answers would have the jackknife's error (Kish's effective size); where it exceeds the number of scenes,
    it is drawn to that number by as much as :data:`DOUBTED` mistakes count, since a few mistakes do not show how scenes differ. ``t`` is
    Student's, with degrees of freedom from the variance of the logarithm of ``m`` (by its influence function, as in :func:`spread`). It is
    the normal quantile for independent answers, whose error is known from ``p`` alone.

    Args:
        value: the number.
        replicates: (parts,) float64, the number without each part of the scenes, two or more.
        n: scenes that it rests on; used where all parts agree exactly, and for how many scenes a part holds.
        bounds: both finite.

    >>> low, high = score_interval(1.0, np.ones(60), 60, (0.0, 1.0))
    >>> round(low, 3), high
    (0.94, 1.0)
    """
    low, high = bounds
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    size, quantile = _effective(share, (replicates - low) / (high - low), n)
    square = quantile**2 / size
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # The ends are exact where the number lies on a bound, and never cross it by rounding.
    below = 0.0 if share == 0.0 else max(0.0, centre - half)
    above = 1.0 if share == 1.0 else min(1.0, centre + half)
    return low + (high - low) * below, high - (high - low) * (1 - above)


def _effective(share: float, replicates: np.ndarray, n: float) -> tuple[float, float]:
    """Effective size and quantile of :func:`score_interval`."""
    moved = replicates[
        np.abs(replicates - share) > 1e-12
    ]  # a part that holds nothing of what is counted is no evidence
    odd = share * (1 - share)
    if len(moved) < 2 or odd <= 0.0 or not (error := spread(moved)[0]):
        return n, _student(math.inf)
    parts = len(moved)
    size = odd / error**2 * parts / (parts - 1)
    term = (moved.mean() - moved) * (parts - 1)
    square = term**2 / (term**2).mean()
    doubt = float(((square - 1 - (1 - 2 * share) / odd * term) ** 2).mean())
    freedom = max(FEWEST_FREEDOM, 2 * parts / doubt) if doubt > 1e-9 else math.inf
    scenes = parts * max(1.0, n / len(replicates))
    if size > scenes:
        mistakes = size * min(share, 1 - share)
        size = (mistakes + DOUBTED) / (mistakes / size + DOUBTED / scenes)
    return size, _student(freedom)


def _student(freedom: float) -> float:
    """Quantile of Student's t for an interval of the level; the normal one for infinite degrees of freedom."""
    from scipy.special import ndtri, stdtrit  # scipy.stats has the same numbers and takes a second to import

    return float(ndtri(0.5 + LEVEL / 2) if math.isinf(freedom) else stdtrit(freedom, 0.5 + LEVEL / 2))


def _exp(exponent: float) -> float:
    """e to the power, without overflow: an interval may be as wide as its range, but must have ends."""
    return math.exp(min(exponent, 300.0))


def unseen_interval(value: float, n: int, bounds: Bounds) -> Interval:
    """The interval of a paired difference on which all scenes agree exactly: their spread, 0, proves nothing.

    A share of the scenes up to ``1 - 0.025^(1/n)`` may still differ without one of them among the ``n`` seen (Clopper and
    Pearson 1934 for a count of 0; about 3.7 / n, the rule of three at this level), and differ as much as the bounds allow.

    Args:
        value: the number.
        n: scenes that it rests on.
        bounds: both finite.
    """
    share = 1.0 - ((1.0 - LEVEL) / 2) ** (1.0 / n)
    return value + share * (bounds[0] - value), value + share * (bounds[1] - value)


def student_p(value: float, error: float, freedom: float) -> float:
    """Two-sided p-value of Student's t for the number being 0; 1 where nothing differs."""
    from scipy.stats import t

    if error == 0.0:
        return 1.0
    return float(2 * t.sf(abs(value) / error, freedom))


Difference = Callable[[np.ndarray, np.ndarray], Sequence["float | None"]]
"""Differences of some numbers from the sums of two runs, each (width,)."""


def sign_flip_p(first: np.ndarray, second: np.ndarray, difference: Difference) -> list[float | None]:
    """Two-sided p-values of paired differences: the share of the ways to swap the two runs, scene by scene, that make the
    difference at least as large as it is (Fisher's randomisation test; Good 2005, Permutation, Parametric and Bootstrap Tests).

    It holds exactly, at any number of scenes, if the runs are exchangeable within a scene, and nothing is assumed of the spread.
    ``n`` scenes cannot give less than ``2^(1-n)``: five scenes never show a difference at 5 %.

    Args:
        first, second: (scenes, width) float64 sums of the two runs.
        difference: the numbers from the sums. None after a swap counts as a large difference.

    Returns:
        One p-value per number; None for numbers that are undefined as they stand.
    """
    totals = first.sum(axis=0), second.sum(axis=0)
    gap = second - first
    observed = [None if value is None else abs(value) for value in difference(*totals)]

    def as_large(swapped: np.ndarray) -> np.ndarray:
        """How many of the (ways, scenes) swaps reach the observed size, per number."""
        counts = np.zeros(len(observed))
        for start in range(0, len(swapped), 500):  # in blocks, since a metric may read thousands of sums
            for moved in swapped[start : start + 500].astype(np.float64) @ gap:
                found = difference(totals[0] + moved, totals[1] - moved)
                for place, (size, value) in enumerate(zip(observed, found, strict=True)):
                    counts[place] += size is None or value is None or abs(value) >= size - 1e-12 * max(1.0, size)
        return counts

    n = len(gap)
    if n <= EXACT_SCENES:  # swapping all scenes changes only the sign, so the first one may stay
        ways = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
        shares = as_large(ways) / len(ways)
    else:
        generator = np.random.default_rng(_SEED)
        counts, tried = as_large(_random_ways(generator, FIRST_FLIPS, n)), FIRST_FLIPS
        if ((counts + 1) / (tried + 1) < WORTH_MORE).any():
            counts = counts + as_large(_random_ways(generator, ALL_FLIPS - FIRST_FLIPS, n))
            tried = ALL_FLIPS
        shares = (counts + 1) / (tried + 1)  # the way it is counts as one (Phipson and Smyth 2010)
    return [None if size is None else float(share) for size, share in zip(observed, shares, strict=True)]


def _random_ways(generator: np.random.Generator, ways: int, n: int) -> np.ndarray:
    """(ways, n) int8 zeros and ones."""
    return generator.integers(0, 2, (ways, n), dtype=np.int8)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """McNemar's test of two runs on the same questions: the probability of a split at least as uneven, were both equally good.

    Args:
        only_first: questions that the first run alone answers rightly.
        only_second: those that the second alone answers rightly.

    Returns:
        The exact binomial p-value below 20 such questions, else that of chi-square with the continuity correction (McNemar 1947), as
        MONITRS takes it; 1 where there is no such question. It takes questions for independent; ``p_value`` takes scenes.

    >>> round(mcnemar_p(9, 2), 4), round(mcnemar_p(30, 10), 4)
    (0.0654, 0.0027)
    """
    from scipy import stats

    split = only_first + only_second
    if not split:
        return 1.0
    if split < 20:
        return float(stats.binomtest(only_first, split, p=0.5).pvalue)
    return float(stats.chi2.sf((abs(only_first - only_second) - 1) ** 2 / split, 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being several, by Holm's step-down method (1979, Scandinavian Journal of Statistics 6, 65).

    Below 0.05 they may be called significant together: the chance that any of them is wrong stays at 5 %. None stays None and is
    not counted.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted
