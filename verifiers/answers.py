"""Closed-vocabulary and exact answers: how an answer is read out of a text, held against true ones, and scored."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from rsw_rewards.core.answer import ZERO_WIDTH, is_bare, read_reply
from rsw_rewards.core.per_sample import T
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.verifiers.contradictions import States, contradiction
from rsw_rewards.verifiers.texts import PerText, TextConfig

Extract = Literal["auto", "tag", "whole"]
"""Where the answer stands: between answer tags, in the whole text, or (auto) in tags if the text has any."""

_ANY_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
LONGEST_CACHED = 400  # characters: the caches below must stay small under rambling policies

# Shared by every score that says the same, so that a score costs no arrays of its own. Read-only for that reason.
_ONE = np.ones(())
_ZERO = np.zeros(())
_ONE.setflags(write=False)
_ZERO.setflags(write=False)


class Reading(NamedTuple):
    """An answer read out of a text, or why there is none."""

    answer: str | None
    reason: str = ""


def normalise(text: str) -> str:
    """NFKC, lower case, characters of no width off, outer blanks off, inner ones collapsed to one, one trailing full stop off.

    Hyphens, underscores and signs stay: CDVQA's ``0_to_10`` and ``low_vegetation`` are answers.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", ZERO_WIDTH.sub("", text))
    text = " ".join(text.lower().split())
    return text[:-1].rstrip() if text.endswith(".") else text


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def unpunctuated(text: str) -> str:
    """Lower case without ASCII punctuation, blanks as they are: ermongroup/TEOChat videollava/eval/classification.py."""
    return text.lower().translate(_PUNCTUATION)


NORMALISERS: Mapping[str, Callable[[str], str]] = {"strict": normalise, "unpunctuated": unpunctuated}
"""What is done to answers and truths before they are held against each other, by the name of the reading."""


def _tagged(text: str) -> tuple[list[str], list[str]]:
    """What stands between each opening answer tag and the next closing one, and what stands before, between and behind these;
    in one pass, however many tags are never closed."""
    found: list[str] = []
    beside: list[str] = []
    start: int | None = None
    end = 0
    for tag in _ANY_TAG.finditer(text):
        if not tag[1]:
            if start is None:
                start = tag.end()
                beside.append(text[end : tag.start()])
        elif start is not None:
            found.append(text[start : tag.start()])
            start, end = None, tag.end()
    return found, [*beside, text[end:]]


def extract_answer(
    text: str,
    extract: Extract = "auto",
    normalise: Callable[[str], str] = normalise,
    states: States | None = None,
) -> Reading:
    """The normalised answer that a text gives.

    Args:
        text: what the policy wrote.
        extract: ``"tag"``: ``<answer>..</answer>`` is required; repeated tags must agree, and the last counts. ``"whole"``:
            the text is the answer. ``"auto"``: tag rules as soon as an opening or closing answer tag occurs.
        normalise: applied to the answer.
        states: how a few words beside a tag are read as an answer, see :func:`contradiction`.

    Returns:
        The answer, or a reason why there is none: no tag, tags that do not pair up, different answers in tags or beside them, an
        empty answer.
    """
    answer: str
    if extract == "whole" or (extract == "auto" and ("<" not in text or not _ANY_TAG.search(text))):
        answer = normalise(text)
    else:
        tagged, beside = _tagged(text)
        found = [normalise(answer) for answer in tagged]
        if not found:
            return Reading(None, "no complete <answer>..</answer> tag")
        if len(_ANY_TAG.findall(text)) != 2 * len(found):
            return Reading(None, "answer tags do not pair up")
        if len(set(found)) > 1:
            return Reading(None, f"{len(found)} answer tags with different answers")
        answer = found[-1]
        if said := contradiction(answer, beside[0], " ".join(beside[1:]), states):
            return Reading(None, f"the answer tag says {answer[:60]!r}, the text beside it {said[:60]!r}")
    return Reading(answer) if answer and not answer.isspace() else Reading(None, "the answer is empty")


def chance_corrected(accuracy: float, chance: float) -> float:
    """``(accuracy - chance) / (1 - chance)``: 0 for guessing, 1 for perfect, negative below chance.

    Args:
        accuracy: share of right answers, in [0, 1].
        chance: what the guessing policy reaches, in [0, 1).

    Raises:
        ValueError: chance is outside [0, 1), where there is nothing left to be better at.
    """
    if not 0.0 <= chance < 1.0:
        raise ValueError(f"the chance level must lie in [0, 1), got {chance!r}")
    return (accuracy - chance) / (1.0 - chance)


def _answer_text(value: Any) -> str:
    """A true answer as a text; a whole number is written without a point, for a table with a gap holds 1 as 1.0."""
    if isinstance(value, np.number):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value) if value.is_integer() else value)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError(f"the true answer {value!r:.80} is neither a text nor a finite number")


def plain_truths(texts: Sequence[str]) -> tuple[str, ...]:
    """True texts as answers are held against them, without characters of no width.

    Raises:
        ValueError: one holds an answer tag, reasoning or a chat token, which is taken off every output, so that none could match.
    """
    if is_bare("".join(texts)):
        return tuple(texts)
    for text in texts:
        if _ANY_TAG.search(text) or set(read_reply(text).taken) - {"zero_width"}:
            raise ValueError(
                f"the true text {text!r:.80} holds an answer tag, reasoning or a chat token; write only what is the answer"
            )
    return tuple(ZERO_WIDTH.sub("", text) for text in texts)


def true_answers(sample: Sample) -> tuple[str, ...]:
    """The accepted answers of a sample as texts: ``answers`` of a question, ``label`` or ``labels`` of a classification.

    Raises:
        ValueError: there is none, all are blank, or one is neither a text nor a finite number, or is refused by
            :func:`plain_truths`. The data is at fault then.
    """
    reference = sample.reference
    answers = reference.get("answers")
    if answers is None:
        answers = [reference["label"]] if reference.get("label") is not None else reference.get("labels")
    if not isinstance(answers, (list, tuple)) or not answers:
        raise ValueError("there is no true answer")
    texts = plain_truths([answer if type(answer) is str else _answer_text(answer) for answer in answers])
    if not "".join(texts).strip():
        raise ValueError("the true answer is empty")
    return texts


def true_answer(sample: Sample) -> str:
    """The accepted answer of a sample that has one alone. Raises ``ValueError`` as :func:`true_answers` does, and for several."""
    answers = true_answers(sample)
    if len(answers) > 1:
        raise ValueError(f"there are {len(answers)} true answers where one is needed")
    return answers[0]


def texts_of(reference: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts in a reference, empty where there is none. Raises ``ValueError`` for anything else."""
    found = reference.get(key)
    if found is None:
        return ()
    try:
        "".join(found)  # refuses all but texts, several times faster than a loop over them
    except TypeError:
        found = None
    if not isinstance(found, (list, tuple)):
        raise ValueError(f"'reference.{key}' is {reference[key]!r:.80}, not a list of texts")
    return tuple(found)


class Rules(NamedTuple):
    """How answers are read and what is kept of them; see the options of ``exact_match``."""

    extract: Extract = "auto"
    reading: Literal["strict", "unpunctuated"] = "strict"
    synonyms: tuple[tuple[str, str], ...] = ()
    """Pairs (normalised variant, normalised answer that it stands for)."""
    positive: str = ""
    """The normalised positive answer; empty where there is none."""
    keep: bool = False
    """Whether the answer and the truth are kept as content."""


DEFAULT_RULES = Rules()


def rules_of(config: Any, positive: str = "", keep: bool = False) -> Rules:
    """The rules of a configuration with ``extract``, ``reading`` and ``synonyms``."""
    normal = NORMALISERS[config.reading]
    synonyms = tuple((normal(word), normal(to)) for word, to in sorted(config.synonyms.items()))
    return Rules(config.extract, config.reading, synonyms, normal(positive), keep)


class Truth(NamedTuple):
    """What an answer is held against, normalised once per question rather than once per candidate."""

    wanted: frozenset[str]
    """The accepted answers; equality with one of them is right."""
    entries: frozenset[str]
    """The closed set of answers; empty for an open question."""
    rules: Rules

    def named(self, answer: str) -> str:
        """The answer that a normalised one stands for."""
        return dict(self.rules.synonyms).get(answer, answer) if self.rules.synonyms else answer

    def stated(self, words: str) -> str | None:
        """The answer of the closed set that a few words are, None where they are none."""
        answer = self.named(NORMALISERS[self.rules.reading](words))
        return answer if answer in self.entries else None


@lru_cache(maxsize=4096)
def answer_truth(answers: tuple[str, ...], vocabulary: tuple[str, ...] = (), rules: Rules = DEFAULT_RULES) -> Truth:
    """What answers to a question are held against.

    Args:
        answers: accepted true answers.
        vocabulary: closed set of answers; empty for an open question.
        rules: how answers are read.

    Raises:
        ValueError: a true answer is empty or outside the vocabulary.
    """
    table, normal = dict(rules.synonyms), NORMALISERS[rules.reading]
    wanted, entries = (
        frozenset(table.get(word, word) for word in map(normal, words)) for words in (answers, vocabulary)
    )
    if "" in wanted or not wanted:
        raise ValueError("the true answer is empty")
    if entries and not wanted <= entries:
        raise ValueError(f"the true answer {min(wanted - entries)!r} is not in the vocabulary")
    return Truth(wanted, entries, rules)


_SEPARATORS = str.maketrans(",;/|&", "     ")


def _why_outside(answer: str, entries: frozenset[str]) -> str:
    words = f" {' '.join(answer.translate(_SEPARATORS).split())} "
    named = sorted(entry for entry in entries if entry in words and f" {entry} " in words)
    shown = answer if len(answer) <= 60 else answer[:57] + "..."
    if len(named) > 1:
        return f"hedged: {shown!r} names {len(named)} answers ({', '.join(named[:4])})"
    return f"{shown!r} is not one of the {len(entries)} allowed answers"


_FLAGS = {False: _ZERO, True: _ONE}
_RAW: Mapping[bool, Mapping[str, float]] = {right: {"correct": float(right)} for right in _FLAGS}
_STATS: Mapping[bool, Mapping[str, np.ndarray]] = {right: {"correct": _FLAGS[right]} for right in _FLAGS}
# What is not right counts as the other answer, unreadable or not: a false positive where the truth is negative.
_DETECTED: Mapping[tuple[bool, bool], Mapping[str, np.ndarray]] = {
    (right, positive): {
        "correct": _FLAGS[right],
        "tp": _FLAGS[right and positive],
        "fp": _FLAGS[not right and not positive],
        "fn": _FLAGS[not right and positive],
    }
    for right in _FLAGS
    for positive in _FLAGS
}


def _facts(truth: Truth, right: bool, answer: str) -> dict[str, Any]:
    """What a score holds beside its value."""
    wanted, rules = truth.wanted, truth.rules
    return {
        "raw": _RAW[right],
        "stats": _DETECTED[right, rules.positive in wanted] if rules.positive else _STATS[right],
        "content": {"truth": answer if right else min(wanted), "answer": answer} if rules.keep else {},
    }


def unanswered(truth: Truth, reason: str) -> Score:
    """The score of an output that gives no answer."""
    return Score.invalid(reason, **_facts(truth, False, ""))


def score_answer(text: str, truth: Truth) -> Score:
    """The score of one text: OK with value 1 or 0; INVALID_OUTPUT for no, several, or an answer outside the vocabulary."""
    wanted, entries, rules = truth
    answer, reason = extract_answer(text, rules.extract, NORMALISERS[rules.reading], truth.stated if entries else None)
    if answer is None:
        return unanswered(truth, reason)
    answer = truth.named(answer)
    if entries and answer not in entries:
        return unanswered(truth, _why_outside(answer, entries))
    right = answer in wanted
    why = "" if right else f"answered {answer[:60]!r}, not {' or '.join(map(repr, sorted(wanted)))}"
    return Score(float(right), reason=why, **_facts(truth, right, answer))


# Answers repeat: a closed question has few wordings, and a group has many equal candidates.
_score_cached = lru_cache(maxsize=16384)(score_answer)


class AnswerVerifier(PerText[Truth]):
    """Base of the verifiers that hold a whole answer against true ones; they say which are true."""

    def compare_text(self, truth: Truth, text: str) -> Score:
        return (_score_cached if len(text) <= LONGEST_CACHED else score_answer)(text, truth)

    def worst(self, truth: Truth, reason: str) -> Score:
        return unanswered(truth, reason)


class AnswerConfig(TextConfig):
    """Configuration of a verifier of an answer."""

    extract: Extract = Field("auto", description="where the answer stands: auto, tag or whole")


class PerQuestion(PerText[T]):
    """Base of the verifiers that read more than a word of a vocabulary in the answer to a question."""

    tasks = frozenset({Task.CHANGE_QA})
    needs = frozenset({"output.text", "reference.answers"})
    Config: ClassVar[type[AnswerConfig]] = AnswerConfig
