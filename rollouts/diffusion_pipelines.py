"""The two kinds of diffusers pipelines that make a picture of a picture and a text, taken apart for reinforcement learning.

Components are loaded by classes that are named here, not by those that a downloaded file names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
import transformers

from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.diffusion_base import Conditions, DiffusionPipeline
from rsw_rewards.rollouts.diffusion_steps import Step, cps_step, dance_step, ddim_step, flow_step
from rsw_rewards.rollouts.weights import check_complete


class Pix2Pix(DiffusionPipeline):
    """InstructPix2Pix (arXiv 2211.09800): a UNet that sees the input picture's latents in further channels, DDIM steps.

    Guidance is on where ``guidance_scale`` is above 1 (and the picture's at least 1): three passes of the UNet a step, in sampling
    and in learning. ``noise`` of a step is DDIM's eta. Latents are not clipped, whatever the scheduler's file says.
    """

    kind = "StableDiffusionInstructPix2PixPipeline"
    denoiser_name = "unet"
    text_parts: ClassVar = {"text_encoder": ("CLIPTextModel", "tokenizer")}
    samplers: ClassVar = {"ddim": 1.0}
    safety_checked = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Whatever sampler the folder names: they share the noise levels, and only DDIM's step has the density needed here.
        # Steps are counted from the noisiest level (arXiv 2305.08891). Counted from the cleanest, as usual, the last step but one
        # ends next to the clean picture: it has hardly any noise, and its huge densities drown the gradient of all others.
        self.parts["scheduler"] = diffusers.DDIMScheduler.from_config(
            self.parts["scheduler"].config, timestep_spacing="trailing", steps_offset=0
        )
        self.predicts = self.parts["scheduler"].config.prediction_type
        if self.predicts not in ("epsilon", "v_prediction"):
            raise ConfigError(
                f"the scheduler's prediction_type is {self.predicts!r}; epsilon and v_prediction are known"
            )

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on."""
        return self.guidance_scale > 1 and self.image_guidance_scale >= 1

    def encode(self, pictures: np.ndarray) -> torch.Tensor:
        return self._latents(pictures) * self.vae.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return self._pixels(latents / self.vae.config.scaling_factor)

    def conditions(self, pictures: np.ndarray, texts: Sequence[str]) -> Conditions:
        told = {"picture": self._latents(pictures), "text": self._embedded(texts)}
        if self.guided:
            told["empty"] = self._embedded([""]).expand_as(told["text"])
        return told

    def _embedded(self, texts: Sequence[str]) -> torch.Tensor:
        ids = self._ids("tokenizer", texts, self.parts["tokenizer"].model_max_length)
        with torch.no_grad():
            return self.parts["text_encoder"](ids)[0].float()

    @lru_cache(maxsize=8)  # noqa: B019  (a pipeline lives as long as its process)
    def levels(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(steps,) timesteps and (steps + 1,) products of ``1 - beta``, on the CPU."""
        scheduler = self.parts["scheduler"]
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps.clone()
        return times, torch.cat([scheduler.alphas_cumprod[times], scheduler.final_alpha_cumprod.reshape(1)])

    def step(self, latents: torch.Tensor, told: Conditions, number: int, steps: int, noise: float) -> Step:
        times, alphas = self.levels(steps)
        now, after = alphas[number].to(latents.device), alphas[number + 1].to(latents.device)
        predicted = self._predicted(latents, told, times[number].expand(len(latents)), self.guided)
        if self.predicts == "v_prediction":
            predicted = now.sqrt() * predicted + (1 - now).sqrt() * latents
        return ddim_step(latents, predicted, now, after, noise if number < steps - 1 else 0.0)

    def _predicted(self, latents: torch.Tensor, told: Conditions, times: torch.Tensor, guided: bool) -> torch.Tensor:
        """What the UNet says, with or without guidance, as float32."""
        picture, text = told["picture"], told["text"]
        many = 3 if guided else 1
        if guided:
            picture, text = torch.cat([picture, picture, 0 * picture]), torch.cat([text, told["empty"], told["empty"]])
        given = torch.cat([torch.cat([latents] * many), picture], 1).to(self.dtype)
        found = self.denoiser(
            given, times.to(latents.device).repeat(many), encoder_hidden_states=text.to(self.dtype)
        ).sample.float()
        if not guided:
            return found
        full, picture_only, nothing = found.chunk(3)
        by_text = self.guidance_scale * (full - picture_only)
        return nothing + by_text + self.image_guidance_scale * (picture_only - nothing)

    def supervised_loss(
        self, clean: torch.Tensor, told: Conditions, level: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        alphas = self.parts["scheduler"].alphas_cumprod
        times = (level.cpu() * len(alphas)).long()
        alpha = alphas[times].to(clean.device).reshape(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = noise if self.predicts == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        return (self._predicted(noisy, told, times, guided=False) - target).square().mean()


class Kontext(DiffusionPipeline):
    """FLUX.1 Kontext (arXiv 2506.15742): a transformer that reads the input picture's latents as further tokens, flow matching.

    ``guidance_scale`` is what the distilled transformer is told; there is no second pass, and ``image_guidance_scale`` has no meaning
    here. Samplers: ``sde`` of Flow-GRPO (``noise`` is its level ``a``), ``dance`` of DanceGRPO (its ``eta``) and ``cps`` of Flow-CPS (its
    ``eta``, at most 1).
    """

    kind = "FluxKontextPipeline"
    denoiser_name = "transformer"
    text_parts: ClassVar = {
        "text_encoder": ("CLIPTextModel", "tokenizer"),
        "text_encoder_2": ("T5EncoderModel", "tokenizer_2"),
    }
    samplers: ClassVar = {"sde": 0.7, "dance": 0.3, "cps": 0.8}
    longest_text = 512
    """Tokens that the second text encoder is given at most."""

    @property
    def multiple(self) -> int:
        return 2 * self.factor  # tokens are 2 x 2 latents

    def encode(self, pictures: np.ndarray) -> torch.Tensor:
        return (self._latents(pictures) - self._shift) * self.vae.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return self._pixels(latents / self.vae.config.scaling_factor + self._shift)

    @property
    def _shift(self) -> float:
        return float(self.vae.config.shift_factor or 0.0)

    def conditions(self, pictures: np.ndarray, texts: Sequence[str]) -> Conditions:
        words = self._ids("tokenizer", texts, self.parts["tokenizer"].model_max_length)
        longest = min(self.longest_text, self.parts["tokenizer_2"].model_max_length)
        with torch.no_grad():
            pooled = self.parts["text_encoder"](words).pooler_output.float()
            text = self.parts["text_encoder_2"](self._ids("tokenizer_2", texts, longest))[0].float()
        return {"picture": pack(self.encode(pictures)), "text": text, "pooled": pooled}

    @lru_cache(maxsize=8)  # noqa: B019  (a pipeline lives as long as its process)
    def levels(self, steps: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(steps,) timesteps and (steps + 1,) noise levels for pictures of so many tokens, on the CPU."""
        scheduler = self.parts["scheduler"]
        known = scheduler.config
        low, high = known.get("base_image_seq_len", 256), known.get("max_image_seq_len", 4096)
        least, most = known.get("base_shift", 0.5), known.get("max_shift", 1.15)
        shift = least + (tokens - low) * (most - least) / (high - low)  # larger pictures need more noise
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
        return scheduler.timesteps.clone(), scheduler.sigmas.clone()

    def step(self, latents: torch.Tensor, told: Conditions, number: int, steps: int, noise: float) -> Step:
        times, sigmas = self.levels(steps, latents.shape[2] * latents.shape[3] // 4)
        velocity = self._velocity(latents, told, (times[number] / 1000).expand(len(latents)))
        now, after = sigmas[number].to(latents.device), sigmas[number + 1].to(latents.device)
        level = noise if number < steps - 1 else 0.0
        if self.sampler == "sde":
            return flow_step(latents, velocity, now, after, level, float(sigmas[1]))
        return (cps_step if self.sampler == "cps" else dance_step)(latents, velocity, now, after, level)

    def _velocity(self, latents: torch.Tensor, told: Conditions, sigma: torch.Tensor) -> torch.Tensor:
        height, width = latents.shape[2:]
        own = pack(latents)
        places = [_places(height // 2, width // 2, stream) for stream in (0, 1)]
        guidance = torch.full((len(latents),), self.guidance_scale, device=latents.device)
        found = self.denoiser(
            hidden_states=torch.cat([own, told["picture"]], 1).to(self.dtype),
            timestep=sigma.to(latents.device).to(self.dtype),
            guidance=guidance if self.denoiser.config.guidance_embeds else None,
            pooled_projections=told["pooled"].to(self.dtype),
            encoder_hidden_states=told["text"].to(self.dtype),
            txt_ids=torch.zeros(told["text"].shape[1], 3, device=latents.device, dtype=self.dtype),
            img_ids=torch.cat(places).to(latents.device, self.dtype),
            return_dict=False,
        )[0]
        return unpack(found[:, : own.shape[1]].float(), height, width)

    def supervised_loss(
        self, clean: torch.Tensor, told: Conditions, level: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        sigma = (level * 0.999 + 0.001).clamp(max=1.0)  # without noise there is no velocity to learn
        by_row = sigma.reshape(-1, 1, 1, 1)
        noisy = (1 - by_row) * clean + by_row * noise
        return (self._velocity(noisy, told, sigma) - (noise - clean)).square().mean()


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(n, C, h, w) latents as (n, h w / 4, 4 C) tokens, each 2 x 2 latents."""
    rows, channels, height, width = latents.shape
    cells = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(rows, height * width // 4, 4 * channels)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo :func:`pack`."""
    cells = tokens.reshape(len(tokens), height // 2, width // 2, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(len(tokens), -1, height, width)


def _places(height: int, width: int, stream: int) -> torch.Tensor:
    """(height x width, 3) positions of tokens: stream (0 the picture to be made, 1 the one given), row, column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.full_like(rows, stream), rows, columns], -1).reshape(-1, 3).float()


KINDS: Mapping[str, type[DiffusionPipeline]] = {kind.kind: kind for kind in (Pix2Pix, Kontext)}
"""Pipelines that can be used, by their class in diffusers."""


def load_pipeline(folder: Path, dtype: str = "float32", **settings: Any) -> DiffusionPipeline:
    """Load a pipeline folder on the CPU.

    Args:
        folder: as diffusers' ``save_pretrained`` and ``hf download`` write it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        settings: ``guidance_scale``, ``image_guidance_scale``, ``sampler``.

    Raises:
        ConfigError: no such folder, another kind of pipeline or sampler, or parts that cannot be loaded.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is not the folder of a diffusers pipeline (model_index.json: {error})") from error
    name = str(index.get("_class_name")) if isinstance(index, dict) else ""
    if name not in KINDS:
        raise ConfigError(f"{folder} holds a {name!r}; pipelines that can be used are {', '.join(KINDS)}")
    try:
        parts = _parts(KINDS[name], folder, index, dtype)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    return KINDS[name](parts, **settings)


def _parts(kind: type[DiffusionPipeline], folder: Path, index: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    transformers.utils.logging.disable_progress_bar()  # a bar per part
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()  # of keys that it wrote itself and does not expect
    number = getattr(torch, dtype)
    codecs = ("AutoencoderKL", "AutoencoderTiny")
    codec = index["vae"][1]
    if codec not in codecs:
        raise ConfigError(f"{folder}: the vae is a {codec!r}; known are {', '.join(codecs)}")
    denoisers = {"unet": "UNet2DConditionModel", "transformer": "FluxTransformer2DModel"}

    def whole(made: Any, name: str, **dtype: Any) -> Any:
        model, found = made.from_pretrained(str(folder / name), use_safetensors=True, output_loading_info=True, **dtype)
        check_complete(found)
        return model

    parts: dict[str, Any] = {
        "vae": whole(getattr(diffusers, codec), "vae", torch_dtype=number),
        kind.denoiser_name: whole(
            getattr(diffusers, denoisers[kind.denoiser_name]), kind.denoiser_name, torch_dtype=number
        ),
    }
    for name, (encoder, tokenizer) in kind.text_parts.items():
        parts[name] = whole(getattr(transformers, encoder), name, dtype=number)
        parts[tokenizer] = transformers.AutoTokenizer.from_pretrained(folder / tokenizer)
    flow = kind.denoiser_name == "transformer"
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDIMScheduler
    parts["scheduler"] = scheduler.from_pretrained(folder / "scheduler")
    return parts
