"""What a chat server replies: an answer, why the model gave none, or why the server cannot be used at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsw_rewards.core.answer import NOTHING_SAID, TRUNCATED

_TOOL = frozenset({"tool_calls", "function_call"})
_SERVER_FAILED = frozenset({"error", "abort", "insufficient_system_resource"})
"""Reasons to finish that are no doing of the model's: OpenRouter's, vLLM's and SGLang's, DeepSeek's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion.

    >>> Answer("", "length", reasoned=True).problem
    'cut off at max_tokens, inside its reasoning'
    """

    text: str
    """What the model said, without reasoning that the server gives apart."""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    refusal: str = ""
    """What the model said in a refusal."""
    reasoned: bool = False
    """Whether the server gave reasoning apart from the text."""

    @property
    def problem(self) -> str:
        """Why the model gave no whole answer, which is its own doing; empty where it gave one."""
        said = bool(self.text.strip())
        if self.refusal:
            return f"refused: {self.refusal}"
        if self.finish_reason == "content_filter":
            return "filtered: the server's content filter stopped the answer"
        if self.finish_reason == "length":
            where = "inside its reasoning" if self.reasoned and not said else "before its end"
            return f"cut off at max_tokens, {where}"
        if not said and self.finish_reason in _TOOL:
            return "it called a tool instead of answering"
        return NOTHING_SAID if self.reasoned and not said else ""


def read_completion(reply: Mapping[str, Any]) -> Answer:
    """The first choice of a chat completion.

    Its content is a text, null, or a list of parts, of which those of type ``text`` are the text.

    Raises:
        ValueError: the reply is of another form, or the server says in it that it failed.
    """
    if reply.get("error"):
        raise ValueError(f"the server failed: {_short(reply['error'])}")
    try:
        choice = reply["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason") or "")
        finish = "length" if finish in TRUNCATED else finish
        content = message.get("content")
        if finish in _SERVER_FAILED:
            raise ValueError(f"the server failed: finish_reason {finish!r} {_short(choice.get('error') or '')}".strip())
        if not isinstance(content, str | list | None):
            raise TypeError(f"its content is {type(content).__name__}")
        listed = content if isinstance(content, list) else [] if content is None else [content]
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in listed]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        refusals = [message.get("refusal"), *(part["refusal"] for part in parts if part["type"] == "refusal")]
        thoughts = [part for part in parts if part["type"] in ("thinking", "reasoning")]
        reasoned = bool(message.get("reasoning_content") or message.get("reasoning") or thoughts)
        usage = reply.get("usage") or {}
        asked, said = (int(usage.get(key) or 0) for key in ("prompt_tokens", "completion_tokens"))
        answer = Answer(
            "".join(texts),
            finish,
            asked,
            said,
            refusal=_short(" ".join(refusal for refusal in refusals if refusal)),
            reasoned=reasoned,
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"the server's reply is no chat completion: {type(error).__name__}: {error}") from error
    if not (texts or finish or answer.refusal or reasoned):
        raise ValueError("the server's reply is no chat completion: its message is empty and has no finish_reason")
    return answer


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:300]


def is_filtered(status: int, content: bytes) -> bool:
    """Whether a filter of the server's refused to have a request answered: Azure says so with status 400, OpenRouter with 403.

    >>> is_filtered(400, b'{"error": {"code": "content_filter"}}')
    True
    """
    return status in (400, 403) and any(word in content for word in (b"content_filter", b"moderation"))


def fault_of_all(
    status: int, location: str, content: bytes, base_url: str, model: str, key_variable: str, has_key: bool
) -> str:
    """Why a server answers no request at all, and what to do: a clause whose subject is the address.

    Args:
        status: of the reply.
        location: its header of that name.
        content: its body.
        base_url, model: what the user gave.
        key_variable: the environment variable that holds the key.
        has_key: whether it holds one.

    Returns:
        Empty where the reply is of another kind: what is wrong may then be wrong with one request.

    >>> fault_of_all(401, "", b"", "http://localhost:8000/v1", "m", "OPENAI_API_KEY", False)
    'wants a key; put it into the environment variable OPENAI_API_KEY'
    """
    is_page = content[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))
    if 300 <= status < 400:
        return (
            f"sends its callers to {location or 'another address'}; give that address as base_url, up to and with /v1"
        )
    if status == 401 and not has_key:
        return f"wants a key; put it into the environment variable {key_variable}"
    if status == 401:
        return f"does not accept the key; correct the environment variable {key_variable}"
    if status == 402 or b"insufficient_quota" in content:
        return "says that the account has no credit left; fill it up"
    if status == 403:
        return f"forbids this; check that the key in {key_variable} may use the model {model!r}"
    if status == 404 and not is_page and re.search(rb"model", content, re.IGNORECASE):
        return f"serves no model {model!r}; give 'model' as {base_url.rstrip('/')}/models lists it"
    if status in (404, 405) or (status == 200 and is_page):
        return "is not where a chat model is served; give base_url up to and with /v1, such as http://localhost:8000/v1"
    return ""
