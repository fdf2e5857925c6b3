"""What a diffusers pipeline must say of itself to be trained: its codec, what its denoiser is told, and one step at a time.

A pipeline's own call loops over its scheduler, which gives no densities. Here a pipeline says what one denoising step is, so that
sampler and learner walk through the very same function.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch

from rsw_rewards.core.files import write_text
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.diffusion_steps import Step
from rsw_rewards.rollouts.special_tokens import as_words, special_names

Conditions = dict[str, torch.Tensor]
"""What the denoiser is told besides the latent; every tensor has one row per picture."""


class DiffusionPipeline(ABC):
    """Denoiser, picture codec, text encoders and noise schedule of one pipeline folder.

    Args:
        parts: the components by their names in the folder.
        guidance_scale, image_guidance_scale: see the kinds.
        sampler: which of ``samplers`` its stochastic steps are; the first where left out.

    Raises:
        ConfigError: it has no such sampler.
    """

    kind: ClassVar[str]
    """Class of the pipeline in diffusers, as ``model_index.json`` names it."""
    denoiser_name: ClassVar[str]
    text_parts: ClassVar[Mapping[str, tuple[str, str]]]
    """Text encoders: component, and its class and tokenizer."""
    samplers: ClassVar[Mapping[str, float]]
    """The stochastic steps that it can take, its own first, and how noisy each is where nothing is said."""
    safety_checked: ClassVar[bool] = False
    """Whether diffusers expects a safety checker beside it, or a word that there is none."""

    def __init__(
        self,
        parts: Mapping[str, Any],
        guidance_scale: float = 1.0,
        image_guidance_scale: float = 1.5,
        sampler: str | None = None,
    ) -> None:
        self.sampler = sampler or next(iter(self.samplers))
        if self.sampler not in self.samplers:
            raise ConfigError(f"{self.kind} has no sampler {sampler!r}; known are {', '.join(self.samplers)}")
        self.parts = dict(parts)
        self.guidance_scale = guidance_scale
        self.image_guidance_scale = image_guidance_scale
        for name in ("vae", *self.text_parts):
            self.parts[name].requires_grad_(False).eval()
        self.denoiser: Any = self.parts[self.denoiser_name].eval()
        self.vae = self.parts["vae"]

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def multiple(self) -> int:
        """What the side of a picture must be a multiple of."""
        return self.factor

    def shape(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of a square picture."""
        return int(self.vae.config.latent_channels), size // self.factor, size // self.factor

    def to(self, device: str) -> None:
        """Move everything."""
        self.denoiser.to(device)
        for name in ("vae", *self.text_parts):
            self.parts[name].to(device)

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type in which networks compute; latents and steps are float32 always."""
        return next(self.vae.parameters()).dtype

    @abstractmethod
    def encode(self, pictures: np.ndarray) -> torch.Tensor:
        """(n, H, W, 3) uint8 pictures as (n, C, h, w) float32 latents of the scale that is diffused."""

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """(n, H, W, 3) float32 in [0, 1] of clean latents."""

    @abstractmethod
    def conditions(self, pictures: np.ndarray, texts: Sequence[str]) -> Conditions:
        """What the denoiser is told of (n, H, W, 3) uint8 input pictures and texts. Texts are padded to one length always."""

    @abstractmethod
    def step(self, latents: torch.Tensor, told: Conditions, number: int, steps: int, noise: float) -> Step:
        """Denoising step ``number`` of ``steps`` as a distribution.

        Args:
            latents: (n, C, h, w) float32.
            told: of :meth:`conditions`.
            number: from 0; the last one, ``steps - 1``, makes no choice.
            noise: 0 is deterministic; else how noisy, in the scale of the kind.
        """

    @abstractmethod
    def supervised_loss(
        self, clean: torch.Tensor, told: Conditions, level: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of what the denoiser predicts: the loss that these models are pretrained with.

        Args:
            clean: (n, C, h, w) latents of true pictures.
            told: of :meth:`conditions`.
            level: (n,) in [0, 1), how noisy; 0 is least.
            noise: as ``clean``, normal.
        """

    def save(self, folder: Path) -> None:
        """Write a folder that diffusers and :func:`load_pipeline` read."""
        index: dict[str, Any] = {"_class_name": self.kind, "_diffusers_version": diffusers.__version__}
        for name, part in self.parts.items():
            part.save_pretrained(Path(folder) / name)
            library = "transformers" if type(part).__module__.startswith("transformers") else "diffusers"
            index[name] = [library, type(part).__name__]
        index |= {name: [None, None] for name in ("image_encoder", "feature_extractor", "safety_checker")}
        if self.safety_checked:
            index["requires_safety_checker"] = False
        else:
            index.pop("safety_checker")
        write_text(Path(folder) / "model_index.json", json.dumps(index, indent=2) + "\n")

    def _latents(self, pictures: np.ndarray) -> torch.Tensor:
        """The codec's own latents, without noise."""
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device).permute(0, 3, 1, 2)
        with torch.no_grad():
            found = self.vae.encode((pixels.float() / 127.5 - 1).to(self.dtype))
        return (found.latents if hasattr(found, "latents") else found.latent_dist.mode()).float()

    def _pixels(self, latents: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            pixels = self.vae.decode(latents.to(self.dtype), return_dict=False)[0].float()
        return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()

    def _ids(self, tokenizer: str, texts: Sequence[str], length: int) -> torch.Tensor:
        reader = self.parts[tokenizer]
        special = special_names(reader)
        found = reader(
            [as_words(text, special) for text in texts],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        return found.input_ids.to(self.device)
