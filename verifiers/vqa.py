"""VQA accuracy over ten annotators, with the official normaliser and its oddities: the ``vqa_accuracy`` verifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.verifiers.answer_metrics import quotients
from rsw_rewards.verifiers.answers import true_answers
from rsw_rewards.verifiers.texts import PerText, filled

ANNOTATORS = 10

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_GROUPED = re.compile(r"\d,\d")
# The original means to spare decimals on both sides and writes (?!<=\d), which holds everywhere: "1." loses its stop.
_STOP = re.compile(r"\.(?!\d)")
_STOPS_REMOVED = 32  # the original passes re.UNICODE, which is 32, as the count
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = frozenset({"a", "an", "the"})


def _contractions() -> dict[str, str]:
    """Contractions by their spellings with one apostrophe left out, as the table of the original has them."""
    full = """
        ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
        he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
        o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
        someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
        there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
        what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
        wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
    """
    table = {
        word[:place] + word[place + 1 :]: word
        for word in full.split()
        for place, sign in enumerate(word)
        if sign == "'"
    }
    return {**table, "somebody'd": "somebodyd"}  # the other way round in the original


CONTRACTIONS = _contractions()


def normalise_vqa(text: str) -> str:
    """The normal form of an answer in the official VQA script (GT-Vision-Lab/VQA PythonEvaluationTools/vqaEvaluation/vqaEval.py).

    Punctuation: each sign is dropped if it stands beside a blank anywhere in the text or if the text has a comma between two
    digits, otherwise it becomes a blank; full stops go unless a digit follows. Then lower case, number words up to ten as
    digits (``none`` is 0), articles off, apostrophes put back into contractions. Signs are lost: ``-3`` becomes ``3``.
    """
    grouped = _GROUPED.search(text) is not None
    plain = text
    for sign in _PUNCTUATION:
        if sign in text:
            plain = plain.replace(sign, "" if grouped or f"{sign} " in text or f" {sign}" in text else " ")
    plain = _STOP.sub("", plain, count=_STOPS_REMOVED)
    words = (_NUMBERS.get(word, word) for word in plain.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=4096)
def _annotations(answers: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The answers as they are compared, and whether they are normalised: only where annotators disagree."""
    trimmed = tuple(map(_trimmed, answers))
    disagree = len(set(trimmed)) > 1
    return (tuple(map(normalise_vqa, trimmed)) if disagree else trimmed), disagree


def vqa_accuracy(text: str, answers: Sequence[str]) -> float:
    """VQA accuracy of a text in [0, 1]: mean over annotators of ``min(1, equal answers of the other annotators / 3)``.

    Nothing is normalised where all annotators wrote the same, so that "Yes!" is wrong beside ten times "yes". A single
    annotator has no others: the accuracy is then 0 whatever the text.

    Args:
        text: the answer to score.
        answers: one answer per annotator, at least one.
    """
    compared, disagree = _annotations(tuple(answers))
    answer = _trimmed(text)
    answer = normalise_vqa(answer) if disagree else answer
    equal = compared.count(answer)
    return sum(min(1.0, (equal - (other == answer)) / 3) for other in compared) / len(compared)


class VqaAccuracy(PerText[tuple[str, ...]]):
    """How many of ten annotators an answer agrees with, as VQA counts it."""

    name = "vqa_accuracy"
    tasks = frozenset({Task.CHANGE_QA})
    needs = frozenset({"output.text", "reference.answers"})
    card = Card(
        summary="VQA accuracy over ten annotators' answers, texts normalised as the official script does.",
        range="vqa_accuracy: 0, 0.3, 0.6, 0.9 or 1",
        transform="none",
        source="VQA v2 (arXiv 1612.00837), GT-Vision-Lab/VQA vqaEval.py",
        gaming=(
            "The whole text is the answer, so lists and sentences get 0, and an empty text is invalid. The most common "
            "answers get much: compare with the baseline majority."
        ),
    )
    reported = (quotients({"accuracy": ("vqa_accuracy", "n")}),)
    worst_facts = {"raw": {"vqa_accuracy": 0.0}, "stats": {"vqa_accuracy": np.zeros(())}}

    def truth(self, sample: Sample) -> tuple[str, ...]:
        answers = true_answers(sample)
        if len(answers) != ANNOTATORS:
            raise ValueError(
                f"it has {len(answers)} answers, VQA accuracy is over those of {ANNOTATORS} annotators; use exact_match for"
                " questions with one answer"
            )
        return answers

    def compare_text(self, truth: tuple[str, ...], text: str) -> Score:
        filled(text)
        accuracy = vqa_accuracy(text, truth)
        why = "" if accuracy == 1 else f"answered {text[:60]!r}, annotators {', '.join(sorted(set(truth)))[:120]!r}"
        raw, stats = {"vqa_accuracy": accuracy}, {"vqa_accuracy": np.asarray(accuracy)}
        return Score(accuracy, raw=raw, stats=stats, reason=why)
