"""Score functions for Flow-GRPO, for the table in its ``rewards.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rsw_rewards.engine.reward import Result
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import Adapter
from rsw_rewards.io.given_images import from_image

Scores = Callable[[Any, Sequence[str], Sequence[Mapping[str, Any]]], tuple[list[float], dict[str, Any]]]


class RSWReward:
    """The reward, and the value of each component, as factories of Flow-GRPO's score functions.

    Args:
        rubric, samples, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        key: of each prompt's metadata, the id of the sample, or the whole sample.

    >>> before, after = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 90, np.uint8)
    >>> sample = {"id": "a", "task": "forecast", "images": [before], "reference": {"images": [after]}}
    >>> score = RSWReward({"gain_over_copy": 1.0}, [sample]).score_functions()["rsw"]()
    >>> score(np.stack([after, before]), ["a road"] * 2, [{"id": "a"}] * 2)
    ([1.0, 0.5], {})
    """

    def __init__(self, rubric: Any, samples: Any = None, *, key: str = "id", **settings: Any) -> None:
        self.adapter = Adapter(
            rubric, samples, alone="Flow-GRPO divides a group over processes", gives="image", **settings
        )
        self.key = key
        self._last: tuple[Any, list[Result]] = (None, [])

    def score_functions(self, name: str = "rsw") -> dict[str, Callable[[], Scores]]:
        """Factories for the table of ``multi_score``: the reward by its name, and ``NAME_COMPONENT`` for each component.

        Give the components a weight of 0 in ``config.reward_fn``: they are logged, and do not count. A function takes n images, a
        tensor of floats (n, 3, H, W) in [0, 1] or a uint8 array (n, H, W, 3), and gives n scores.
        """

        def factory(component: str | None) -> Callable[[], Scores]:
            def made() -> Scores:
                def score(
                    images: Any, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
                ) -> tuple[list[float], dict[str, Any]]:
                    results = self._results(images, metadata)
                    if component is None:
                        return [self.adapter.number(result) for result in results], {}
                    return [self.adapter.logged(result)[component] for result in results], {}

                return score

            return made

        return {name: factory(None), **{f"{name}_{label}": factory(label) for label in self.adapter.labels}}

    def _results(self, images: Any, metadata: Sequence[Mapping[str, Any]]) -> list[Result]:
        if self._last[0] is not images:  # all functions of a step are given the same images
            kind = "uint8_hwc" if isinstance(images, np.ndarray) else "float_chw"
            outputs = [from_image(image, kind) for image in images]
            for row in metadata:
                if self.key not in row:
                    raise InputError(f"the metadata of a prompt has no {self.key!r}; it has {', '.join(map(str, row))}")
            samples = [self.adapter.sample(row[self.key]) for row in metadata]
            self._last = (images, self.adapter.reward.many(outputs, samples, range(len(outputs))))
        return self._last[1]
