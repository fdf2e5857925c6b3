"""Outputs in parts: what is scored and written at once, with the candidates of a sample kept together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer

CHUNK = 512
"""Outputs that are scored, and written, at once: what a kill can cost, and what memory holds."""
LARGEST_CHUNK, QUICK = 32 * CHUNK, 0.5
"""Chunks that take less than QUICK seconds grow to this size, since each has a price of its own."""


def needs_whole(scorer: Scorer) -> bool:
    """Whether a verifier that gives values must see all outputs at once; set-level numbers that only measure need not."""
    return any(verifier.scope == "population" and verifier.rewarding for verifier in scorer.verifiers)


def batches(
    scorer: Scorer, samples: Sequence[Sample], outputs: Sequence[Output], size: int = CHUNK, grow: bool = False
) -> Iterator[Batch]:
    """Outputs beside their samples in parts of about ``size``; one part where the scorer must see all at once.

    Args:
        scorer: what will score them.
        samples: those that the outputs answer, and others.
        outputs: those of a sample stand together, and stay together.
        size: of the first part.
        grow: double the size after every part that was dealt with in less than :data:`QUICK` seconds.
    """
    by_id = {sample.id: sample for sample in samples}
    whole = needs_whole(scorer)
    begin = 0
    while begin < len(outputs):
        end = len(outputs) if whole else min(begin + size, len(outputs))
        while end < len(outputs) and outputs[end].sample_id == outputs[end - 1].sample_id:
            end += 1
        part = outputs[begin:end]
        start = time.perf_counter()
        yield Batch([by_id[output.sample_id] for output in part], part, [output.sample_id for output in part])
        if grow and time.perf_counter() - start < QUICK:
            size = min(2 * size, LARGEST_CHUNK)
        begin = end
