"""What every change detector is, and how pairs are put through one so that an answer depends on nothing but its pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.pixels import content_hash

MICRO_BATCH = 16
"""Pairs per call of a detector, always filled up to this number, so that an answer does not depend on its neighbours."""

SIDE = 4
"""Sides are continued to a multiple of this, which networks with two poolings need."""

LEVELS = 5
"""What a damage detector tells apart: 0 no building, 1 no damage, 2 minor, 3 major, 4 destroyed."""


@runtime_checkable
class Detector(Protocol):
    """A frozen change detector. The result for a pair may depend only on this pair.

    >>> class Unlike:
    ...     name, weights_sha256 = "unlike", "0" * 64
    ...
    ...     def predict(self, before, after, valid=None):
    ...         return (before != after).any(axis=-1).astype(np.float32)
    >>> isinstance(Unlike(), rsw.Detector)
    True
    """

    name: str
    weights_sha256: str
    """Hash (hex) of the weights."""

    def predict(
        self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Probability of change per pixel.

        Args:
            before, after: (n, h, w, c) pictures of two dates: uint8 red, green, blue, or where the detector's name maps bands
                (``#bands=``) those bands in the type they are stored in. Sides are multiples of 4.
            valid: (n, h, w) bool, pixels that hold data; None where all do. The others hold one colour, the same on both dates.

        Returns:
            (n, h, w) float32 in [0, 1].
        """
        ...


@runtime_checkable
class DamageDetector(Protocol):
    """A frozen network that grades the damage of buildings between two dates."""

    name: str
    weights_sha256: str

    def predict_levels(
        self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """(n, h, w, 5) float32 probabilities of :data:`LEVELS`; arguments as :meth:`Detector.predict` has them."""
        ...


class Views(NamedTuple):
    """A pair as a detector is shown it."""

    before: NDArray[Any]
    """(H, W, C)."""
    after: NDArray[Any]
    """(H, W, C), of the same type."""
    valid: NDArray[np.bool_]
    """(H, W), pixels that count."""


def blanked(pair: Views) -> Views:
    """The pair with one colour in every pixel that does not count, on both dates: the mean of ``before`` where pixels do.

    A network looks at the surroundings of a pixel and at the whole picture, so what lies under a cloud, or what a forecaster
    paints where nobody looks, would otherwise move the answer next to it. The same colour on both dates is no change.
    """
    before, after, valid = pair
    if valid.all():
        return pair
    colour = np.zeros(before.shape[-1])
    if valid.any():
        colour = before[valid].mean(axis=0, dtype=np.float64)
    if before.dtype.kind in "ui":
        colour = np.rint(colour)
    kept = valid[..., None]
    return Views(
        np.where(kept, before, colour.astype(before.dtype)), np.where(kept, after, colour.astype(after.dtype)), valid
    )


Answer = Callable[[NDArray[Any], NDArray[Any], NDArray[np.bool_]], NDArray[np.float32]]
"""``predict`` or ``predict_levels`` of a detector."""


def predict_pairs(
    answer: Answer, pairs: Sequence[Views], name: str, device: str, levels: int | None = None
) -> list[NDArray[np.float32]]:
    """What a detector says of every pair, (H, W) float32 each, or (H, W, levels).

    Equal pairs are looked at once. Every call holds :data:`MICRO_BATCH` pairs of one size and type, filled up with black ones.
    Pixels that do not count are :func:`blanked` first.

    Raises:
        ValueError: the detector, ``name`` in the message, answered with another shape or with values that are not in [0, 1].
    """
    from rsw_rewards.encoders import repeatable

    keys: list[tuple[str, ...]] = []
    todo: dict[tuple[Any, ...], dict[tuple[str, ...], Views]] = {}
    for pair in map(blanked, pairs):
        keys.append(tuple(content_hash(part) for part in pair))
        todo.setdefault((pair.before.shape, pair.before.dtype.str, pair.after.dtype.str), {})[keys[-1]] = pair
    found: dict[tuple[str, ...], NDArray[np.float32]] = {}
    with repeatable(device):
        for group in todo.values():
            names = list(group)
            for start in range(0, len(names), MICRO_BATCH):
                part = names[start : start + MICRO_BATCH]
                batch = _full_batch([group[key] for key in part])
                said = np.asarray(answer(*batch), np.float32)
                wanted = batch[2].shape if levels is None else (*batch[2].shape, levels)
                if said.shape != wanted or not ((said >= 0) & (said <= 1)).all():
                    raise ValueError(
                        f"the detector {name!r} answered with shape {said.shape} where {wanted} is wanted, or with values "
                        f"outside [0, 1] or not finite"
                    )
                height, width = group[part[0]].valid.shape
                found.update(zip(part, said[: len(part), :height, :width], strict=True))
    return [found[key] for key in keys]


def _full_batch(pairs: Sequence[Views]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Pairs of one size as (MICRO_BATCH, h, w, c) pictures of each date and (MICRO_BATCH, h, w) valid pixels."""
    height, width = pairs[0].valid.shape
    edges = ((0, -height % SIDE), (0, -width % SIDE))

    def stacked(pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
        wide = [np.pad(picture, (*edges, (0, 0)), mode="edge") for picture in pictures]
        return np.stack(wide + [np.zeros_like(wide[0])] * (MICRO_BATCH - len(wide)))

    valid = np.zeros((MICRO_BATCH, height + edges[0][1], width + edges[1][1]), bool)
    valid[: len(pairs), :height, :width] = [pair.valid for pair in pairs]
    return stacked([pair.before for pair in pairs]), stacked([pair.after for pair in pairs]), valid
