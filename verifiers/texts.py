"""What the verifiers of texts share: which part of a text is read."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from rsw_rewards.core.answer import Reply, is_bare, read_reply
from rsw_rewards.core.per_sample import PerSample, T
from rsw_rewards.core.records import Output, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, NoConfig
from rsw_rewards.errors import Unreadable

Thinking = Literal["strip", "keep"]
"""Whether reasoning, chat tokens and characters of no width are taken off a text before it is read."""


class TextConfig(NoConfig):
    """Configuration of a verifier of what a text says."""

    thinking: Thinking = Field(
        "strip", description="strip: reasoning and chat tokens are no part of the answer; keep: the whole text is read"
    )


class PerText(PerSample[T]):
    """Base of the verifiers that hold what a text says against the truth.

    A text that was cut off inside its reasoning is the worst. ``raw`` names what was taken off a text: ``took_reasoning``,
    ``took_chat_tokens`` and ``took_zero_width`` are 1.
    """

    needs = frozenset({"output.text"})
    Config: ClassVar[type[TextConfig]] = TextConfig

    @abstractmethod
    def compare_text(self, truth: T, text: str) -> Any:
        """The score of one answer, or what :meth:`rate` scores it by. Raises :class:`Unreadable` for one that cannot be used."""

    def compare(self, truth: T, output: Output) -> Any:
        # Of one output; `score` does the same for many at once, and notes what was taken off.
        return self.compare_text(truth, answer_in(output, self.config.thinking))

    def score(self, batch: Batch) -> list[Score]:
        texts = [output.text or "" for output in batch.outputs]
        if self.config.thinking == "keep" or is_bare(
            "".join(texts)
        ):  # all at once, since most hold nothing to take off
            return self.scores_of(self.compare_text, batch, texts)
        replies = [read_reply(text) for text in texts]
        scores = self.scores_of(self._compare_reply, batch, replies)
        return [_noted(*pair) for pair in zip(scores, replies, strict=True)]

    def _compare_reply(self, truth: T, reply: Reply) -> Any:
        return self.compare_text(truth, answer_of(reply))


class OfForm(PerSample[None]):
    """Base of the verifiers of the form of a text, whatever it says."""

    tasks = frozenset({Task.CHANGE_QA, Task.CLASSIFICATION, Task.CHANGE_CAPTION})
    needs = frozenset({"output.text"})


def answer_in(output: Output, thinking: Thinking = "strip") -> str:
    """The answer in the text of an output, empty where it has none. Raises :class:`Unreadable` for one that was cut off before it."""
    text = output.text or ""
    return answer_of(read_reply(text)) if thinking == "strip" else text


def answer_of(reply: Reply) -> str:
    """The answer of a reply. Raises :class:`Unreadable` for one that was cut off before it."""
    if reply.problem:
        raise Unreadable(reply.problem)
    return reply.answer


def filled(text: str, what: str = "answer") -> str:
    """A text without outer blanks. Raises :class:`Unreadable` where nothing is left."""
    if not (bare := text.strip()):
        raise Unreadable(f"the {what} is empty")
    return bare


V = TypeVar("V")


def known(value: V | None, reason: str) -> V:
    """A value that was read. Raises :class:`Unreadable` with the reason where there is none."""
    if value is None:
        raise Unreadable(reason)
    return value


def _noted(score: Score, reply: Reply) -> Score:
    return replace(score, raw={**score.raw, **{f"took_{part}": 1.0 for part in reply.taken}}) if reply.taken else score
