"""The answer in a text that a model wrote: what is left of it without reasoning, chat tokens and characters of no width."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Part = Literal["reasoning", "chat_tokens", "zero_width"]
"""What may be taken off a text."""

CUT_OFF = "the text was cut off inside its reasoning"
NOTHING_SAID = "nothing stands after the reasoning"
AT_LIMIT = "cut off at the length limit, before its end"
TRUNCATED = frozenset({"length", "max_tokens", "model_length"})
"""Reasons to finish of a text that was cut off: OpenAI's and most servers', Anthropic's, Mistral's."""

ZERO_WIDTH = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+")
# The second pair of brackets is Kimi's. A tag may have a blank in it, or attributes.
_REASONING = re.compile(
    r"(?P<start>[<\u25c1])\s?(?P<closes>/?)\s?(?P<name>think(?:ing)?)(?:\s[^<>\u25b7]{0,40})?(?P<end>[>\u25b7])",
    re.IGNORECASE,
)
_CHAT_TOKEN = re.compile(
    r"(?:<\|(?:im_start|start_header_id)\|>|<start_of_turn>)\s*(?:assistant|model)\b"
    r"|<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|</?s>|<(?:bos|eos|pad|(?:start|end)_of_turn|end_of_utterance)>",
    re.IGNORECASE,
)


class Reply(NamedTuple):
    """A text as it is read."""

    answer: str
    """The text without what is no part of an answer; empty where it was cut off inside its reasoning."""
    problem: str = ""
    """Why there is no answer; empty where there may be one."""
    taken: tuple[Part, ...] = ()
    """What was taken off."""


def is_bare(text: str) -> bool:
    """Whether a text certainly holds nothing that is taken off: ASCII without a tag. Costs nanoseconds."""
    return "<" not in text and text.isascii()


def is_reasoning_tag(text: str) -> bool:
    """Whether a text is a tag that opens or closes reasoning, and nothing else.

    >>> is_reasoning_tag("</think>"), is_reasoning_tag("<answer>")
    (True, False)
    """
    return _REASONING.fullmatch(text) is not None


def opened_reasoning(text: str) -> str:
    """The tag of the reasoning that a text leaves open, and all that stands behind it; empty where it leaves none open.

    >>> opened_reasoning("<|im_start|>assistant\\n<think>\\n"), opened_reasoning("<think>\\n</think>\\n")
    ('<think>\\n', '')
    """
    tags = list(_REASONING.finditer(text))
    return "" if not tags or tags[-1]["closes"] else text[tags[-1].start() :]


def closing_tag(opened: str) -> str:
    """The tag that closes what :func:`opened_reasoning` gives.

    >>> closing_tag("<think>\\n")
    '</think>'
    """
    tag = _REASONING.match(opened)
    return "" if tag is None else f"{tag['start']}/{tag['name']}{tag['end']}"


def read_reply(text: str, finish_reason: str | None = None) -> Reply:
    """The answer in a text, without reasoning, chat tokens and characters of no width.

    Reasoning is all that stands before the last ``</think>``, whether it was opened or not. A ``<think>`` after that is never
    closed: the text was cut off, and there is no answer. Neither is there one in a text of which ``finish_reason`` says that it was
    cut off and that holds no ``</think>``: a chat template may have opened its reasoning. A chat token between words leaves a
    blank. Where nothing is taken off, the answer is the text itself. The time is linear in the length of the text.

    >>> read_reply("<think>the roofs differ</think>\\nno<|im_end|>")
    Reply(answer='no', problem='', taken=('reasoning', 'chat_tokens'))
    >>> read_reply("<think>the roofs").problem
    'the text was cut off inside its reasoning'
    >>> read_reply("I compare the", "length")
    Reply(answer='', problem='cut off at the length limit, before its end', taken=())
    """
    cut = AT_LIMIT if finish_reason in TRUNCATED else ""
    if is_bare(text):
        return Reply("", cut) if cut else Reply(text)
    taken: list[Part] = []
    plain = ZERO_WIDTH.sub("", text)
    start, is_open = 0, False
    for tag in _REASONING.finditer(plain):
        start, is_open = (tag.end(), False) if tag["closes"] else (start, True)
    if start or is_open:
        taken.append("reasoning")
    said, tokens = _CHAT_TOKEN.subn(" ", "" if is_open or (cut and not start) else plain[start:])
    if tokens:
        taken.append("chat_tokens")
    if taken:
        said = said.strip()
    problem = CUT_OFF if is_open else cut or (NOTHING_SAID if start and not said else "")
    return Reply(said, problem, (*taken, "zero_width") if len(plain) < len(text) else tuple(taken))
