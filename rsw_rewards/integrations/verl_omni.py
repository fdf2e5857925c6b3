"""A reward function of images for verl-omni, which its configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsw_rewards.integrations.adapter import shared
from rsw_rewards.io.given_images import from_images


def compute_score(
    data_source: Any,
    solution_image: Any,
    ground_truth: Any,
    extra_info: Any = None,
    *,
    rubric: Any,
    samples: Any = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """What verl-omni calls by ``reward.reward_functions``, for one output; the keywords stand beside ``path`` and ``name``.

    Args:
        solution_image: uint8, (C, H, W) of an image or (T, C, H, W) of the T images of a forecast.
        ground_truth: the id of a sample, or a whole sample.
        rubric, samples: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        settings: further ones of :class:`rsw_rewards.Reward`, as a mapping.

    Returns:
        ``score`` and the value of every component, always under the same names.

    Raises:
        RunStopped: there is no reward. verl-omni turns that into 0 unless the function is ``required: true``.
        InputError: the image is no uint8 tensor.

    >>> before, after = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 90, np.uint8)
    >>> sample = {"id": "a", "task": "forecast", "images": [before], "reference": {"images": [after]}}
    >>> compute_score("scenes", np.moveaxis(after, -1, 0), sample, rubric={"gain_over_copy": 1.0})
    {'score': 1.0, 'gain_over_copy': 1.0}
    """
    adapter = shared(rubric, samples, alone="verl-omni shows one output at a time", gives="image", **(settings or {}))
    frames = list(solution_image) if getattr(solution_image, "ndim", 3) == 4 else [solution_image]
    result = adapter.reward.one(from_images(frames, "uint8_chw"), adapter.sample(ground_truth))
    return {"score": adapter.number(result), **adapter.logged(result)}
