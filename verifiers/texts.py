"""What the verifiers of texts share: which part of a text is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rsw_rewards.core.answer import Reply, is_bare, read_reply
from rsw_rewards.core.records import Output
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import PerSample, T

Thinking = Literal["strip", "keep"]
"""Whether reasoning, chat tokens and characters of no width are taken off a text before it is read."""


class TextConfig(BaseModel):
    """Configuration of a verifier of what a text says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thinking: Thinking = Field(
        "strip", description="strip: reasoning and chat tokens are no part of the answer; keep: the whole text is read"
    )


def reply_of(output: Output, thinking: Thinking) -> Reply:
    """The text of an output as it is read; an output without one is an empty text."""
    text = output.text or ""
    return read_reply(text) if thinking == "strip" else Reply(text)


class PerText(PerSample[T]):
    """Base of the verifiers that hold what a text says against the truth.

    A text that was cut off inside its reasoning is the worst. ``raw`` names what was taken off a text: ``took_reasoning``,
    ``took_chat_tokens`` and ``took_zero_width`` are 1.
    """

    Config: ClassVar[type[BaseModel]] = TextConfig

    @abstractmethod
    def compare_text(self, truth: T, text: str) -> Score:
        """The score of one answer."""

    def compare_texts(self, truths: Sequence[T], texts: Sequence[str]) -> list[Score]:
        """The scores of several answers; override it where a network looks at many at once."""
        return [self.compare_text(truth, text) for truth, text in zip(truths, texts, strict=True)]

    def compare(self, truth: T, output: Output) -> Score:
        return self.compare_all([truth], [output])[0]

    def compare_all(self, truths: Sequence[T], outputs: Sequence[Output]) -> list[Score]:
        texts = [output.text or "" for output in outputs]
        if self.config.thinking == "keep" or is_bare("".join(texts)):
            return self.compare_texts(truths, texts)
        replies = [read_reply(text) for text in texts]
        read = [row for row, reply in enumerate(replies) if not reply.problem]
        found = iter(self.compare_texts([truths[row] for row in read], [replies[row].answer for row in read]))
        return [
            _noted(self.worst(truth, reply.problem) if reply.problem else next(found), reply)
            for truth, reply in zip(truths, replies, strict=True)
        ]


def _noted(score: Score, reply: Reply) -> Score:
    return replace(score, raw={**score.raw, **{f"took_{part}": 1.0 for part in reply.taken}}) if reply.taken else score
