"""How many texts hold what is no part of an answer: reasoning, chat tokens, characters of no width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rsw_rewards.core.answer import CUT_OFF, Part, read_reply
from rsw_rewards.core.records import Output

_NAMES: Mapping[Part, str] = {
    "reasoning": "reasoning",
    "chat_tokens": "chat tokens",
    "zero_width": "characters of no width",
}


def taken_off(outputs: Iterable[Output]) -> dict[str, int]:
    """How many outputs have a text (``texts``), hold each part that is taken off, and were cut off inside their reasoning (``cut_off``).

    >>> taken_off([Output("q0", text="<think>two roofs</think> yes"), Output("q1", text="no")])
    {'texts': 2, 'reasoning': 1, 'chat_tokens': 0, 'zero_width': 0, 'cut_off': 0}
    """
    counts: Counter[str] = Counter(dict.fromkeys(("texts", *_NAMES, "cut_off"), 0))
    for output in outputs:
        if output.text is not None:
            reply = read_reply(output.text, output.finish_reason)
            counts.update(("texts", *reply.taken, *(("cut_off",) if reply.problem == CUT_OFF else ())))
    return dict(counts)


def taken_off_warnings(counts: Mapping[str, int]) -> list[str]:
    """A sentence on texts that hold more than an answer; none where no text does."""
    held = [f"{counts[part]:,} hold {_NAMES[part]}" for part in _NAMES if counts[part]]
    if not held:
        return []
    cut = f" ({counts['cut_off']:,} are cut off inside it and have no answer)" if counts["cut_off"] else ""
    return [
        f"of {counts['texts']:,} texts, {', '.join(held)}{cut}: these are no part of an answer, and only 'thinking: keep' of a"
        " verifier reads them"
    ]
