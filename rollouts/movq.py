"""A VQModel of diffusers as visual tokenizer: VQGAN, or MoVQ (arXiv 2209.09002), whose decoder is modulated by the codes.

MoVQGAN's published weights have 16,384 codes of 4 numbers, one for 8 x 8 pixels (``ai-forever/MoVQGAN``, and in diffusers' format the
folder ``movq`` of ``kandinsky-community/kandinsky-2-1``); a picture of 256 x 256 pixels is then 1,024 codes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.visual_tokenizer import PictureCodec

if TYPE_CHECKING:
    from diffusers import VQModel

WEIGHTS = "diffusion_pytorch_model.safetensors"


class MovqTokenizer(PictureCodec):
    """Pictures to codes and back with a VQModel, in evaluation mode and float32.

    Args:
        model: any VQModel for RGB pictures in [-1, 1].
    """

    def __init__(self, model: VQModel) -> None:
        self.model = cast(Any, model)  # diffusers' classes have no types
        self.model.eval().requires_grad_(False)
        self.stride = 2 ** (len(self.model.config.block_out_channels) - 1)

    @property
    def codebook(self) -> Tensor:  # type: ignore[override]
        """(codes, length of a code vector) float32."""
        return self.model.quantize.embedding.weight

    def to(self, device: str | torch.device) -> MovqTokenizer:
        """Moves the weights."""
        self.model.to(device)
        return self

    def coded(self, x: Tensor) -> Tensor:
        found: Tensor = self.model.quantize(self.model.encode(2 * x).latents)[2][2]
        return found

    def drawn(self, vectors: Tensor) -> Tensor:
        # Not the model's own decode, which would look for the nearest codes again or, by its configuration, take indices.
        modulation = vectors if self.model.config.norm_type == "spatial" else None
        found: Tensor = self.model.decoder(self.model.post_quant_conv(vectors), modulation) / 2
        return found

    def save(self, folder: Path | str) -> None:
        """Writes what :func:`load_movq` reads, as safetensors."""
        self.model.save_pretrained(folder, safe_serialization=True)


def load_movq(folder: Path | str, device: str | torch.device = "cpu", sha256: str | None = None) -> MovqTokenizer:
    """Reads a VQModel that diffusers wrote.

    Args:
        folder: with ``config.json`` and safetensors, or with these in its subfolder ``movq``.
        device: where it shall run.
        sha256: of the weights, if they must be certain ones.

    Raises:
        ConfigError: no VQModel is there, its weights are damaged or others, or it is not for RGB pictures.
    """
    from diffusers import VQModel
    from diffusers.utils import logging

    folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "movq" / "config.json").is_file():
        folder = folder / "movq"
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no visual tokenizer (config.json is missing); give the folder of a VQModel that diffusers saved"
        )
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{folder} holds no {WEIGHTS}; the weights of a visual tokenizer must be safetensors")
    if sha256 is not None and (found := file_hash(folder / WEIGHTS)) != sha256:
        raise ConfigError(
            f"{folder / WEIGHTS} is damaged or another file (sha256 {found[:12]}, expected {sha256[:12]}); "
            "copy it again from where the world model was built"
        )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a warning about keys comes before the error that says the same
    try:
        # Without accelerate's way of loading, weights that are missing or of another shape are errors.
        model, told = VQModel.from_pretrained(
            str(folder), use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # whatever a damaged file makes of it
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"the visual tokenizer {folder} cannot be read; copy it again or correct its config.json: {reason}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    if missing := told["missing_keys"]:
        raise ConfigError(
            f"{folder / WEIGHTS} lacks {len(missing)} weights of its config.json, {sorted(missing)[0]} among them; copy it again"
        )
    if model.config.in_channels != 3 or model.config.out_channels != 3:
        raise ConfigError(f"the visual tokenizer {folder} is not for RGB images, which have 3 channels")
    return MovqTokenizer(model.float()).to(device)


def file_hash(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with Path(os.fspath(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tiny_movq(seed: int = 0, codes: int = 64) -> MovqTokenizer:
    """A MoVQ of the published architecture with random weights: one code for 8 x 8 pixels, half a million parameters."""
    from diffusers import VQModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 32, 32, 32),  # spatial normalisation has 32 groups
            norm_num_groups=32,
            latent_channels=4,
            vq_embed_dim=4,
            num_vq_embeddings=codes,
            norm_type="spatial",
        )
        # Codes among the encoder's own outputs, else one or two of them would stand for everything.
        latents = model.eval().encode(2 * torch.rand(codes, 3, 64, 64).pow(3) - 1).latents.detach()
        model.quantize.embedding.weight.data = latents.permute(0, 2, 3, 1).flatten(0, 2)[:: 64 + 1][:codes].clone()
    return MovqTokenizer(model)
