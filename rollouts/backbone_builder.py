"""Makes a world model of a vision-language model and a visual tokenizer: more tokens, sensible first embeddings, one folder.

build_world_model("Qwen/Qwen3-VL-2B-Instruct", "models/kandinsky/movq", Path("models/rs_worldmodel"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts import backbone_vocabulary, movq, tiny_vlm
from rsw_rewards.rollouts.backbone_vocabulary import BackboneVocabulary, added_tokens
from rsw_rewards.rollouts.movq import MovqTokenizer, file_hash, load_movq, tiny_movq
from rsw_rewards.rollouts.tiny import PREFIX, kept_folder
from rsw_rewards.rollouts.tiny_vlm import MODELS, tiny_folder
from rsw_rewards.rollouts.vlm_files import load_processor, loading

CODEC = "picture_tokenizer"
"""Subfolder of a world model that holds its visual tokenizer."""
_TINY_SIDE = 32
_NAMES_SPREAD = 0.1
"""Spread of the first embeddings of metadata and structure, as a share of that of the backbone's own."""
_OWN_SHARE = 0.5
"""Share of a code's first embedding, in variance, that it does not have in common with similar codes."""


def build_world_model(backbone: str, tokenizer: str, out: Path, side: int = 256, seed: int = 0) -> BackboneVocabulary:
    """Extend a backbone by the tokens of pictures and metadata, and write the world model to ``out``.

    Args:
        backbone: folder or hub name of an image-text-to-text model (Qwen2.5-VL, Qwen3-VL), or ``tiny:qwen3_vl`` and the like.
        tokenizer: folder of a diffusers VQModel with safetensors, or ``tiny:movq``.
        out: the folder; it gets the model, its processor, the visual tokenizer and ``world_model.json``.
        side: side in pixels of the pictures that are coded.
        seed: of the random part of the new embeddings.

    Raises:
        ConfigError: one of the two cannot be loaded, is a world model already, or ``side`` does not fit the visual tokenizer.
    """
    codec = tiny_movq() if tokenizer == f"{PREFIX}movq" else load_movq(tokenizer)
    try:
        grid = codec.grid(side, side)
    except ValueError as error:
        raise ConfigError(f"side: {error}") from None
    model, processor = _load(backbone)
    names = added_tokens(codec.codes)
    words = processor.tokenizer
    if known := set(names) & set(words.get_vocab()):
        raise ConfigError(
            f"the backbone {backbone!r} has the token {min(known)} already, so it is a world model; give one that is none"
        )
    first = len(words)
    words.add_tokens(names, special_tokens=True)
    vocabulary = BackboneVocabulary(first, codec.codes, side, grid, {}, {"backbone": backbone, "tokenizer": tokenizer})
    if words.convert_tokens_to_ids(names[-1]) != vocabulary.last - 1:
        raise ConfigError(
            f"the tokenizer of {backbone!r} does not number new tokens from {first} on; it cannot be extended"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if vocabulary.last > rows:
        model.resize_token_embeddings(vocabulary.last, pad_to_multiple_of=64, mean_resizing=False)
    for layer in _matrices(model):
        start_rows(layer, vocabulary, codec.codebook.cpu(), seed)
    save_world_model(out, model, processor, vocabulary, codec)
    return vocabulary


def save_world_model(
    out: Path, model: Any, processor: Any, vocabulary: BackboneVocabulary, codec: MovqTokenizer
) -> None:
    """Write the folder of a world model; ``world_model.json`` comes last and names the sha256 of every file of weights."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out, safe_serialization=True)
    processor.save_pretrained(out)
    codec.save(out / CODEC)
    weights = sorted([*out.glob("*.safetensors"), *(out / CODEC).glob("*.safetensors")])
    hashes = {str(path.relative_to(out)): file_hash(path) for path in weights}
    BackboneVocabulary(
        vocabulary.first, vocabulary.codes, vocabulary.side, vocabulary.grid, hashes, vocabulary.origin
    ).save(out)


def load_codec(folder: Path, vocabulary: BackboneVocabulary, device: str) -> MovqTokenizer:
    """The visual tokenizer of a world model. Raises :class:`ConfigError` where it is not the one the model was built with."""
    codec = load_movq(folder / CODEC, device, vocabulary.sha256.get(f"{CODEC}/{movq.WEIGHTS}"))
    if codec.codes != vocabulary.codes or codec.grid(vocabulary.side, vocabulary.side) != vocabulary.grid:
        raise ConfigError(
            f"{folder}: the visual tokenizer has {codec.codes} codes in a grid of {codec.grid(vocabulary.side, vocabulary.side)}, but the model "
            f"was built for {vocabulary.codes} in {vocabulary.grid}; put the tokenizer back that it was built with, or build again"
        )
    return codec


def start_rows(weight: Tensor, vocabulary: BackboneVocabulary, codebook: Tensor, seed: int) -> None:
    """Give the added rows of an embedding or output matrix their first values, in place.

    All are drawn with the mean and covariance of the backbone's own rows, which are what its layers are used to (Hewitt 2021, "Initializing
    New Word Embeddings for Pretrained Language Models"). Names of metadata stay near the mean. Codes are spread as widely
    as words, since they never compete with words for probability, and half of their spread is a random projection of the codebook:
    similar codes start alike, so that what is learnt of one holds for its neighbours.

    Args:
        weight: (rows, width), of any dtype.
        vocabulary: says which rows are new.
        codebook: (codes, dim).
        seed: of the random parts.
    """
    generator = torch.Generator().manual_seed(seed)
    own = weight.data[: vocabulary.first].float().cpu()
    mean = own.mean(0)
    covariance = ((own - mean).T @ (own - mean) / len(own)).double()
    jitter = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance + jitter).float()
    drawn = torch.randn(vocabulary.last - vocabulary.first, len(mean), generator=generator)
    drawn[: -vocabulary.codes] *= _NAMES_SPREAD
    vectors = codebook.float() - codebook.float().mean(0)
    vectors = vectors / vectors.std(0).clamp(min=1e-12)
    projection = torch.randn(vectors.shape[1], len(mean), generator=generator) / vectors.shape[1] ** 0.5
    drawn[-vocabulary.codes :] *= _OWN_SHARE**0.5
    drawn[-vocabulary.codes :] += (1 - _OWN_SHARE) ** 0.5 * vectors @ projection
    rows = mean + drawn @ factor.T
    weight.data[vocabulary.first : vocabulary.last] = rows.to(weight.device, weight.dtype)


def _matrices(model: Any) -> list[Tensor]:
    """Embedding and output matrix: one where they are tied."""
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return [inputs] if outputs is inputs else [inputs, outputs]


def _load(backbone: str) -> tuple[Any, Any]:
    logging.disable_progress_bar()
    path = str(tiny_folder(backbone.removeprefix(PREFIX))) if backbone.startswith(PREFIX) else backbone
    with loading("the backbone", path):
        processor = load_processor(path, {})
        return AutoModelForImageTextToText.from_pretrained(path, dtype="auto"), processor


def tiny_world_folder(name: str) -> Path:
    """The folder of a tiny world model on the backbone ``name``, built when it is first asked for; pictures have 32 x 32 pixels.

    Raises:
        ConfigError: no architecture of that name.
    """
    parts = [file_hash(Path(str(module.__file__))) for module in (backbone_vocabulary, movq, tiny_vlm)]
    version = "".join([transformers.__version__, diffusers.__version__, *parts])

    def build(name: str, folder: Path) -> None:
        build_world_model(f"{PREFIX}{name.removeprefix('world-')}", f"{PREFIX}movq", folder, _TINY_SIDE)

    return kept_folder(f"world-{name}", [f"world-{known}" for known in MODELS], __file__, version, build)
