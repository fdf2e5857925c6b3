"""A world model on the backbone of a vision-language model: answers like one, and draws the future in the codes of a VQModel.

Folders are made by :func:`rsw_rewards.rollouts.backbone_builder.build_world_model`; how prompts are laid out stands in
:mod:`rsw_rewards.rollouts.backbone_vocabulary`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.images import read_rgb
from rsw_rewards.io.model_files import missing_model
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.backbone_vocabulary import BackboneVocabulary
from rsw_rewards.rollouts.diffusion_forecaster import resize
from rsw_rewards.rollouts.model_class import become
from rsw_rewards.rollouts.policy import Request, after_setup
from rsw_rewards.rollouts.special_tokens import as_words
from rsw_rewards.rollouts.tiny import PREFIX
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.weights import base_model

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import BatchFeature, PreTrainedModel

    from rsw_rewards.rollouts.movq import MovqTokenizer
    from rsw_rewards.rollouts.picture_segments import Segments


class BackboneWorldModel(VisionLanguageModel):
    """A vision-language model whose vocabulary also holds pictures.

    Questions are answered as by :class:`VisionLanguageModel`, with place and dates as tokens before the words. In forecasts the model
    sees its input as features and as codes, and exactly one code per cell is drawn. Pictures are coded at the side that the model was built
    for; a forecast is the input plus what changes in the codes, brought to the input's size, so that copied codes keep every pixel.

    Args:
        path: a folder that ``method: build_world_model`` or a training wrote, or ``tiny:qwen3_vl`` and the like for a small untrained one.
        forecast_template: text of a request for a forecast; empty for a model that goes by metadata alone.
        others: see :class:`VisionLanguageModel`. Adapters are trained together with the embeddings of the added tokens.
    """

    name = "backbone_world_model"
    tasks = frozenset({Task.CHANGE_QA, Task.CHANGE_CAPTION, Task.CLASSIFICATION, Task.FORECAST})

    def __init__(self, path: str | Path, *, forecast_template: str = "{prompt}", **others: Any) -> None:
        if "send_images" in others:
            raise ConfigError(f"{self.name}: takes no 'send_images'; a world model always gets its images")
        super().__init__(path, **others)
        self.forecast_template = forecast_template
        self._vocabulary: BackboneVocabulary | None = None
        self._codec: MovqTokenizer | None = None

    def missing(self) -> str | None:
        return super().missing() or (None if str(self.path).startswith(PREFIX) else missing_model(self.path, hub=False))

    def folder(self) -> str:
        from rsw_rewards.rollouts.backbone_builder import tiny_world_folder

        path = str(self.path)
        return str(tiny_world_folder(path.removeprefix(PREFIX))) if path.startswith(PREFIX) else path

    def prepare(self, path: str, device: str) -> Sequence[int]:
        from rsw_rewards.rollouts.backbone_builder import load_codec

        self._vocabulary = BackboneVocabulary.load(Path(path))
        self._codec = load_codec(Path(path), self._vocabulary, device)
        return range(self._vocabulary.first, self._vocabulary.last)

    def constrain(self, never: Sequence[int]) -> None:
        guide(base_model(self.model), self.segments(never))

    def segments(self, never: Sequence[int]) -> Segments:
        """The rules of what may follow. Raises :class:`ConfigError` where model, tokenizer and vocabulary do not belong together."""
        rows = base_model(self.model).get_output_embeddings().weight.shape[0]
        if len(self.processor.tokenizer) != self.vocabulary.last or rows < self.vocabulary.last:
            raise ConfigError(
                f"{self.path}: the model has {rows} tokens and its tokenizer {len(self.processor.tokenizer)}, but its world_model.json counts "
                f"{self.vocabulary.last}; the files are of different world models, build it again"
            )
        return self.vocabulary.segments(rows, never, self.ends)

    @property
    def vocabulary(self) -> BackboneVocabulary:
        """Where pictures and metadata lie in the vocabulary, after :meth:`setup`."""
        return after_setup(self._vocabulary)

    @property
    def codec(self) -> MovqTokenizer:
        """The visual tokenizer, after :meth:`setup`."""
        return after_setup(self._codec)

    def save(self, folder: Path) -> None:
        from rsw_rewards.rollouts.backbone_builder import save_world_model

        save_world_model(folder, self.model, self.processor, self.vocabulary, self.codec)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"forecast_template": self.forecast_template}

    # Prompts

    def text(self, sample: Sample) -> str:
        """Metadata as tokens, then the words of the request."""
        forecast = sample.task is Task.FORECAST
        told = self.vocabulary.heading(sample) + (self.vocabulary.conditions(sample) if forecast else "")
        if not forecast:
            return told + super().text(sample)
        return told + as_words(self.forecast_template.replace("{prompt}", sample.prompt), self._special)

    def longest(self, sample: Sample) -> int:
        return self.vocabulary.drawing_length + 1 if sample.task is Task.FORECAST else self.max_new_tokens

    def pixels(self, image: ImageRef) -> np.ndarray:
        """(side, side, 3) uint8 of a picture, as it is coded."""
        return resize(read_rgb(image), self.vocabulary.side, self.vocabulary.side)

    def drawings(self, images: Sequence[ImageRef]) -> list[list[int]]:
        """Tokens of pictures as completions, with their ends. Raises :class:`ImageError`."""
        codes = self.codec.encode(np.stack([self.pixels(image) for image in images]))
        return [[*self.vocabulary.drawing(one), self.eos_id] for one in codes]

    def albums(self, samples: Sequence[Sample]) -> list[list[int]]:
        """What stands behind the user's turn: nothing for questions, dated pictures in codes for forecasts."""
        shown = [image for sample in samples if sample.task is Task.FORECAST for image in sample.images]
        codes = iter(self.codec.encode(np.stack([self.pixels(image) for image in shown])) if shown else ())
        found: list[list[int]] = []
        for sample in samples:
            if sample.task is not Task.FORECAST:
                found.append([])
                continue
            dates = [image.date for image in sample.images]
            target = sample.metadata.get("target_date")
            found.append(self.vocabulary.album([next(codes) for _ in dates], dates, target))
        return found

    def prompt(self, samples: Sequence[Sample], pictures: Sequence[Sequence[Image]]) -> BatchFeature:
        """See :meth:`VisionLanguageModel.prompt`: the user's turn, and the pictures in codes that a forecast continues."""
        inputs = self.encode(samples, pictures)
        albums = self.albums(samples)
        seen = inputs["attention_mask"].bool()
        fill = {"input_ids": self.pad_id}
        behind = {"input_ids": albums, "attention_mask": [[1] * len(album) for album in albums]}
        plain = [[0] * len(album) for album in albums]
        for key, value in inputs.items():
            if value.shape == seen.shape:  # per token: its id, whether it is there, whether it stands for an image
                rows = [
                    [*row[real].tolist(), *album]
                    for row, real, album in zip(value, seen, behind.get(key, plain), strict=True)
                ]
                inputs[key] = _left_padded(rows, fill.get(key, 0)).to(value.dtype)
        return inputs

    # Outputs

    def complete(self, requests: Sequence[Request], pictures: Mapping[str, list[Image]], count: int) -> list[Output]:
        outputs = super().complete(requests, pictures, count)
        if requests[0].sample.task is not Task.FORECAST:
            return outputs
        codes = [
            self.vocabulary.read_drawing(output.tokens.completion_ids, self.ends) if output.tokens else None
            for output in outputs
        ]
        whole = [row for row, drawn in enumerate(codes) if drawn is not None]
        if whole:
            befores = [read_rgb(requests[row].sample.images[-1]) for row in whole]
            small = np.stack([self.pixels(requests[row].sample.images[-1]) for row in whole])
            made = self.codec.decode_forecast(small, np.stack([drawn for drawn in codes if drawn is not None]))
            for row, before, shown, drawn in zip(whole, befores, small, made, strict=True):
                picture = at_size_of(before, shown, drawn)
                outputs[row] = replace(outputs[row], image=ImageRef(array=picture, sha256=content_hash(picture)))
        return outputs

    def output(self, request: Request, prompt: list[int], tokens: list[int], logprobs: list[float]) -> Output:
        output = super().output(request, prompt, tokens, logprobs)
        return replace(output, text=None) if request.sample.task is Task.FORECAST else output


def at_size_of(before: np.ndarray, shown: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """A forecast at the size of its input: the input plus what was drawn differently, interpolated.

    Args:
        before: (h, w, 3) uint8, the input as it was given.
        shown: (side, side, 3) uint8, the input as it was coded.
        drawn: (side, side, 3) uint8, the forecast that belongs to ``shown``.

    Returns:
        (h, w, 3) uint8; ``before`` itself where nothing was drawn differently.
    """
    if before.shape == drawn.shape:
        return drawn
    import torch

    change = torch.from_numpy(drawn.astype(np.float32) - shown).permute(2, 0, 1)[None]
    full = torch.nn.functional.interpolate(change, before.shape[:2], mode="bilinear", align_corners=False)
    return np.clip(np.rint(before + full[0].permute(1, 2, 0).numpy()), 0, 255).astype(np.uint8)


def guide(model: PreTrainedModel, segments: Segments) -> None:
    """Let a model give probability to what ``segments`` allows alone, in ``forward`` itself: for sampler and learner alike."""
    from rsw_rewards.rollouts.picture_segments import IMPOSSIBLE

    parent: Any = type(model)

    @functools.wraps(parent.forward)
    def forward(
        self: Any,
        input_ids: torch.Tensor | None = None,
        *args: Any,
        picture_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        picture_positions = segments.places(picture_positions, input_ids, kwargs.get("past_key_values"))
        out = parent.forward(self, input_ids, *args, **kwargs)
        kept = picture_positions[:, -out.logits.shape[1] :]
        out.logits = out.logits.masked_fill(~segments.mask(kept), IMPOSSIBLE)
        return out

    def prepare_inputs_for_generation(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = parent.prepare_inputs_for_generation(self, input_ids, *args, **kwargs)
        inputs["picture_positions"] = segments.positions(input_ids)[:, -inputs["input_ids"].shape[1] :]
        return inputs

    def picture_positions(self: Any, input_ids: torch.Tensor) -> torch.Tensor:
        """How far into a picture each position of whole sequences is, see :meth:`Segments.positions`."""
        return segments.positions(input_ids)

    become(
        model,
        forward=forward,
        prepare_inputs_for_generation=prepare_inputs_for_generation,
        picture_positions=picture_positions,
    )


def _left_padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    import torch

    width = max(len(row) for row in rows)
    return torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows])
