"""Numbers of captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsw_rewards.errors import ConfigError
from rsw_rewards.metrics.checked import public
from rsw_rewards.verifiers import ngrams
from rsw_rewards.verifiers.caption_tokens import Tokens, make_tokeniser
from rsw_rewards.verifiers.meteor import Meteor, MeteorError
from rsw_rewards.verifiers.meteor import meteor as meteor_of_statistics
from rsw_rewards.verifiers.vocabulary import ORDERS

Captions = str | Sequence[str]
References = str | Sequence[str] | Sequence[Sequence[str]]


def _pairs(captions: Captions, references: References, tokens: Tokens) -> list[ngrams.Match]:
    """The captions beside their references, in tokens. Raises ``ValueError``."""
    if isinstance(captions, str):
        captions, references = [captions], [references]  # type: ignore[list-item]
    if isinstance(references, str) or len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions need as many lists of references, not {len(references)}")
    tokenise = make_tokeniser(tokens)
    sets = [
        ngrams.ReferenceSet(tokenise(text) for text in ([one] if isinstance(one, str) else one)) for one in references
    ]
    return [one.match(tokenise(caption)) for caption, one in zip(captions, sets, strict=True)]


@public
def bleu(captions: Captions, references: References, order: int = 4, tokens: Tokens = "ptb") -> float:
    """BLEU of a caption or of a corpus of captions, in [0, 1], as coco-caption computes it.

    Args:
        captions: one text or several; of several, counts are summed before the score is taken.
        references: for one caption a text or a list of texts, for several a list of such lists.
        order: longest n-gram, 1 to 4.
        tokens: ``"ptb"`` (coco-caption) or ``"words"`` between blanks.

    >>> round(rsw.metrics.bleu("a road is here", ["a new road was built", "a road is new"], order=2), 3)
    0.707
    """
    if not 1 <= order <= ORDERS:
        raise ValueError(f"order must be 1 to {ORDERS}, not {order}")
    counts = np.sum([match.bleu_counts() for match in _pairs(captions, references, tokens)], axis=0)
    return min(1.0, ngrams.bleu(counts.tolist(), order)[-1])


@public
def rouge_l(captions: Captions, references: References, tokens: Tokens = "ptb") -> float:
    """ROUGE-L of a caption, or its mean over captions, in [0, 1].

    Args:
        captions, references, tokens: see :func:`bleu`.

    >>> round(rsw.metrics.rouge_l("a road was built", ["a new road was built"]), 3)
    0.871
    """
    return float(np.mean([match.references.rouge_l(match.tokens) for match in _pairs(captions, references, tokens)]))


@public
def cider(captions: Sequence[str], references: Sequence[Sequence[str]], tokens: Tokens = "ptb") -> float:
    """CIDEr-D of a corpus of captions, in [0, 10]; often printed times 100.

    The weight of a word follows from how many of these references have it, so that the number of a subset is another one, and that
    of captions which all have the same references is 0.

    Args:
        captions: two texts or more.
        references: a list of texts for every caption.
        tokens: see :func:`bleu`.

    >>> rsw.metrics.cider(["a road was built", "trees were cut"], [["a road was built"], ["trees were cut down"]])
    7.94...
    """
    if isinstance(captions, str) or len(captions) < 2:
        raise ValueError("CIDEr counts words over a corpus; give two captions or more")
    matches = _pairs(captions, references, tokens)
    scorer = ngrams.CiderD(ngrams.DocumentFrequency.of(match.references for match in matches))
    return float(np.mean([scorer.score(match) for match in matches]))


@public
def meteor(captions: Captions, references: References, tokens: Tokens = "ptb") -> float:
    """METEOR 1.5 of a caption or of a corpus of captions, in [0, 1]. Needs `[meteor]` and Java.

    Starts METEOR's Java program, which takes seconds to load: give all captions at once.

    Args:
        captions, references, tokens: see :func:`bleu`.

    Raises:
        ConfigError: the program or Java is missing, or it does not answer.

    >>> round(rsw.metrics.meteor("a road was built", ["a new road was built"]), 3)  # doctest: +SKIP
    0.423
    """
    matches = _pairs(captions, references, tokens)
    program = Meteor()
    try:
        statistics = program.stats([(match.tokens, match.references.references) for match in matches])
    except MeteorError as error:
        raise ConfigError(str(error)) from error
    finally:
        program.close()
    return meteor_of_statistics(np.sum(statistics, axis=0))
