"""What the folder of a vision-language model holds: its processor and its weights, or a sentence on what is missing or wrong there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from rsw_rewards.core.settings import Strict
from rsw_rewards.errors import ConfigError, RswError
from rsw_rewards.io.model_files import missing_model
from rsw_rewards.rollouts.images_once import prepare_once
from rsw_rewards.rollouts.weights import adapter_in, base_model, check_complete

_NOT_TEXT = re.compile(r"(image|video|vision|audio|boi|eoi).*token_(id|index)$")
"""Names under which configurations and processors keep the tokens that stand for pixels or sound, or enclose them."""

_PARTS: Mapping[str, Sequence[str]] = {
    "configuration": ("config.json", "adapter_config.json"),
    "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "image processor": ("processor_config.json", "preprocessor_config.json"),
}
"""Parts of a model by the names of their files, one of which will do."""


@contextmanager
def loading(what: str, path: str) -> Iterator[None]:
    """Turn an error into a sentence that names what cannot be loaded, from where, and what to do.

    Raises:
        ConfigError: instead of any error that is not such a sentence.
    """
    try:
        yield
    except RswError:
        raise
    except Exception as error:
        raise ConfigError(f"{what} cannot be loaded from {path!r}: {_why(path, error)}") from error


def _why(path: str, error: Exception) -> str:
    folder = Path(path)
    if folder.is_dir() and (lacks := missing_part(path)):
        return lacks
    for file in sorted(folder.glob("*.json")):
        if not _is_json(file):
            return f"its {file.name} is not valid JSON; copy it again from the base model"
    said = " ".join(str(error).split())[:300]
    if type(error).__name__ == "SafetensorError":
        return f"a file of its weights is damaged or was not downloaded whole ({said}); copy the *.safetensors again"
    if "ignore_mismatched_sizes" in said or "size mismatch" in said:
        return (
            "its weights have other shapes than its config.json says; copy config.json and *.safetensors from one model"
        )
    return said if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {said}"


def missing_part(path: str) -> str | None:
    """What a folder, or a name of the hub, lacks of a vision-language model, as a clause; None where nothing is known to be missing."""
    if (lacks := missing_model(path, _PARTS["configuration"])) and not Path(path).is_dir():
        return lacks
    for part, names in _PARTS.items() if Path(path).is_dir() else ():
        if missing_model(path, names):
            return f"it has no {part}; copy {names[-1] if part == 'image processor' else names[0]} of the base model"
    return None


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True


class LoraConfig(Strict):
    """Low-rank adapters (arXiv 2106.09685): the model stays as it is, and only these are trained and sent about."""

    r: PositiveInt = 16
    alpha: PositiveInt = 32
    target_modules: tuple[str, ...] | str = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Layers that get an adapter, by the end of their names, or one regular expression."""


def not_text(model: Any, processor: Any) -> list[int]:
    """Tokens that an answer cannot hold: those of images, and rows of the output matrix that no token belongs to."""
    config = base_model(model).config
    known = len(processor.tokenizer)
    size = base_model(model).get_output_embeddings().weight.shape[0]
    found = set(range(known, size))
    for source in (config, processor, processor.tokenizer):
        found |= {
            value
            for key, value in vars(source).items()
            if isinstance(value, int) and _NOT_TEXT.search(key) and 0 <= value < size
        }
    return sorted(found - {processor.tokenizer.eos_token_id})


def load_processor(path: str, limits: Mapping[str, int | None]) -> Any:
    """The processor in a folder, with a chat template; it pads on the left, and prepares an image once.

    Args:
        path: a folder, or the name of a model on the hub.
        limits: ``min_pixels`` and ``max_pixels`` of an image; None leaves the processor's own.

    Raises:
        ValueError: it is no processor of images and texts, takes no limits, or has no chat template.
    """
    from transformers import AutoProcessor

    given = {key: value for key, value in limits.items() if value is not None}
    processor = AutoProcessor.from_pretrained(path, **given)
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ValueError("it has no processor for images and text")
    for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        size = getattr(processor.image_processor, "size", None) or {}
        if key in given and given[key] not in (getattr(processor.image_processor, key, None), dict(size).get(edge)):
            raise ValueError(f"its image processor does not take {key!r}; leave that out")
    if processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template
    if processor.chat_template is None:
        raise ValueError("it has no chat template; copy chat_template.jinja of the base model")
    processor.tokenizer.padding_side = "left"  # completions stand on the right of every prompt of a batch
    prepare_once(processor.image_processor)
    return processor


def complete_tokens(tokenizer: Any, ends: int | Sequence[int] | None) -> None:
    """Give a tokenizer the end and the padding that it lacks.

    Args:
        tokenizer: a transformers tokenizer.
        ends: ``eos_token_id`` of the model's generation configuration.

    Raises:
        ValueError: neither of them names an end.
    """
    listed = [ends] if isinstance(ends, int) else list(ends or ())
    if tokenizer.eos_token is None and listed:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(listed[0])
    if tokenizer.eos_token is None:
        raise ValueError("it has no token that ends an answer; give eos_token in tokenizer_config.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def load_model(path: str, dtype: str, attn: str | None, lora: LoraConfig | None, new: Sequence[int]) -> Any:
    """The model in a folder, or the adapter in it and the model that it sits on.

    Args:
        path: a folder, or the name of a model on the hub.
        dtype, attn: of the weights, and the implementation of attention.
        lora: adapters that a model without any is given.
        new: tokens whose embeddings are trained along with these adapters.

    Raises:
        ValueError: the files hold fewer weights than the model has, or the model of an adapter is not there.
        ConfigError: ``lora`` is given for a folder that holds an adapter.
    """
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    adapter = adapter_in(path, lora)
    start = path
    if adapter:
        from peft import PeftConfig

        start = PeftConfig.from_pretrained(path).base_model_name_or_path or ""
        if not start or (Path(start).is_absolute() and not Path(start).is_dir()):
            raise ValueError(
                f"its adapter is of the model {start!r}, which is not there; correct base_model_name_or_path in adapter_config.json"
            )
        if Path(path).is_dir() and not any(Path(path).glob("adapter_model.*")):
            raise ValueError("it has no weights of its adapter; copy adapter_model.safetensors of the trained adapter")
    given = {} if attn is None else {"attn_implementation": attn}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(start, dtype=dtype, output_loading_info=True, **given)
    model, found = loaded
    check_complete(found)
    shipped = model.generation_config
    # A checkpoint's own top-k, penalties and the like would sample from another distribution than the one that is trained.
    model.generation_config = GenerationConfig(
        eos_token_id=shipped.eos_token_id, pad_token_id=shipped.pad_token_id, bos_token_id=shipped.bos_token_id
    )
    if adapter:
        from peft import PeftModel

        return PeftModel.from_pretrained(model, path, is_trainable=True)
    if lora is None:
        return model
    from peft import LoraConfig as Adapters
    from peft import get_peft_model

    # peft lets a tied output matrix follow the embeddings by itself.
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    rows = {name: list(new) for name in (["embed_tokens"] if tied else ["embed_tokens", "lm_head"])} if new else None
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same start in every process and run
        return get_peft_model(
            model, Adapters(r=lora.r, lora_alpha=lora.alpha, target_modules=targets, trainable_token_indices=rows)
        )
