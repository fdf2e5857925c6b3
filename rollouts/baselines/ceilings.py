"""Baselines that know the truth: what a perfect model would get, and the best that a visual tokenizer can draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.core.verifier import ALL_TASKS
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.extras import need
from rsw_rewards.io.images import read_rgb
from rsw_rewards.rollouts.baselines.base import Baseline, in_memory, true_text
from rsw_rewards.rollouts.baselines.pictures import FORECAST, before
from rsw_rewards.rollouts.policy import Policy, Request
from rsw_rewards.verifiers.maps import in_levels

if TYPE_CHECKING:
    from rsw_rewards.rollouts.visual_tokenizer import PictureCodec


class Oracle(Baseline):
    """The truth: what a perfect model would get, and a check of the verifiers on the way. Of several captions, the first."""

    name = "oracle"
    tasks = ALL_TASKS

    def answer(self, sample: Sample) -> Output:
        reference = sample.reference
        if OUTPUT_FIELDS[sample.task] == ("text",):
            return Output(sample.id, text=true_text(sample) or "")
        if sample.task is Task.FORECAST:
            future = reference["images"]
            if len(future) > 1:
                return Output(sample.id, images=tuple(future))
            return Output(sample.id, image=future[-1])
        if isinstance(mask := reference.get("mask"), ImageRef) and "mask" in OUTPUT_FIELDS[sample.task]:
            return Output(sample.id, mask=in_levels(mask, reference.get("levels")))
        if sample.task is Task.GROUNDING and "labels" in reference:  # detection is answered by a text
            pairs = zip(reference["boxes"], reference["labels"], strict=True)
            return Output(sample.id, text=json.dumps([{"bbox_2d": list(box), "label": label} for box, label in pairs]))
        if sample.task is Task.GROUNDING:
            return Output(sample.id, boxes=tuple(tuple(float(side) for side in box) for box in reference["boxes"]))
        return Output(sample.id, **{field: reference[field] for field in OUTPUT_FIELDS[sample.task]})


class TokenizerCeiling(Policy):
    """The true future encoded and decoded by the visual tokenizer: the best that a token world model can draw.

    Args:
        path: of the world model whose tokenizer it is, of either kind; ``embedded`` is the one shipped.
    """

    name = "tokenizer_ceiling"
    tasks = FORECAST

    def __init__(self, path: str = "embedded") -> None:
        self.path = path
        self._tokenizer: PictureCodec | None = None
        self._side: int | None = None
        """Side at which pictures are coded, where that is not their own."""

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        need(f"the policy {self.name!r}", "torch", "transformers")
        from rsw_rewards.rollouts.backbone_vocabulary import FILE
        from rsw_rewards.rollouts.token_world_model import load_world_model

        if self.path.startswith("tiny:") or (Path(self.path) / FILE).is_file():
            from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel

            world = BackboneWorldModel(self.path)
            world.prepare(world.folder(), device)
            self._tokenizer, self._side = world.codec, world.vocabulary.side
            return
        try:
            self._tokenizer = load_world_model(self.path, device).tokenizer
        except (OSError, ValueError) as error:
            raise ConfigError(f"the tokenizer's ceiling cannot be computed: {error}") from error

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        if self._tokenizer is None:
            raise RuntimeError("call setup() first")
        made: dict[int, Output] = {}
        by_size: dict[tuple[int, ...], list[tuple[int, np.ndarray, np.ndarray]]] = {}
        for place, sample in enumerate(request.sample for request in requests):
            try:
                past, future = read_rgb(before(sample)), read_rgb(sample.reference["images"][-1])
                if past.shape != future.shape:
                    raise ImageError(f"its future has the shape {future.shape}, its input {past.shape}")
                by_size.setdefault(past.shape, []).append((place, past, future))
            except ImageError as error:
                made[place] = Output(sample.id, lost=str(error))
            except KeyError as error:
                made[place] = Output(sample.id, lost=f"sample {sample.id!r} has no reference.{error.args[0]}")
        for group in by_size.values():  # many at once, because the tokenizer fills every pass up to its micro-batch
            places = [place for place, _, _ in group]
            try:
                drawn = self._drawn(np.stack([past for _, past, _ in group]), np.stack([one for _, _, one in group]))
                found: dict[int, dict[str, Any]] = {
                    place: {"image": in_memory(one)} for place, one in zip(places, drawn, strict=True)
                }
            except ValueError as error:  # of another size than the tokenizer takes
                found = {place: {"lost": str(error)} for place in places}
            made |= {place: Output(requests[place].sample.id, **answer) for place, answer in found.items()}
        return [made[place] for place in range(len(requests))]

    def _drawn(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """(n, h, w, 3) uint8 pictures of (n, h, w, 3) inputs and futures."""
        assert self._tokenizer is not None
        if self._side is None or past.shape[1:3] == (self._side, self._side):
            return self._tokenizer.decode_forecast(past, self._tokenizer.encode(future))
        from rsw_rewards.rollouts.backbone_world_model import at_size_of
        from rsw_rewards.rollouts.diffusion_forecaster import resize

        shown, coming = (np.stack([resize(one, self._side, self._side) for one in part]) for part in (past, future))
        drawn = self._tokenizer.decode_forecast(shown, self._tokenizer.encode(coming))
        return np.stack([at_size_of(*one) for one in zip(past, shown, drawn, strict=True)])
