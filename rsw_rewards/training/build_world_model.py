"""``method: build_world_model``: a vision-language model and a visual tokenizer become the start of a world model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from rsw_rewards.core.settings import Strict
from rsw_rewards.rollouts.trained import mark_complete


class BuildWorldModelConfig(Strict):
    """Configuration of ``method: build_world_model``; see :func:`rsw_rewards.rollouts.backbone_builder.build_world_model`."""

    method: Literal["build_world_model"] = "build_world_model"
    out: Path
    backbone: str
    """Folder or hub name of an image-text-to-text model, or ``tiny:qwen3_vl`` and the like."""
    tokenizer: str
    """Folder of a diffusers VQModel, or ``tiny:movq``."""
    side: PositiveInt = 256
    """Side in pixels of the pictures that are coded."""
    seed: NonNegativeInt = 0


def train(config: BuildWorldModelConfig) -> None:
    """Builds the world model into ``config.out``. Raises :class:`ConfigError`."""
    from rsw_rewards.rollouts.backbone_builder import build_world_model

    built = build_world_model(config.backbone, config.tokenizer, config.out, config.side, config.seed)
    mark_complete(config.out, 0)
    rows, columns = built.grid
    print(
        f"{config.out}: {config.backbone} with {built.last - built.first} more tokens, {built.codes} of them codes; "
        f"a picture of {built.side} x {built.side} pixels is {rows} x {columns} codes",
        flush=True,
    )
