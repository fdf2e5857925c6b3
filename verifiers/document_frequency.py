"""Document frequencies of caption n-grams as a file: the table that CIDEr-D rewards are given by, kept with a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.caption_tokens import Tokens, load_word_map, make_tokeniser
from rsw_rewards.verifiers.ngrams import DocumentFrequency, ReferenceSet
from rsw_rewards.verifiers.vocabulary import ORDERS


def write_document_frequency(
    path: Path, captions: Iterable[Sequence[str]], tokens: Tokens = "ptb", word_map: Path | None = None
) -> DocumentFrequency:
    """Count in how many samples every n-gram stands, and write the table for ``cider_d``'s ``document_frequency``.

    Args:
        path: JSON file to write: ``tokens``, ``documents``, ``ngrams`` (n-gram, its tokens joined with blanks -> samples).
        captions: the reference captions of every sample, of the training split.
        tokens: how captions become tokens; the verifier must use the same.
        word_map: of ``ids``.

    Returns:
        The table.

    Raises:
        ConfigError: the word map is missing or cannot be read.
        ValueError: a sample has no reference with a word.
    """
    tokenise = make_tokeniser(tokens, load_word_map(word_map) if word_map else None)
    listed = [tuple(one) for one in captions]
    sets = {one: ReferenceSet(tokenise(caption) for caption in one) for one in dict.fromkeys(listed)}
    frequency = DocumentFrequency.of(sets[one] for one in listed)
    record = {"tokens": tokens, "documents": frequency.documents, "ngrams": frequency.words()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    return frequency


def read_document_frequency(path: Path, tokens: Tokens) -> DocumentFrequency:
    """Read what :func:`write_document_frequency` wrote. Raises :class:`ConfigError` for another file or other tokens."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the document frequencies {path} cannot be read: {error}") from error
    record = record if isinstance(record, dict) else {}
    documents, counts = record.get("documents"), record.get("ngrams")
    if type(documents) is not int or not isinstance(counts, dict):
        raise ConfigError(f"{path} is no table of document frequencies; write one with write_document_frequency")
    if record.get("tokens") != tokens:
        raise ConfigError(f"{path} counts the tokens {record.get('tokens')!r}, not {tokens!r}; write another for them")
    for ngram, count in counts.items():
        if type(count) is not int or not 1 <= count <= documents or not 1 <= len(ngram.split()) <= ORDERS:
            raise ConfigError(
                f"{path}: the entry {ngram[:60]!r}: {count!r} is not 1 to 4 tokens in 1 to {documents} samples"
            )
    return DocumentFrequency.of_words(documents, {" ".join(ngram.split()): count for ngram, count in counts.items()})
