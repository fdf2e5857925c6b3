"""Outputs in parts: what is scored and written at once, with the candidates of a sample kept together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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


def group_chunks(
    outputs: Sequence[Output], size: int, whole: bool = False, grow: bool = False
) -> Iterator[list[Output]]:
    """Parts of about ``size`` outputs that keep the candidates of a sample together; one part where ``whole``.

    Args:
        outputs: those of a sample stand together.
        size: of the first part.
        whole: all in one part.
        grow: double the size after every part that was dealt with in less than :data:`QUICK` seconds.
    """
    begin = 0
    while begin < len(outputs):
        end = len(outputs) if whole else min(begin + size, len(outputs))
        while end < len(outputs) and outputs[end].sample_id == outputs[end - 1].sample_id:
            end += 1
        start = time.perf_counter()
        yield list(outputs[begin:end])
        if grow and time.perf_counter() - start < QUICK:
            size = min(2 * size, LARGEST_CHUNK)
        begin = end


def batch_of(by_id: Mapping[str, Sample], outputs: Sequence[Output]) -> Batch:
    """A chunk of outputs beside their samples, without going through all samples for every chunk."""
    return Batch([by_id[output.sample_id] for output in outputs], outputs, [output.sample_id for output in outputs])


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
