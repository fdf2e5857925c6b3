"""Whether an answer has the agreed form, whatever it says: one answer tag, or a short text that was not cut off."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.records import Output
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.answer_metrics import quotients
from rsw_rewards.verifiers.texts import OfForm

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_ANSWER_TAG = re.compile(r"</?answer>", re.IGNORECASE)
_THINK_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)


def format_problem(
    text: str, mode: Literal["tag", "whole"] = "whole", max_words: int = 64, finish_reason: str | None = None
) -> str:
    """What is wrong with the form of a text; empty if nothing is.

    Args:
        text: what the policy wrote.
        mode: ``"tag"``: exactly one ``<answer>..</answer>``, not empty, nothing but blanks behind it, and outside any
            ``<think>..</think>``. ``"whole"``: the text is the answer and has no tags.
        max_words: longest answer, in words between blanks.
        finish_reason: ``"length"`` for a text that was cut off.
    """
    if finish_reason == "length":
        return "the text was cut off at the length limit"
    answer = text
    if mode == "tag":
        tags = len(
            _ANSWER_TAG.findall(text)
        )  # counted first: a search for pairs takes long where many are never closed
        found = _ANSWER.search(text) if tags == 2 else None
        if found is None:
            return f"{tags} opening and closing answer tags instead of one <answer>..</answer>"
        if text[found.end() :].strip():
            return "text behind the answer tag"
        thoughts = _THINK_TAG.findall(text[: found.start()])
        if thoughts not in ([], ["", "/"]) or _THINK_TAG.search(found[1]):
            return "the answer tag does not follow one closed <think> block"
        answer = found[1]
    elif _ANSWER_TAG.search(text) or _THINK_TAG.search(text):
        return "the text has tags, but was to be the answer itself"
    words = len(answer.split())
    if not words:
        return "the answer is empty"
    return f"{words} words, more than the {max_words} allowed" if words > max_words else ""


class AnswerFormat(OfForm):
    """1 for a well-formed text. Says nothing about whether it is right."""

    name = "answer_format"
    card = Card(
        summary="1 if a text has the agreed form: one answer tag and nothing after it, or a short text that was not cut "
        "off.",
        range="well_formed: 0 or 1",
        transform="none",
        source="the tag convention of R1-style training; the rules are this project's",
        gaming=("Every well-formed text gets 1, right or wrong. Give it a weight of at most 0.1, or use it as a gate."),
    )

    class Config(NoConfig):
        """Configuration of ``answer_format``."""

        mode: Literal["tag", "whole"] = Field(
            "whole", description="tag: one answer tag at the end; whole: the text is the answer"
        )
        max_words: int = Field(64, ge=1, description="longest answer in words")

    reported = (quotients({"format_rate": ("well_formed", "n")}),)

    def compare(self, truth: None, output: Output) -> Score:
        problem = format_problem(output.text or "", self.config.mode, self.config.max_words, output.finish_reason)
        value = float(not problem)
        raw, stats = {"well_formed": value}, {"well_formed": np.asarray(value)}
        return Score.invalid(problem, raw=raw, stats=stats) if problem else Score(1.0, raw=raw, stats=stats)
