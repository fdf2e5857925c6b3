"""Questions about a pair of tiles whose answers are computed from shares of land cover, and the words of a forecast.

A difference smaller than a stated dead band is noise: it is neither a yes nor a no, so nothing is asked about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from rsw_rewards.data.bins import RATIO_BINS, ratio_bin

CLOSED_KINDS = (
    "increase_or_not",
    "decrease_or_not",
    "share_bin",
    "growth_bin",
    "largest_change",
    "change_or_not",
    "change_ratio",
)
"""Kinds with a closed set of answers. The last two are asked of tiles whose every usable pixel is labelled."""
NUMERIC_KINDS = ("share_percent", "growth_percent")
"""Kinds answered by a percentage of the tile. They need another protocol, so a file should hold one sort or the other."""
KINDS = (*CLOSED_KINDS, *NUMERIC_KINDS)

YES_NO = ("yes", "no")
QUIET = 0.25
"""A growth below this share of the dead band (or a loss) is a clear no to "did it increase?"; from there to the band it is unclear."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a class is called: ``spoken`` in prompts, ``answer`` where it is the answer."""

    spoken: str
    answer: str


Wording = Literal["scene-world", "plain"]

WORDINGS: Mapping[str, Mapping[str, Words]] = MappingProxyType(
    {
        # The words of the scene world, so that a model that knows only those can be asked.
        "scene-world": {
            "water": Words("water", "water"),
            "vegetation": Words("vegetation", "low_vegetation"),
            "built_up": Words("buildings", "buildings"),
        },
        "plain": {
            "water": Words("water", "water"),
            "vegetation": Words("vegetation", "vegetation"),
            "built_up": Words("built-up land", "built-up"),
        },
    }
)


@dataclass(frozen=True, slots=True)
class RasterQuestion:
    """One question; ``about`` is the class and date it asks for, where it asks for one."""

    kind: str
    about: str
    prompt: str
    answer: str
    vocabulary: tuple[str, ...] = ()
    """The closed set of answers; empty for numbers."""
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class TileFacts:
    """What the bands and labels of one tile say. Shares are of the tile's usable pixels, in [0, 1]."""

    classes: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    changed: float | None = None
    """Share of changed pixels, where all usable pixels are labelled."""
    seen_changed: bool = False
    """Whether any label, of however few pixels, says "changed"."""

    @property
    def growth(self) -> tuple[float, ...]:
        """Share after less share before, per class, in [-1, 1]."""
        return tuple(b - a for a, b in zip(self.before, self.after, strict=True))


def clear_bin(share: float, margin: float) -> str | None:
    """The bin of a share, or None where it lies within ``margin`` of another bin and noise would decide."""
    if share == 0.0:
        return RATIO_BINS[0]
    nearest = round(share * 10) / 10
    if nearest < 1 and abs(share - nearest) < margin:
        return None
    return ratio_bin(share)


def _direction(growth: float, sign: int, dead_band: float) -> str | None:
    """Whether it grew (``sign`` 1) or shrank (-1): yes, no, or None where it is too close to call."""
    if sign * growth >= dead_band:
        return "yes"
    return "no" if sign * growth <= QUIET * dead_band else None


def candidates(
    facts: TileFacts, *, dead_band: float, edge_margin: float, wording: Wording
) -> dict[str, list[RasterQuestion]]:
    """Every question that has a clear answer, by kind, in a fixed order.

    Args:
        facts: of the tile.
        dead_band: difference of shares in [0, 1] from which on a class has increased or decreased.
        edge_margin: shares this close to the edge of a bin are not asked about.
        wording: a key of ``WORDINGS``.
    """
    found: dict[str, list[RasterQuestion]] = {kind: [] for kind in KINDS}

    def ask(kind: str, about: str, prompt: str, answer: str | None, vocabulary: tuple[str, ...] = YES_NO) -> None:
        """Ask a question, where it has a clear answer."""
        if answer is not None:
            found[kind].append(RasterQuestion(kind, about, prompt, answer, vocabulary))

    def ask_share(kinds: str, about: str, share: float, of_bin: str, of_percent: str) -> None:
        """Ask about a share by its bin, where that is clear, and by its percentage."""
        ask(f"{kinds}_bin", about, of_bin, clear_bin(share, edge_margin), RATIO_BINS)
        kind = f"{kinds}_percent"
        found[kind].append(RasterQuestion(kind, about, of_percent, f"{100 * share:.1f}", unit="%"))

    words = [WORDINGS[wording][name] for name in facts.classes]
    for name, word, first, last, growth in zip(
        facts.classes, words, facts.before, facts.after, facts.growth, strict=True
    ):
        for kind, verb, sign in (("increase_or_not", "increase", 1), ("decrease_or_not", "decrease", -1)):
            ask(kind, name, f"did the areas of {word.spoken} {verb}?", _direction(growth, sign, dead_band))
        for share, date, order in ((first, "before", "first"), (last, "after", "second")):
            of_bin = f"how much of the area is {word.spoken} in the {order} image?"
            ask_share(
                "share", f"{name}-{date}", share, of_bin, f"what percentage of the {order} image is {word.spoken}?"
            )
        if abs(growth) >= dead_band:
            changed = f"the area of {word.spoken} {'increased' if growth > 0 else 'decreased'}?"
            of_percent = f"by what percentage of the image has {changed}"
            ask_share("growth", name, abs(growth), f"how much has {changed}", of_percent)
    ranked = np.argsort(-np.abs(facts.growth), kind="stable")
    if len(words) > 1 and abs(facts.growth[ranked[0]]) - abs(facts.growth[ranked[1]]) >= dead_band:
        vocabulary = tuple(word.answer for word in words)
        ask("largest_change", "all", "what is the largest change?", vocabulary[ranked[0]], vocabulary)
    if facts.changed is not None:
        ask("change_or_not", "all", "has anything changed?", "yes" if facts.changed else "no")
        bin_of_change = clear_bin(facts.changed, edge_margin)
        ask("change_ratio", "all", "how much of the area has changed?", bin_of_change, RATIO_BINS)
    return found


def choose(
    found: Mapping[str, Sequence[RasterQuestion]], rng: np.random.Generator, kinds: Sequence[str], per_kind: int | None
) -> list[RasterQuestion]:
    """At most ``per_kind`` questions of each kind (all for None).

    The answer is drawn first and the question second, so that a yes stands as often as the tile allows beside a no.
    """
    chosen: list[RasterQuestion] = []
    for kind in kinds:
        left = list(found[kind])
        if per_kind is None:
            chosen.extend(left)
            continue
        for _ in range(min(per_kind, len(left))):
            answers = sorted({question.answer for question in left})
            answer = answers[int(rng.integers(len(answers)))]
            same = [question for question in left if question.answer == answer]
            question = same[int(rng.integers(len(same)))]
            left.remove(question)
            chosen.append(question)
    return chosen


def change_text(facts: TileFacts, dead_band: float, wording: Wording) -> str | None:
    """What happened, in words for a forecaster: ``"vegetation decreased buildings increased"``, largest change first.

    ``"nothing changes"`` where no class has left the dead band; None where there is no class to speak of, or where labels show
    a change that the classes do not, so that either text would mislead.
    """
    if not facts.classes:
        return None
    order = np.argsort(-np.abs(facts.growth), kind="stable")
    parts = [
        f"{WORDINGS[wording][facts.classes[k]].spoken} {'increased' if facts.growth[k] > 0 else 'decreased'}"
        for k in order
        if abs(facts.growth[k]) >= dead_band
    ]
    if parts:
        return " ".join(parts) if wording == "scene-world" else ", ".join(parts)
    return None if facts.seen_changed else "nothing changes"
