"""CLIP and SigLIP models in the format of the transformers library, such as Git-RSCLIP (huggingface.co/lcybuaa/Git-RSCLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.core.plugins import raised
from rsw_rewards.encoders.base import BuiltIn, repeatable
from rsw_rewards.encoders.dinov2 import load_transformers
from rsw_rewards.errors import ConfigError

KINDS = ("siglip", "clip")


class HfClipEncoder(BuiltIn):
    """Image and text towers of a transformers CLIP or SigLIP, with the folder's own preprocessing and tokenizer."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any, device: str, name: str) -> None:
        super().__init__(model, device, name)
        self.processor = processor
        self.tokenizer = tokenizer
        self.context = int(model.config.text_config.max_position_embeddings)
        self.input_size = int(model.config.vision_config.image_size)
        self.resize = _resize_in_words(processor)
        self.network = f"{model.config.model_type} {model.config.vision_config.hidden_act}"
        self.dim = int(self.encode_images([np.zeros((8, 8, 3), np.uint8)], 1).shape[1])

    @classmethod
    def load(cls, place: str, device: str, name: str) -> HfClipEncoder:
        """The model in a folder with ``config.json``, safetensors, preprocessor and tokenizer, or that of a name on the hub.

        Raises:
            ConfigError: something of it is missing, it is another kind of model, or it cannot be loaded.
        """
        model = load_transformers(place, KINDS, name, "lcybuaa/Git-RSCLIP")
        from transformers import AutoImageProcessor, AutoTokenizer

        folder = Path(place).expanduser()
        source, local = (str(folder), True) if folder.is_dir() else (place, False)
        try:
            # The slow processor resizes by Pillow; the fast one by torch, whose last digits differ between versions.
            processor = AutoImageProcessor.from_pretrained(source, local_files_only=local, backend="pil")
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        except Exception as error:  # whatever a foreign folder makes the library raise
            raise ConfigError(
                f"the encoder {name!r} lacks its preprocessor or tokenizer ({raised(error)}); put "
                f"preprocessor_config.json and the tokenizer's files beside the weights"
            ) from error
        return cls(model, processor, tokenizer, device, name)

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        from PIL import Image

        shown = [Image.fromarray(image) for image in images]
        return self.processor(images=shown, return_tensors="pt")["pixel_values"]

    def features(self, pixels: Any) -> Any:
        return _vector(self.model.get_image_features(pixels))

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """See :class:`rsw_rewards.encoders.Encoder`."""
        with repeatable(self.device):
            tokens = self.tokenizer(
                [*texts, *[""] * (micro_batch - len(texts))],
                padding="max_length",  # SigLIP was trained so, and a length of its own would change the sums
                max_length=self.context,
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            # SigLIP reads its padding; only CLIP was trained with a mask.
            inputs = {"input_ids": tokens["input_ids"]}
            if self.model.config.model_type == "clip":
                inputs["attention_mask"] = tokens["attention_mask"]
            features = _vector(self.model.get_text_features(**inputs))
        return features[: len(texts)].float().cpu().numpy()

    def truncates(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads (64 for SigLIP): the rest would be ignored silently."""
        return [len(tokens) > self.context for tokens in self.tokenizer(list(texts))["input_ids"]]


def _resize_in_words(processor: Any) -> str:
    """What the folder's preprocessor says of itself."""
    size = " ".join(f"{key} {value}" for key, value in dict(processor.size).items() if value is not None)
    crop = ", then the centre" if getattr(processor, "do_center_crop", None) else ""
    return f"to {size} by Pillow filter {int(processor.resample)}{crop} (its preprocessor_config.json)"


def _vector(found: Any) -> Any:
    """The projected features, which transformers 5 gives inside an output object and earlier versions as they are."""
    return getattr(found, "pooler_output", found)
