"""Which denoising steps of a rollout are stochastic: all of them, or a window that moves while training goes on.

Outside of the window steps are deterministic, and cost no update. Which window it is follows from the version of the weights, thus from the
training step alone: sampler and learner need not tell each other.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from rsw_rewards.core.settings import Strict


class Window(Strict):
    """A window of stochastic steps (MixGRPO, arXiv 2507.21802; Flow-GRPO-Fast), under ``window`` of the policy."""

    size: PositiveInt = 4
    """Steps in the window."""
    order: Literal["sliding", "random"] = "sliding"
    """``sliding`` goes from the noisiest steps to the cleanest (MixGRPO), ``random`` is drawn anew each time (Flow-GRPO-Fast)."""
    every: PositiveInt = 25
    """Training steps after which it moves. Flow-GRPO-Fast moves at every step."""
    stride: PositiveInt = 1
    """Steps that a sliding window moves by."""
    within: tuple[NonNegativeInt, PositiveInt] | None = None
    """The first step that it may hold and the one behind the last; all that make a choice where left out."""
    roll_back: bool = True
    """Whether a sliding window starts again behind its last place, or stays there."""
    seed: NonNegativeInt = Field(default=0)
    """Of the places of a random one."""

    def places(self, steps: int) -> range:
        """Where the window may start, of a rollout of so many denoising steps, because the last step is deterministic.

        Raises:
            ValueError: it has no room.

        >>> list(Window(size=2, within=(0, 5)).places(steps=10))
        [0, 1, 2, 3]
        """
        first, end = self.within or (0, steps - 1)
        end = min(end, steps - 1)
        stride = self.stride if self.order == "sliding" else 1
        places = range(first, end - self.size + 1, stride)
        if not places:
            raise ValueError(
                f"a window of {self.size} steps has no room between step {first} and step {end} ({steps} steps, the last of which is"
                " never stochastic)"
            )
        return places

    def at(self, version: int, steps: int) -> range:
        """The steps in the window, under weights of that version.

        >>> window = Window(size=2, every=10)
        >>> [list(window.at(version, steps=5)) for version in (0, 9, 10, 20, 30)]
        [[0, 1], [0, 1], [1, 2], [2, 3], [0, 1]]
        """
        places, move = self.places(steps), version // self.every
        if self.order == "random":
            move = int(np.random.default_rng([self.seed, move]).integers(len(places)))
        elif not self.roll_back:
            move = min(move, len(places) - 1)
        start = places[move % len(places)]
        return range(start, start + self.size)
