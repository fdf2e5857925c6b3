"""A client of OpenAI-compatible chat servers (vLLM, a vendor's): concurrent, with back-off, budgets and a cache by content.

It stands on httpx. The openai package holds the whole of a reply before its size can be refused, and its retries know no budget.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from rsw_rewards.core.files import write_text
from rsw_rewards.errors import ConfigError, RswError
from rsw_rewards.io.chat_reply import Answer, fault_of_all, is_filtered, read_completion

if TYPE_CHECKING:
    import httpx

LONGEST_WAIT_S = 60.0
"""No server's Retry-After, and no back-off, makes a request wait longer."""
LARGEST_ANSWER = 4 << 20
"""Bytes of an answer that are read; a chat completion is far below."""
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class EndpointError(RswError):
    """A request that got no answer: refused, timed out on every try, or not understood. Never the policy's fault."""


class UnusableEndpointError(EndpointError):
    """A server that answers no request: a wrong address, key, model or certificate, or nobody there. Found before its first answer."""


class BudgetSpentError(EndpointError):
    """A request that was not sent, because the calls or tokens that a user allowed are used up."""


class EndpointConfig(BaseModel):
    """Where a chat model is served and how hard it may be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("", description="address up to and with /v1, such as http://localhost:8000/v1")
    model: str = Field("", description="the model's name at that server")
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; the key itself is never stored"
    )
    max_tokens: int = Field(512, ge=1, description="longest answer, in tokens")
    timeout_s: float = Field(120.0, gt=0, description="longest wait for one answer")
    retries: int = Field(5, ge=0, description="tries after the first for busy or broken servers")
    concurrency: int = Field(8, ge=1, le=256, description="requests in flight at once")
    max_calls: int | None = Field(None, ge=0, description="budget: requests that may be sent; cached ones are free")
    max_total_tokens: int | None = Field(
        None, ge=0, description="budget: tokens (prompt and answer) after which it stops"
    )
    cache: Path | None = Field(None, description="folder where answers are kept by content; default: not kept")
    extra: dict[str, Any] = Field(default_factory=dict, description="further fields of the request's body")


@dataclass(slots=True)
class Usage:
    """What a client has used so far."""

    calls: int = 0
    cached: int = 0
    retries: int = 0
    tokens: int = 0


class ChatClient:
    """Asks a chat server. Safe to use from several threads.

    Args:
        config: where and how.

    Raises:
        ConfigError: the address or the model's name is missing, or the address or the key cannot be used.
    """

    def __init__(self, config: EndpointConfig) -> None:
        if not config.base_url or not config.model:
            raise ConfigError("an endpoint needs base_url (such as http://localhost:8000/v1) and model")
        if not config.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"the endpoint's base_url {config.base_url!r} must begin with http:// or https://")
        import httpx

        try:
            httpx.URL(config.base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"the endpoint's base_url {config.base_url!r} is no address: {error}") from None
        key = os.environ.get(config.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"the key in the environment variable {config.api_key_env} holds characters that no key has; put it there again"
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.config = config
        self.usage = Usage()
        self._has_key = bool(key)
        self._answered = False
        self._unusable: UnusableEndpointError | None = None
        self._lock = threading.Lock()
        self._http: httpx.Client = httpx.Client(headers=headers, timeout=config.timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask_all(self, requests: Sequence[Mapping[str, Any]]) -> list[Answer | EndpointError]:
        """Answers in the order of the requests; a request that fails gives its error and costs the others nothing.

        Args:
            requests: bodies of chat completions without ``model`` (``messages``, ``temperature``, ``seed``).
        """
        if not requests:
            return []
        with ThreadPoolExecutor(min(self.config.concurrency, len(requests))) as pool:
            return list(pool.map(self._guarded, requests))

    def _guarded(self, request: Mapping[str, Any]) -> Answer | EndpointError:
        try:
            return self.ask(request)
        except EndpointError as error:
            return error

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """The first choice of one chat completion.

        Raises:
            BudgetSpentError: a budget is used up.
            UnusableEndpointError: the server answers no request; it is not asked again.
            EndpointError: no usable answer after all tries.
        """
        body = {"model": self.config.model, "max_tokens": self.config.max_tokens, **self.config.extra, **request}
        key = hashlib.sha256(json.dumps([self.config.base_url, body], sort_keys=True).encode()).hexdigest()
        if (kept := self._kept(key)) is not None:
            with self._lock:
                self.usage.cached += 1
            return kept
        if self._unusable is not None:
            raise self._unusable
        self._reserve()
        try:
            answer = read_completion(self._post(body))
        except ValueError as error:
            raise EndpointError(str(error)) from error
        with self._lock:
            self._answered = True
            self.usage.tokens += answer.prompt_tokens + answer.completion_tokens
        self._keep(key, answer)
        return answer

    def _reserve(self) -> None:
        """Count a call before it is sent, so that requests in flight cannot overrun the budget together."""
        limit, tokens = self.config.max_calls, self.config.max_total_tokens
        with self._lock:
            if limit is not None and self.usage.calls >= limit:
                raise BudgetSpentError(f"the budget of {limit} calls is spent; raise max_calls")
            if tokens is not None and self.usage.tokens >= tokens:
                raise BudgetSpentError(f"the budget of {tokens} tokens is spent; raise max_total_tokens")
            self.usage.calls += 1

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        url = f"{self.config.base_url.rstrip('/')}/chat/completions"
        why = ""
        for attempt in range(self.config.retries + 1):
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            wait = wait_s(attempt, LONGEST_WAIT_S)
            nobody = False
            try:
                with self._http.stream("POST", url, json=dict(body)) as response:
                    content = _limited(response)
                why = f"status {response.status_code}: {_message(content)}"
                if is_filtered(response.status_code, content):
                    return {"choices": [{"message": {}, "finish_reason": "content_filter"}]}
                if fault := self._fault_of_all(response, content):
                    raise self._stopped(f"{url} {fault} ({why})")
                if response.status_code == 200:
                    return _object(content)
                if response.status_code not in _RETRIED:
                    raise EndpointError(f"{url} refused the request ({why})")
                wait = wait_s(attempt, LONGEST_WAIT_S, response.headers.get("retry-after"))
            except httpx.TimeoutException:
                why = f"no answer within {self.config.timeout_s:g} s"
            except httpx.HTTPError as error:
                why, nobody = f"{type(error).__name__}: {error}", isinstance(error, httpx.ConnectError)
                if _is_of_tls(error):
                    raise self._stopped(
                        f"{url} cannot be reached by TLS ({error}); begin base_url with http:// where the server has no certificate,"
                        " or name the file of its authority in the environment variable SSL_CERT_FILE"
                    ) from error
            if attempt < self.config.retries:
                time.sleep(wait)
        gave_none = f"{url} gave no answer in {self.config.retries + 1} tries ({why})"
        if nobody:
            raise self._stopped(f"{gave_none}; start the server, or correct base_url")
        raise EndpointError(gave_none)

    def _fault_of_all(self, response: httpx.Response, content: bytes) -> str:
        config, location = self.config, response.headers.get("location", "")
        return fault_of_all(
            response.status_code, location, content, config.base_url, config.model, config.api_key_env, self._has_key
        )

    def _stopped(self, why: str) -> EndpointError:
        """The error of a fault that every request would meet; after a first answer it may pass, and costs its own request alone."""
        if self._answered:
            return EndpointError(why)
        self._unusable = UnusableEndpointError(why)
        return self._unusable

    def _path(self, key: str) -> Path | None:
        return None if self.config.cache is None else Path(self.config.cache) / key[:2] / f"{key}.json"

    def _kept(self, key: str) -> Answer | None:
        path = self._path(key)
        try:
            record = json.loads(path.read_bytes()) if path is not None else None
            return replace(Answer(**record), cached=True) if isinstance(record, dict) else None
        except (OSError, ValueError, TypeError):  # not there, or damaged: asked again
            return None

    def _keep(self, key: str, answer: Answer) -> None:
        path = self._path(key)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(answer), ensure_ascii=False))


def wait_s(attempt: int, longest: float, retry_after: str | None = None) -> float:
    """Seconds before the next try: what the server asks for, or half a second doubled with every try, spread at random.

    Args:
        attempt: tries before this one.
        longest: the most that is waited, whatever the server asks for.
        retry_after: the header of that name; a date in it is not read.

    >>> wait_s(0, 30.0, "2"), wait_s(0, 30.0, "900"), 0.25 <= wait_s(0, 30.0) <= 0.5
    (2.0, 30.0, True)
    """
    if retry_after:
        try:
            return min(longest, max(0.0, float(retry_after)))
        except ValueError:
            pass
    return min(longest, 0.5 * 2**attempt) * (0.5 + random.random() / 2)


def _is_of_tls(error: BaseException) -> bool:
    """Whether an error comes of one in TLS: of a certificate, or of a server that does not speak it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _limited(response: httpx.Response) -> bytes:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > LARGEST_ANSWER:
            raise EndpointError(f"the server's answer is larger than {LARGEST_ANSWER >> 20} MiB")
    return bytes(content)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EndpointError(f"the server's answer is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise EndpointError(f"the server's answer is a JSON {type(value).__name__}, not an object")
    return value


def _message(content: bytes) -> str:
    return " ".join(content[:300].decode("utf-8", "replace").split())
