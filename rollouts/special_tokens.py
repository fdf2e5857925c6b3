"""What the chat template and the tokenizer of a model make of a request: words stay words, and reasoning may be opened for the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rsw_rewards.core.answer import is_reasoning_tag


def special_names(tokenizer: Any, processor: Any = None) -> tuple[str, ...]:
    """Names of the tokens that stand for no words: ends, roles, and places of pictures. A name of one character is a word.

    Args:
        tokenizer: a transformers tokenizer.
        processor: the processor that it belongs to; it may know names of its own, such as ``image_token``.
    """
    found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found |= set(tokenizer.all_special_tokens)
    for source in (tokenizer, processor):
        known = vars(source) if source is not None else {}
        found |= {value for key, value in known.items() if key.endswith("_token") and isinstance(value, str)}
    return tuple(sorted(name for name in found if len(name) > 1))


def as_words(text: str, names: Iterable[str]) -> str:
    """A text in which names of special tokens are words: a blank stands behind the first character of each.

    >>> as_words("<|image_pad|> is it wet?", ["<|image_pad|>", "<|im_end|>"])
    '< |image_pad|> is it wet?'
    """
    names = [name for name in names if name in text]
    while before := [name for name in names if name in text]:
        for name in before:
            text = text.replace(name, f"{name[0]} {name[1:]}")
    return text


def hidden_ids(tokenizer: Any) -> frozenset[int]:
    """Special tokens that are no part of a text. Tags of reasoning are one: without them reasoning would read as an answer."""
    known = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = sorted(known | set(tokenizer.all_special_ids))
    names = tokenizer.convert_ids_to_tokens(ids)
    return frozenset(number for number, name in zip(ids, names, strict=True) if not is_reasoning_tag(name))
