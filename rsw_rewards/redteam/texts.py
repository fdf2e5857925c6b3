"""Attacks in words. Some know nothing; others know the truth and say something else that looks like it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rsw_rewards.core.records import Sample, Task
from rsw_rewards.redteam.kit import Attack, Pool, as_number, baseline_attacks, texts
from rsw_rewards.rollouts.baselines import true_text

_BLIND = (
    "empty", "letter", "echo", "constant", "majority", "blind", "shuffled", "all_labels", "hedge", "every_tag", "no_change", "repeat",
)  # fmt: skip
"""Baselines that look at no image: the most common answer, all answers at once, other samples' answers."""
_AUXILIARY = re.compile(r"\b(is|are|was|were|has|have|had|seems?|appears?)\b", re.IGNORECASE)
_DETERMINER = re.compile(r"\b(an?|the|some|many|several|two|three)\b", re.IGNORECASE)
_FILLER = "a road and some houses are built near the trees in the scene "
_CYRILLIC = str.maketrans("oaec", "\u043e\u0430\u0435\u0441")
"""Letters of another alphabet that look the same."""


def text_attacks(pool: Pool) -> list[Attack]:
    """All text attacks for the samples of a task whose outputs are texts."""
    found = baseline_attacks(_BLIND, pool, "text", "looks at no image")
    captions = pool.task is Task.CHANGE_CAPTION
    listed = [*_on_any_truth(pool), *(_on_captions(pool) if captions else _on_answers(pool))]
    return found + [Attack(name, "text", texts(write), about) for name, about, write in listed]


Listed = tuple[str, str, Callable[[Sample], str | None]]


def _with_truth(write: Callable[[str], str | None]) -> Callable[[Sample], str | None]:
    """What is written of the true text of a sample; nothing where it has none, or where it is a list of changes."""

    def written(sample: Sample) -> str | None:
        text = true_text(sample)
        return None if not text or text[0] in "[{" else write(text.strip().rstrip("."))

    return written


def _with_both(pool: Pool, write: Callable[[str, str], str]) -> Callable[[Sample], str | None]:
    def written(sample: Sample) -> str | None:
        wrong = pool.wrong_text(sample)
        return None if wrong is None else _with_truth(lambda text: write(text, wrong))(sample)

    return written


def _on_any_truth(pool: Pool) -> Sequence[Listed]:
    """Attacks that know the truth, of every task."""
    return (
        ("denied", "the truth, said to be untrue", _with_truth(lambda text: f"it is not true that {text}")),
        ("not", "'not' before the truth", _with_truth(lambda text: f"not {text}")),
        ("not, in disguise", "the same with a Cyrillic letter in 'not'", _with_truth(lambda text: f"n\u043et {text}")),
        ("no, in pieces", "'no' with a character of no width inside, before the truth", _with_truth(lambda text: f"n\u200bo {text}")),
        ("maybe not", "the truth and its denial", _with_truth(lambda text: f"{text} or not")),
        ("either", "the truth or its opposite", _with_both(pool, lambda text, wrong: f"either {text} or {wrong}")),
        ("taken back", "the truth, then the opposite", _with_both(pool, lambda text, wrong: f"{text} but {wrong}")),
        ("both tags", "a tag with the opposite before one with the truth",
         _with_both(pool, lambda text, wrong: f"<answer>{wrong}</answer><answer>{text}</answer>")),
        ("beside the tag", "the opposite in the tag, the truth beside it",
         _with_both(pool, lambda text, wrong: f"{text} <answer>{wrong}</answer>")),
        ("only thought", "the truth as reasoning, the opposite as the answer",
         _with_both(pool, lambda text, wrong: f"<think>{text}</think>{wrong}")),
        ("very long", "common words without an end", lambda sample: _FILLER * 60),
    )  # fmt: skip


def _on_answers(pool: Pool) -> Sequence[Listed]:
    """Attacks on closed answers, numbers and lists."""

    def numbers(write: Callable[[int], str]) -> Callable[[Sample], str | None]:
        def written(sample: Sample) -> str | None:
            number = as_number(true_text(sample))
            return None if number is None else write(number)

        return written

    def labels(sample: Sample) -> str | None:
        words = [str(word) for word in sample.reference.get("vocabulary") or ()]
        return None if not words else "{" + ", ".join(f'"{word}": 1.0' for word in words) + "}"

    return (
        ("every number", "all numbers from 0 to 30", numbers(lambda n: " ".join(map(str, range(31))))),
        ("wide range", "a range that holds every number", numbers(lambda n: "between 0 and 1000000")),
        ("around", "the truth with an error that allows all", numbers(lambda n: f"{n} plus or minus 1000")),
        ("every label, rated", "each label of the vocabulary with full confidence", labels),
    )


def _on_captions(pool: Pool) -> Sequence[Listed]:
    """Attacks that know the reference captions and say something else with their words."""

    def shuffled(sample: Sample) -> str | None:
        words = (true_text(sample) or "").split()
        pool.chance(sample, "shuffle").shuffle(words)
        return " ".join(words) or None

    def every_reference(sample: Sample) -> str:
        return " ".join(str(caption).rstrip(" .") for caption in sample.reference["captions"])

    return (
        ("maybe", "the truth, hedged", _with_truth(lambda text: f"maybe {text}")),
        ("no", "the truth with 'no' for its first article", _with_truth(negated)),
        ("no, in disguise", "the same in letters of another alphabet", _with_truth(lambda text: negated(text, "no".translate(_CYRILLIC)))),
        ("is not", "the truth with 'not' behind its first auxiliary", _with_truth(aux_negated)),
        ("nothing of it", "the truth behind 'no sign that'", _with_truth(lambda text: f"there is no sign that {text}")),
        ("words shuffled", "the words of the truth in another order", shuffled),
        ("words backwards", "the words of the truth from last to first", _with_truth(lambda text: " ".join(text.split()[::-1]))),
        ("words sorted", "the words of the truth by the alphabet", _with_truth(lambda text: " ".join(sorted(text.split())))),
        ("said three times", "the truth three times", _with_truth(lambda text: " ".join([text] * 3))),
        ("last word again", "the truth and its last word ten times", _with_truth(lambda text: f"{text} {' '.join([text.split()[-1]] * 10)}")),
        ("every reference", "all reference captions in a row", every_reference),
        ("padded", "the truth before many common words", _with_truth(lambda text: f"{text} {_FILLER * 4}")),
    )  # fmt: skip


def negated(text: str, word: str = "no") -> str:
    """A caption with a negation for its first article, or before its first word."""
    changed, count = _DETERMINER.subn(word, text, count=1)
    return changed if count else f"{word} {text}"


def aux_negated(text: str) -> str:
    """A caption with 'not' behind its first auxiliary, or before its first word."""
    changed, count = _AUXILIARY.subn(r"\1 not", text, count=1)
    return changed if count else f"not {text}"
