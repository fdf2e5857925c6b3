"""Whether a caption says rightly that something changed, and reads as a sentence: what opens the gate of rewards for its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.verifiers.caption_base import is_changed, no_change_sentences, says_no_change, true_captions
from rsw_rewards.verifiers.caption_claims import Claim, claim_of
from rsw_rewards.verifiers.caption_form import LONGEST, foreign_letters, in_a_row, out_of_order, repeated, words_of
from rsw_rewards.verifiers.caption_tokens import MAX_CHARACTERS
from rsw_rewards.verifiers.texts import PerText

_SAID = {
    "change": "it says that something changed",
    "no change": "it says that nothing changed",
    "denied change": "it says of a change that it did not happen",
    "both": "it says that nothing changed, and a change",
    "hedged": "it does not say whether anything changed",
}


class _Truth(NamedTuple):
    changed: bool
    no_change: tuple[str, ...]
    claims: frozenset[Claim]
    """What the reference captions claim."""
    references: tuple[tuple[str, ...], ...]
    """Their words."""
    ordered: bool
    """Whether the rules of order and repetition hold for all of them, so that they may be held against a caption."""
    latin: bool
    longest: int


class CaptionGate(PerText[_Truth]):
    """Whether a caption claims what is true and reads as a sentence."""

    name = "caption_gate"
    tasks = frozenset({Task.CHANGE_CAPTION})
    needs = frozenset({"output.text", "reference.captions"})
    card = Card(
        summary="1 if a caption says correctly whether anything changed and reads like a sentence, else 0.",
        range="0 or 1; raw.claim, raw.order, raw.repetition, raw.length and raw.alphabet are 1 if the caption passes "
        "that check",
        transform="none",
        source="this project: rules for English; docs/attacks.md says how many right captions they refuse",
        gaming=(
            "It does not check objects, places, numbers or directions: 'a pond was removed' passes if a road was built."
        ),
        cost="a tenth of a millisecond",
    )

    def truth(self, sample: Sample) -> _Truth:
        captions = true_captions(sample)
        words = tuple(tuple(words_of(caption)) for caption in captions)
        return _Truth(
            is_changed(sample),
            no_change_sentences(sample),
            frozenset(map(claim_of, captions)),
            words,
            not any(out_of_order(one) or repeated(one) for one in words),
            not any(map(foreign_letters, captions)),
            max(LONGEST, 2 * max(map(len, words))),
        )

    def compare_text(self, truth: _Truth, text: str) -> Score:
        if len(text) > MAX_CHARACTERS:
            return Score.invalid(f"the caption has more than {MAX_CHARACTERS} characters")
        words = words_of(text)
        if not words:
            return Score.invalid("the caption holds no word")
        if len(words) > truth.longest:  # before repetition is looked for, which takes the square of the length
            return _scored({"length": f"{len(words)} words are more than {truth.longest}"})
        wrong = {
            "claim": self._wrong_claim(truth, text),
            "order": out_of_order(words, truth.references) if truth.ordered else "",
            "repetition": self._repeated(truth, words) if truth.ordered else "",
            "alphabet": foreign_letters(text) if truth.latin else "",
        }
        return _scored(wrong)

    @staticmethod
    def _repeated(truth: _Truth, words: Sequence[str]) -> str:
        row = in_a_row(words, truth.references)
        return f"{row} references in a row" if row > 1 else repeated(words)

    @staticmethod
    def _wrong_claim(truth: _Truth, text: str) -> str:
        if says_no_change(text, truth.no_change):
            return _SAID["no change"] if truth.changed else ""
        claim = claim_of(text)
        right = ("unclear", "change") if truth.changed else ("unclear", "no change", "denied change")
        return "" if claim in right or claim in truth.claims else _SAID[claim]


_PARTS = ("claim", "order", "repetition", "length", "alphabet")


def _scored(wrong: dict[str, str]) -> Score:
    found = {part: why for part, why in wrong.items() if why}
    raw = {part: float(part not in found) for part in _PARTS}
    return Score(float(not found), raw=raw, reason="; ".join(f"{part}: {why}" for part, why in found.items()))
