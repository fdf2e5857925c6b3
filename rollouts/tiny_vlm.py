"""Tiny vision-language models of real architectures with random weights: for tests, smoke runs and studies of the machinery.

They have everything a downloaded model has (configuration, weights, byte-level BPE tokenizer, image processor, chat template) in a
folder that ``AutoModelForImageTextToText`` and ``AutoProcessor`` load, and less than a million parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.tiny import kept_folder

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_TURN = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
_WIDTH, _EYE = 64, 64
"""Hidden sizes of the language model and of the vision tower."""


def tiny_tokenizer(texts: Iterable[str] | None = None, size: int = 420) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with the special tokens of Qwen's models.

    Args:
        texts: what its merges are learnt from; questions and answers of the scene world where left out.
        size: tokens in all; 256 of them are bytes, so that any text can be written.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_scene_texts() if texts is None else texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        additional_special_tokens=["<|im_start|>", *_SPECIAL[3:]],
    )


def _scene_texts() -> list[str]:
    samples = scene_world_samples(150, 0, split="supervised", tasks=("change_qa",))
    asked = [f"{sample.prompt}\n{sample.reference['answers'][0]}" for sample in samples]
    return [*asked, *["system", "user", "assistant", "yes", "no", "did a bright square appear?"] * 40]


def _token(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    return lambda token: int(tokenizer.convert_tokens_to_ids(token))  # type: ignore[arg-type]


def _vision_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    token = _token(tokenizer)
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }


def _text_config(tokenizer: PreTrainedTokenizerBase, rope: Mapping[str, Any]) -> dict[str, Any]:
    token = _token(tokenizer)
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], **rope},
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }


def _qwen2_5_vl(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, ProcessorMixin]:
    config = Qwen2_5_VLConfig(
        text_config=_text_config(tokenizer, {}),
        vision_config={
            "depth": 2, "hidden_size": _EYE, "intermediate_size": 2 * _EYE, "num_heads": 2, "out_hidden_size": _WIDTH,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1], "in_channels": 3,
        },
        tie_word_embeddings=True,
        **_vision_tokens(tokenizer),
    )  # fmt: skip
    images = Qwen2VLImageProcessor(patch_size=14, min_pixels=56 * 56, max_pixels=56 * 56)
    processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=_TURN)
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_vl(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, ProcessorMixin]:
    config = Qwen3VLConfig(
        text_config={**_text_config(tokenizer, {"mrope_interleaved": True}), "head_dim": _WIDTH // 4},
        vision_config={
            "depth": 2, "hidden_size": _EYE, "intermediate_size": 2 * _EYE, "num_heads": 2, "out_hidden_size": _WIDTH,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1], "in_channels": 3,
        },
        tie_word_embeddings=True,
        **_vision_tokens(tokenizer),
    )  # fmt: skip
    images = Qwen2VLImageProcessor(
        patch_size=16, min_pixels=64 * 64, max_pixels=64 * 64, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor = Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=_TURN)
    return Qwen3VLForConditionalGeneration(config), processor


MODELS: Mapping[str, Callable[[PreTrainedTokenizerBase], tuple[PreTrainedModel, ProcessorMixin]]] = {
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}
"""Architectures by the name that follows :data:`rsw_rewards.rollouts.tiny.PREFIX`."""


def build_tiny(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny model of the architecture ``name`` with random weights into ``folder``, and return it.

    The same name and seed give the same files. The global state of torch's random numbers is left as it was.

    Raises:
        ConfigError: no architecture of that name.
    """
    if name not in MODELS:
        raise ConfigError(f"there is no tiny model {name!r}; known are {', '.join(MODELS)}")
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = MODELS[name](tokenizer)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.pad_token_id
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_folder(name: str) -> Path:
    """The folder of a tiny model in the temporary directory, built when it is first asked for.

    Several processes may ask at once: the folder appears whole.

    Raises:
        ConfigError: no architecture of that name.
    """
    return kept_folder(name, MODELS, __file__, transformers.__version__, build_tiny)
