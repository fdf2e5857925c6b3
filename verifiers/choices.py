"""Multiple choice: letters are read out of an answer strictly, one or a set of them; the ``multiple_choice`` verifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import Metric
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.answer_metrics import ACCURACY, KindAccuracy, PromptVariants
from rsw_rewards.verifiers.answers import (
    AnswerConfig,
    PerQuestion,
    extract_answer,
    normalise,
    plain_truths,
    texts_of,
    true_answers,
)
from rsw_rewards.verifiers.denials import taken_back
from rsw_rewards.verifiers.texts import known

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONGEST = 2000  # characters; a longer text is no choice

_LEAD = re.compile(r"(?:the )?(?:(?:correct|right|final|best) )?(?:answer|option|choice)s?(?: is| are)?(?: ?[:=] ?| )")
_GLUED = re.compile("[A-Z]{2,}")
_ONE = r"\(?[a-z](?:[).:]|\)[.:])?"
_SEVERAL = re.compile(rf"{_ONE}(?:(?: ?, ?(?:and )?| and | ){_ONE})*")
_MARKED = re.compile(r"(?:\(([a-z])\)[.:]?|([a-z])[).:]) ?(.+)", re.DOTALL)
# Another letter beside the one that was chosen; "a" and "i" are words too, so they need a mark.
_ANOTHER = re.compile(r"(?<!\w)(?:[b-hj-z](?!\w)|\([ai]\)|[ai][).:]|(?:or|and) [ai]$)")


class Chosen(NamedTuple):
    """The letters that an answer chooses, or why it chooses none."""

    letters: frozenset[str]
    reason: str = ""


class Choices(NamedTuple):
    """The options of a question: their normalised texts in order, empty where only letters are known."""

    texts: tuple[str, ...] = ()

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.texts)] if self.texts else LETTERS

    def named(self, text: str) -> str:
        """The letters of the options with this normalised text."""
        return "".join(letter for letter, option in zip(LETTERS, self.texts, strict=False) if option == text)


def _bare(text: str, letter: str) -> str:
    """An option's normalised text without the letter that it may carry itself ("A. farmland")."""
    text = normalise(text)
    match = _MARKED.fullmatch(text)
    return match[3] if match and (match[1] or match[2]) == letter.lower() else text


@lru_cache(maxsize=4096)
def make_choices(texts: tuple[str, ...]) -> Choices:
    """Options from their texts. Raises ``ValueError`` for more than 26 or an empty one."""
    if len(texts) > len(LETTERS):
        raise ValueError(f"a question with {len(texts)} choices; letters name at most {len(LETTERS)}")
    bare = tuple(_bare(text, letter) for text, letter in zip(texts, LETTERS, strict=False))
    if "" in bare:
        raise ValueError(f"choice {LETTERS[bare.index('')]} is empty")
    return Choices(bare)


_LETTERS_ONLY = Choices()

_BOX = re.compile(r"\$?\\boxed\{\s*(?:\\text(?:bf)?\{([^{}]{0,200})\}|([^{}]{0,200}))\s*\}\$?")
_STRONG = re.compile(r"(\*\*|__|[*_`])(?=\S)([^*_`\n]{1,200})(?<=\S)\1")
_SQUARE = re.compile(r"\[\s*([A-Za-z])\s*\]")


def unmarked(text: str) -> str:
    r"""A text without the marks that models put round a choice: bold and code of Markdown, a box of LaTeX, square brackets.

    >>> unmarked("The answer is **B**."), unmarked(r"$\boxed{\text{C}}$"), unmarked("[a] or [b]")
    ('The answer is B.', 'C', '(a) or (b)')
    """
    text = _BOX.sub(lambda box: box[1] or box[2] or "", text)
    return _SQUARE.sub(r"(\1)", _STRONG.sub(r"\2", text))


def read_choice(text: str, choices: Choices = _LETTERS_ONLY) -> Chosen:
    """The letters that an answer chooses.

    Read are, after an optional "the answer is", "answer:" or "option": letters in any case (``b``, ``(B)``, ``B.``, ``B)``),
    several of them between commas, blanks or "and"; capitals without anything between them (``ABD``); a marked letter with its
    option's text (``B) water``); and an option's text alone, all of it in bold, a box or square brackets or without. Where the options are not known, any text may follow the marked
    letter as long as it names no other letter and does not take it back (``B) water is wrong``).

    Args:
        text: what was answered; letters are read before texts.
        choices: the question's options.
    """
    if len(text) > _LONGEST:
        return Chosen(frozenset(), f"an answer of {len(text)} characters is no choice")
    text = unmarked(text)
    plain = normalise(text)
    lead = _LEAD.match(plain)
    for answer in dict.fromkeys((plain[lead.end() :] if lead else plain, plain)):
        if _SEVERAL.fullmatch(answer):
            found = re.findall(r"(?<!\w)[a-z](?!\w)", answer.replace(" and ", " "))
            return _known([letter.upper() for letter in found], choices)
        if named := choices.named(answer):
            return Chosen(frozenset(named)) if len(named) == 1 else Chosen(frozenset(), "several choices read the same")
        if marked := _MARKED.fullmatch(answer):
            return _with_text(marked, choices)
        if (glued := _GLUED.search(text)) and glued[0].lower() == answer:
            return _known(glued[0], choices)
    return Chosen(frozenset(), f"{text[:60]!r} is neither a letter nor one of the choices")


def _with_text(marked: re.Match[str], choices: Choices) -> Chosen:
    letter, rest = (marked[1] or marked[2]).upper(), marked[3]
    if choices.texts:
        if letter in choices.named(rest):
            return Chosen(frozenset(letter))
        return Chosen(
            frozenset(), f"what follows the letter {letter} is not the text of that choice alone: {rest[:60]!r}"
        )
    if words := taken_back(rest):
        return Chosen(frozenset(), f"what follows the letter {letter} takes it back: {words!r}")
    if _ANOTHER.search(rest):
        return Chosen(frozenset(), f"hedged: {rest[:60]!r} after the letter {letter} names another one")
    return Chosen(frozenset(letter))


def _known(letters: Sequence[str], choices: Choices) -> Chosen:
    for letter in letters:
        if letter not in choices.letters:
            return Chosen(
                frozenset(), f"there is no choice {letter}, only {choices.letters[0]} to {choices.letters[-1]}"
            )
    if len(set(letters)) < len(letters):
        return Chosen(frozenset(), "a letter is repeated")
    return Chosen(frozenset(letters))


@lru_cache(maxsize=4096)
def true_letters(answers: tuple[str, ...], options: tuple[str, ...] = ()) -> tuple[frozenset[str], ...]:
    """The accepted sets of letters. Raises ``ValueError`` for a truth that is no choice, or options that are none."""
    choices, found = make_choices(options) if options else _LETTERS_ONLY, []
    for answer in answers:
        chosen = read_choice(answer, choices)
        if not chosen.letters:
            raise ValueError(f"the true answer {answer!r} is no choice: {chosen.reason}")
        found.append(chosen.letters)
    return tuple(found)


class Question(NamedTuple):
    """What a choice is held against."""

    choices: Choices
    wanted: tuple[frozenset[str], ...]
    """The accepted sets of letters."""

    def stated(self, words: str) -> frozenset[str] | None:
        """The letters that a few words choose, None where they choose none."""
        return read_choice(words, self.choices).letters or None


def _named(letters: frozenset[str]) -> str:
    return ", ".join(sorted(letters))


class MultipleChoice(PerQuestion[Question]):
    """1 for exactly the right letter, or exactly the right set of them, otherwise 0."""

    name = "multiple_choice"
    card = Card(
        summary=(
            "1 if the chosen letter, or set of letters, is a true one. Each entry of reference.answers is a whole right "
            "answer: a letter, letters such as AC, or the text of an option."
        ),
        range="correct: 0 or 1",
        transform="none",
        source="exact match of letters as in XLRS-Bench (arXiv 2503.23771); the reading rules are this project's and stricter",
        gaming=(
            "Several letters instead of one, a letter with the text of another option, and letters inside a sentence "
            "are invalid."
        ),
    )
    worst_facts = {"raw": {"correct": 0.0}, "stats": {"correct": np.zeros(())}}

    class Config(AnswerConfig):
        """Configuration of ``multiple_choice``."""

        metric_kinds: tuple[str, ...] = Field((), description="kinds to report as oa/<kind>")
        variants: bool = Field(
            False,
            description="also report majority, all_variants and consistency over the wordings of a question: samples whose ids are equal up to their last '#'",
        )

    def truth(self, sample: Sample) -> Question:
        texts = plain_truths(texts_of(sample.reference, "choices"))
        choices = make_choices(texts) if texts else _LETTERS_ONLY
        return Question(choices, true_letters(true_answers(sample), texts))

    def compare_text(self, truth: Question, text: str) -> Score:
        letters, reason = read_choice(
            known(*extract_answer(text, self.config.extract, str.strip, truth.stated)), truth.choices
        )
        if not letters:
            raise Unreadable(reason)
        if len(letters) > 1 and all(len(true) == 1 for true in truth.wanted):
            raise Unreadable(f"hedged: {_named(letters)} where one choice is asked for")
        right = letters in truth.wanted
        why = "" if right else f"chose {_named(letters)}, not {' or '.join(map(_named, truth.wanted))}"
        return Score(
            float(right),
            raw={"correct": float(right)},
            stats={"correct": np.asarray(float(right))},
            reason=why,
            content={"answer": _named(letters)} if self.config.variants else {},
        )

    def metrics(self) -> Sequence[Metric]:
        kinds = KindAccuracy(("oa", "aa", *(f"oa/{kind}" for kind in self.config.metric_kinds)))
        return (ACCURACY, kinds, *((PromptVariants(),) if self.config.variants else ()))
