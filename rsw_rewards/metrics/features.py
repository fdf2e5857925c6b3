"""Distances between sets of features."""

from __future__ import annotations

from typing import Any

from rsw_rewards.core.image_values import as_array
from rsw_rewards.metrics.checked import public
from rsw_rewards.verifiers import kernel_distances
from rsw_rewards.verifiers.frechet import frechet_from_features


@public
def frechet_distance(predicted: Any, truth: Any) -> float:
    """Squared Frechet distance of two sets of features: the FID, where they are Inception features. Needs `[torch]`.

    Exact for any number of rows, with covariances over n - 1. It grows as sets become smaller: compare only sets of one size.

    Args:
        predicted, truth: (n, d) and (m, d) floats, n, m >= 2.

    >>> features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(rsw.metrics.frechet_distance(features + [3.0, 4.0], features), 6)
    25.0
    """
    return frechet_from_features(as_array(predicted), as_array(truth))


@public
def kernel_distance(predicted: Any, truth: Any) -> float:
    """Squared maximum mean discrepancy of two sets of features under the cubic kernel of KID, without bias.

    What KID estimates on random subsets, on the whole sets; slightly negative where the sets are alike.

    Args:
        predicted, truth: (n, d) and (m, d) floats, n, m >= 2.

    >>> features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> rsw.metrics.kernel_distance(features + 1.0, features) > rsw.metrics.kernel_distance(features, features)
    True
    """
    return kernel_distances.polynomial_mmd(as_array(predicted), as_array(truth))


@public
def cmmd(predicted: Any, truth: Any) -> float:
    """CMMD of two sets of CLIP features, times 1000 (Jayasumana et al. 2024): 0 for equal sets.

    Args:
        predicted, truth: (n, d) and (m, d) floats, n, m >= 2; rows are brought to unit length.

    >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> rsw.metrics.cmmd(features, features)
    0.0
    """
    return kernel_distances.cmmd(as_array(predicted), as_array(truth))
