"""What verifiers of captions share: reference captions, whether they speak of a change, and tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from rsw_rewards.core.per_sample import T
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.verifier import Context
from rsw_rewards.data.captioned import NO_CHANGE
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.answers import plain_truths, texts_of
from rsw_rewards.verifiers.caption_tokens import TextTooLong, Tokens, load_word_map, make_tokeniser, pieces, ptb
from rsw_rewards.verifiers.ngrams import ReferenceSet
from rsw_rewards.verifiers.texts import PerText, TextConfig

WORD_MAP_VARIABLE = "RSW_WORD_MAP"
"""Environment variable that names the word map where the configuration does not."""
EMPTY = "the caption holds no word"
MAX_REFERENCE_TOKENS = 2_048
"""Most words and signs of all reference captions of a sample. METEOR's time grows with them times the words of a caption."""


def no_change_sentences(sample: Sample) -> tuple[str, ...]:
    """The sentences for a pair without change in the sample's data set: ``reference.no_change``, else LEVIR-CC's five.

    Raises:
        ValueError: ``reference.no_change`` is no list of texts, or an empty one.
    """
    if sample.reference.get("no_change") is None:
        return NO_CHANGE
    sentences = plain_truths(texts_of(sample.reference, "no_change"))
    if not sentences:
        raise ValueError("'reference.no_change' holds no sentence")
    return sentences


def says_no_change(text: str, sentences: tuple[str, ...] = NO_CHANGE) -> bool:
    """Whether a caption is one of the sentences for no change; case and punctuation aside, and nothing but it."""
    return tuple(ptb(text)) in _in_tokens(sentences)


@lru_cache(maxsize=64)
def _in_tokens(sentences: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(ptb(sentence)) for sentence in sentences)


def true_captions(sample: Sample) -> tuple[str, ...]:
    """The reference captions of a sample. Raises ``ValueError`` where they are no texts, or hold nothing."""
    captions = plain_truths(texts_of(sample.reference, "captions"))
    if not any(map(str.strip, captions)):
        raise ValueError("there are no reference captions")
    return captions


def is_changed(sample: Sample) -> bool:
    """``reference.changed`` where it is given, else whether any reference caption speaks of a change.

    Raises:
        ValueError: one of the two, or the sample's sentences for no change, cannot be used.
    """
    sentences = no_change_sentences(sample)
    changed = sample.reference.get("changed")
    if changed is None:
        return not _all_unchanged(true_captions(sample), sentences)
    if not isinstance(changed, bool):
        raise ValueError(f"'reference.changed' is {changed!r:.80}, neither true nor false")
    return changed


@lru_cache(maxsize=8192)
def _all_unchanged(captions: tuple[str, ...], sentences: tuple[str, ...]) -> bool:
    return all(says_no_change(caption, sentences) for caption in captions)


@lru_cache(maxsize=8)
def _tokeniser(tokens: Tokens, word_map: str | None) -> Callable[[str], list[str]]:
    return make_tokeniser(tokens, load_word_map(Path(word_map)) if word_map else None)


@lru_cache(maxsize=2048)
def _references(captions: tuple[str, ...], tokens: Tokens, word_map: str | None) -> ReferenceSet:
    """One set for all candidates, samples and verifiers that share its captions."""
    tokenise = _tokeniser(tokens, word_map)
    listed = [tokenise(caption) for caption in captions]
    if (count := sum(map(pieces, listed))) > MAX_REFERENCE_TOKENS:
        raise TextTooLong(
            f"its captions have {count} words and signs, more than the {MAX_REFERENCE_TOKENS} that are read"
        )
    return ReferenceSet(listed)


class CaptionConfig(TextConfig):
    """Configuration of a caption metric."""

    tokens: Tokens = Field("ptb", description="how captions become tokens: ptb (coco-caption), words, ids (RSICC)")
    word_map: str | None = Field(
        None, description=f"JSON file of word numbers for 'ids'; default: ${WORD_MAP_VARIABLE}"
    )


class CaptionVerifier(PerText[T]):
    """Reads captions: tokens, and references that are known once."""

    tasks = frozenset({Task.CHANGE_CAPTION})
    needs = frozenset({"output.text", "reference.captions"})
    Config: ClassVar[type[CaptionConfig]] = CaptionConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        named = self.config.word_map or os.environ.get(WORD_MAP_VARIABLE)
        self.word_map: str | None = named if self.config.tokens == "ids" else None

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.tokenise("")

    def tokenise(self, text: str) -> list[str]:
        """The tokens of a text. Raises :class:`TextTooLong`, and :class:`ConfigError` without the word map that ``ids`` need."""
        if self.config.tokens == "ids" and self.word_map is None:
            raise ConfigError(
                f"the tokens 'ids' need the word map of the captions' vocabulary: set 'word_map' or ${WORD_MAP_VARIABLE} to its "
                "JSON file"
            )
        return _tokeniser(self.config.tokens, self.word_map)(text)

    def references(self, sample: Sample) -> ReferenceSet:
        """The tokenised references of a sample. Raises ``ValueError`` where they cannot be used."""
        return _references(true_captions(sample), self.config.tokens, self.word_map)

    def files(self) -> tuple[str, ...]:
        return (self.word_map,) if self.word_map else ()
