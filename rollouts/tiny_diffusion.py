"""Tiny diffusion pipelines of real architectures with random weights: for tests, smoke runs and studies of the machinery.

Their denoisers and text encoders are small versions of the published ones. The picture codec is a linear map that is set by hand, one
latent a pixel: there is nothing to pretrain, and pictures come back as they went in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase, T5Config, T5EncoderModel

from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.diffusion_base import DiffusionPipeline
from rsw_rewards.rollouts.diffusion_pipelines import Kontext, Pix2Pix
from rsw_rewards.rollouts.tiny import kept_folder
from rsw_rewards.rollouts.tiny_vlm import tiny_tokenizer

WORDS = 48
"""Tokens of every text, padding included."""
_TEXTS = (
    "nothing changes", "new buildings appear", "a building is removed", "the forest is cleared", "the field is flooded",
    "a road is built", "the picture gets brighter", "the picture gets darker",
)  # fmt: skip
_SCALE = 8.0
"""Brings the codec's latents to a standard deviation near 1."""


def _tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer(_TEXTS * 20, 340)
    tokenizer.padding_side, tokenizer.model_max_length = "right", WORDS
    return tokenizer


def _clip(tokenizer: PreTrainedTokenizerBase) -> Any:
    end = tokenizer.pad_token_id  # the pooled text is what stands at the first padding
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=WORDS, bos_token_id=1, eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip


def _codec() -> Any:
    """Three channels are (red, green, blue) / 2, centred; the fourth is their mean, which decoding ignores."""
    codec: Any = AutoencoderTiny(
        encoder_block_out_channels=(4,), decoder_block_out_channels=(4,), num_encoder_blocks=(0,),
        num_decoder_blocks=(0,), latent_channels=4, scaling_factor=_SCALE,
    )  # fmt: skip
    first, last = codec.encoder.layers
    entry, _, leave = codec.decoder.layers
    with torch.no_grad():
        for weight in codec.parameters():
            weight.zero_()
        for colour in range(3):
            first.weight[colour, colour, 1, 1] = 0.5
            first.weight[3, colour, 1, 1] = 0.5 / 3
            leave.weight[colour, colour, 1, 1] = 2.0
        for channel in range(4):
            last.weight[channel, channel, 1, 1] = 1.0
            entry.weight[channel, channel, 1, 1] = 1.0
        first.bias.fill_(-0.25)
        entry.bias.fill_(1.0)  # keeps the rectifier out of the way
        leave.bias.fill_(0.5 - 2.0)
    return codec


def _instruct_pix2pix(tokenizer: PreTrainedTokenizerBase) -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=8, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        attention_head_dim=8, norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    return Pix2Pix(
        {
            "vae": _codec(),
            "text_encoder": _clip(tokenizer),
            "tokenizer": tokenizer,
            "unet": unet,
            "scheduler": scheduler,
        }
    )


def _flux_kontext(tokenizer: PreTrainedTokenizerBase) -> DiffusionPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    second = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    )
    return Kontext(
        {
            "vae": _codec(),
            "text_encoder": _clip(tokenizer),
            "tokenizer": tokenizer,
            "text_encoder_2": second,
            "tokenizer_2": tokenizer,
            "transformer": transformer,
            "scheduler": FlowMatchEulerDiscreteScheduler(),
        }
    )


PIPELINES: Mapping[str, Callable[[PreTrainedTokenizerBase], DiffusionPipeline]] = {
    "instruct_pix2pix": _instruct_pix2pix,
    "flux_kontext": _flux_kontext,
}
"""Pipelines by the name that follows :data:`rsw_rewards.rollouts.tiny.PREFIX`."""


def build_tiny(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny pipeline with random weights into ``folder``, and return it. The same name and seed give the same weights.

    Raises:
        ConfigError: no pipeline of that name.
    """
    if name not in PIPELINES:
        raise ConfigError(f"there is no tiny pipeline {name!r}; known are {', '.join(PIPELINES)}")
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = PIPELINES[name](tokenizer)
    Path(folder).mkdir(parents=True, exist_ok=True)
    pipeline.save(folder)
    return Path(folder)


def tiny_folder(name: str) -> Path:
    """The folder of a tiny pipeline in the temporary directory, built when it is first asked for.

    Several processes may ask at once: the folder appears whole.

    Raises:
        ConfigError: no pipeline of that name.
    """
    return kept_folder(name, PIPELINES, __file__, diffusers.__version__, build_tiny)
