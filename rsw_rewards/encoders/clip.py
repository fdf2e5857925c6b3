"""CLIP models of the open_clip library, by pretrained tag, by weights file or by folder, and remote-sensing ones by preset."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.assets import ASSETS
from rsw_rewards.encoders.base import BuiltIn, load_exactly, loading, read_state, repeatable
from rsw_rewards.encoders.names import CMMD_RESIZE, NAMES_HELP, is_path, split_options
from rsw_rewards.encoders.presets import PRESETS
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

if TYPE_CHECKING:
    from PIL.Image import Image

SCENE_CLIP_FOLDER = ASSETS / "clip"


class OpenClipEncoder(BuiltIn):
    """A CLIP model of the open_clip library, with the library's own preprocessing and tokenizer."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: str, name: str) -> None:
        super().__init__(model, device, name)
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.crop_first = split_options(name)[1].get("resize") == CMMD_RESIZE
        size = model.visual.image_size
        self.input_size = int(max(size)) if isinstance(size, tuple | list) else int(size)
        self.resize = _resize_in_words(preprocess, self.input_size, self.crop_first)
        self.network = _activation(model)
        self.dim = int(self.encode_images([np.zeros((8, 8, 3), np.uint8)], 1).shape[1])

    @classmethod
    def shipped(cls, place: str, device: str, name: str) -> OpenClipEncoder:
        """The small model that comes with the package."""
        return cls.from_folder(SCENE_CLIP_FOLDER, device, name)

    @classmethod
    def load(cls, place: str, device: str, name: str) -> OpenClipEncoder:
        """The model that ``<model or preset>:<weights>`` names. Raises :class:`ConfigError`."""
        model, _, weights = place.partition(":")
        if not model or not weights:
            raise ConfigError(f"the encoder {name!r} is incomplete; {NAMES_HELP}")
        if model.startswith("Git-RSCLIP"):
            raise ConfigError(
                f"Git-RSCLIP is a SigLIP model in the format of transformers; write hf_clip:{weights}, not {name!r}"
            )
        if model == "local-dir":
            return cls.from_folder(Path(weights).expanduser(), device, name)
        if model in PRESETS:
            return cls.from_preset(model, Path(weights).expanduser(), device, name)
        return cls.from_weights(model, weights, device, name)

    @classmethod
    def from_folder(cls, folder: Path, device: str, name: str) -> OpenClipEncoder:
        """A model from a folder that holds ``open_clip_config.json`` and a safetensors file. Raises :class:`ConfigError`."""
        if not (folder / "open_clip_config.json").is_file() or not list(folder.glob("*.safetensors")):
            raise ConfigError(
                f"the encoder {name!r} has no weights: put open_clip_config.json and open_clip_model.safetensors into {folder}"
            )
        return cls._create(f"local-dir:{folder}", None, device, name)

    @classmethod
    def from_preset(cls, preset: str, path: Path, device: str, name: str) -> OpenClipEncoder:
        """A remote-sensing model of :data:`PRESETS` from its authors' file, or from a folder that holds it under its own name.

        Raises:
            ConfigError: no such file, with what to fetch from where, or a file that does not fit.
        """
        known = PRESETS[preset]
        if path.is_dir():
            held = sorted(path.rglob("*.pt")) if not known.file.endswith(".pt") else []
            path = held[0] if len(held) == 1 else path / known.file
        if not path.is_file():
            raise ConfigError(
                f"the encoder {name!r} has no weights: put {known.file} of {known.origin} at {path}, or name its .pt file itself"
            )
        return cls._create(known.model, None, device, name, known.quick_gelu, path)

    @classmethod
    def from_weights(cls, model: str, weights: str, device: str, name: str) -> OpenClipEncoder:
        """A model open_clip knows, with weights from a file or by pretrained tag. Raises :class:`ConfigError`."""
        need(f"the encoder {name!r}", "open_clip")
        import open_clip

        if model not in open_clip.list_models():
            raise ConfigError(
                f"neither open_clip nor a preset is called {model!r} (in the encoder {name!r}); see open_clip.list_models(); "
                f"presets are {', '.join(PRESETS)}"
            )
        if is_path(weights):
            path = Path(weights).expanduser()
            if not path.is_file():
                raise ConfigError(
                    f"the encoder {name!r} has no weights: put the {model} weights (safetensors) at {path}"
                )
            return cls._create(model, str(path), device, name)
        if weights not in open_clip.list_pretrained_tags_by_model(model):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
            raise ConfigError(
                f"{model} has no pretrained tag {weights!r} and there is no such file; its tags are {tags}"
            )
        return cls._create(model, weights, device, name, quick_gelu_of_tag(model, weights))

    @classmethod
    def _create(
        cls,
        model: str,
        weights: str | None,
        device: str,
        name: str,
        quick_gelu: bool = False,
        state: Path | None = None,
    ) -> OpenClipEncoder:
        need(f"the encoder {name!r}", "open_clip")
        import open_clip

        with loading(name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No pretrained weights loaded")
            network, _, preprocess = open_clip.create_model_and_transforms(
                model, pretrained=weights, device=device, weights_only=True, force_quick_gelu=quick_gelu
            )
            if state is not None:
                what = f"the encoder {name!r}"
                load_exactly(network, _as_written_now(read_state(state, what)), what)
            return cls(network, preprocess, open_clip.get_tokenizer(model), device, name)

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        import torch
        from PIL import Image

        return torch.stack([self.preprocess(self._cropped(Image.fromarray(image))) for image in images])

    def features(self, pixels: Any) -> Any:
        return self.model.encode_image(pixels)

    def _cropped(self, image: Image) -> Image:
        """The image, or the square that CMMD cuts out of its middle."""
        if not self.crop_first:
            return image
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """See :class:`rsw_rewards.encoders.Encoder`."""
        with repeatable(self.device):
            tokens = self.tokenizer([*texts, *[""] * (micro_batch - len(texts))])
            features = self.model.encode_text(tokens.to(self.device))
        return features[: len(texts)].float().cpu().numpy()

    def truncates(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads (77 for most): the rest would be ignored silently."""
        length = self.tokenizer.context_length
        padding = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", None) or 0
        tokens = self.tokenizer(list(texts), context_length=length + 1)
        return [bool(last) for last in (tokens[:, length] != padding).tolist()]


def quick_gelu_of_tag(model: str, tag: str) -> bool:
    """Whether the weights of a pretrained tag were trained with QuickGELU.

    open_clip 3 only warns where a tag such as ``openai`` is loaded into a network with the exact GELU; the features then are not
    the published ones.
    """
    import open_clip

    return bool((open_clip.get_pretrained_cfg(model, tag) or {}).get("quick_gelu", False))


def _activation(model: Any) -> str:
    names = sorted({type(module).__name__ for module in model.modules() if "GELU" in type(module).__name__.upper()})
    return "+".join(names)


def _as_written_now(state: dict[str, Any]) -> dict[str, Any]:
    """Without what older versions of OpenAI's and open_clip's checkpoints carry beside the weights, and with a scalar as a scalar."""
    beside = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
    scalars = {"logit_scale", "logit_bias"}
    return {
        key: value.reshape(()) if key in scalars and value.numel() == 1 else value
        for key, value in state.items()
        if key not in beside
    }


def _resize_in_words(preprocess: Any, size: int, crop_first: bool) -> str:
    """From the library's transforms: their classes, and the filter of the first."""
    steps = list(getattr(preprocess, "transforms", ()))
    kinds = [type(step).__name__ for step in steps]
    chosen = next((getattr(step, "interpolation", None) for step in steps if hasattr(step, "interpolation")), None)
    filter_name = str(getattr(chosen, "value", chosen or "unknown"))
    whole = "CenterCrop" not in kinds and "CenterCropOrPad" not in kinds
    rule = f"to {size} x {size}" if whole else f"shorter side to {size}, then the central square"
    if "CenterCropOrPad" in kinds:
        rule = f"longer side to {size}, then padded"
    if crop_first:
        rule = f"the central square, then to {size} x {size}"
    return f"{rule}, Pillow {filter_name}"
