"""Attacks with masks, maps and boxes: nothing, everything, chance, very small and very many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.redteam.compared_with import true_levels, true_pixels
from rsw_rewards.redteam.kit import Attack, Pool, baseline_attacks, each
from rsw_rewards.rollouts.baselines.base import in_memory
from rsw_rewards.rollouts.baselines.pictures import size_of

_BLIND = ("empty", "all_changed", "all_unchanged", "no_damage", "whole_image", "swapped", "noise")
_MASKS = frozenset({Task.CHANGE_MASK, Task.GROUNDING})


def shape_attacks(pool: Pool) -> list[Attack]:
    """All attacks with masks, maps and boxes for the samples of a task."""
    found = baseline_attacks(_BLIND, pool, "mask", "looks at no image")
    if pool.task in _MASKS:
        found += [Attack(name, "mask", each(_masked(draw)), about) for name, about, draw in _masks(pool)]
    if pool.task is Task.GROUNDING:
        found += [Attack(name, "boxes", each(_boxed(boxes)), about) for name, about, boxes in _boxes()]
    return found


Draw = Callable[[Sample, np.ndarray], "np.ndarray | None"]


def _masked(draw: Draw) -> Callable[[Sample], Output | None]:
    """A mask drawn for a sample whose true mask is an (H, W) uint8 array."""

    def output(sample: Sample) -> Output | None:
        image = true_levels(sample)
        if image is None:
            return None
        drawn = draw(sample, true_pixels(image))
        return None if drawn is None else Output(sample.id, mask=in_memory(drawn.astype(np.uint8)))

    return output


def _masks(pool: Pool) -> Sequence[tuple[str, str, Draw]]:
    def most(true: np.ndarray) -> int:
        return max(1, int(true.max()))

    def another(sample: Sample, true: np.ndarray) -> np.ndarray | None:
        other = pool.other(sample, lambda one: size_of(one) == true.shape)
        image = None if other is None else true_levels(other)
        return None if image is None else true_pixels(image)

    def checked(sample: Sample, true: np.ndarray) -> np.ndarray:
        return np.asarray(np.indices(true.shape).sum(0) % 2 * most(true))

    def middle(sample: Sample, true: np.ndarray) -> np.ndarray:
        height, width = true.shape
        drawn = np.zeros(true.shape)
        drawn[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None] = most(true)
        return drawn

    def pixel(sample: Sample, true: np.ndarray) -> np.ndarray:
        drawn = np.zeros(true.shape)
        drawn[true.shape[0] // 2, true.shape[1] // 2] = most(true)
        return drawn

    return (
        ("another mask", "the true mask of another sample", another),
        ("checkerboard", "every second pixel", checked),
        ("middle", "the middle quarter", middle),
        ("one pixel", "one pixel in the middle", pixel),
        ("inverted", "what is not true", lambda sample, true: np.where(true > 0, 0, most(true))),
    )


Boxes = Callable[[float, float], Sequence[tuple[float, float, float, float]]]


def _boxed(boxes: Boxes) -> Callable[[Sample], Output | None]:
    def output(sample: Sample) -> Output | None:
        true = sample.reference.get("boxes")
        if not true or len(true[0]) != 4:
            return None
        height, width = map(float, size_of(sample))
        return Output(sample.id, boxes=tuple(boxes(height, width)))

    return output


def _boxes() -> Sequence[tuple[str, str, Boxes]]:
    def grid(height: float, width: float, n: int) -> list[tuple[float, float, float, float]]:
        steps = range(n)
        return [
            (width * x / n, height * y / n, width * (x + 1) / n, height * (y + 1) / n) for y in steps for x in steps
        ]

    def sizes(height: float, width: float) -> list[tuple[float, float, float, float]]:
        return [box for n in (1, 2, 3, 4, 6, 8) for box in grid(height, width, n)]

    return (
        ("tiny box", "one pixel in the middle", lambda h, w: [(w / 2, h / 2, w / 2 + 1, h / 2 + 1)]),
        ("middle box", "the middle quarter", lambda h, w: [(w / 4, h / 4, 3 * w / 4, 3 * h / 4)]),
        ("many boxes", "a grid of 100 boxes", lambda h, w: grid(h, w, 10)),
        ("boxes of all sizes", "130 boxes from the whole image to an eighth of the side", sizes),
        ("one box a hundred times", "the middle box, repeated", lambda h, w: [(w / 4, h / 4, 3 * w / 4, 3 * h / 4)] * 100),
        ("whole image, then corners", "the whole image before four quarters", lambda h, w: [(0.0, 0.0, w, h), *grid(h, w, 2)]),
    )  # fmt: skip
