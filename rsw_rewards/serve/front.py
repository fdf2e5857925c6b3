"""What stands before every request, in the proxies of Ray Serve and in each replica: the token, and the limits of a body."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsw_rewards.errors import ConfigError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SETTINGS = "RSW_SERVE_FRONT"
"""The environment variable by which the proxies of Ray Serve get the settings of their fronts."""
OPEN = frozenset({"/health", "/ready"})
"""Routes that need no token: they say nothing of the rubric or the samples."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        kind: what kind of error it is, for programs.
        message: one sentence.
        retry_after: seconds after which it may be sent again; None where that would not help.
    """

    def __init__(self, status: int, kind: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.retry_after = status, kind, message, retry_after


def digest(token: str) -> str:
    """The SHA-256 of a token, in hex: what a cluster is told of it."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What a front lets through."""

    token: str = ""
    """The SHA-256 of the bearer token; empty where none is asked for."""
    body: int = 64 << 20
    """Bytes of a body."""
    held: int = 512 << 20
    """Bytes of all bodies that a process holds at once."""
    seconds: float = 60.0
    """In which a body must come."""

    def dump(self) -> str:
        return json.dumps(asdict(self))


class Front:
    """An ASGI application that reads the body, up to its limits, before the application behind it is asked.

    Args:
        app: the application behind it.
        settings: what is let through.
    """

    def __init__(self, app: App, settings: FrontSettings) -> None:
        self._app, self._settings = app, settings
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = _request_id(headers)
        started, size = False, 0

        async def named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                rest = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*rest, (b"x-request-id", request_id.encode())]}
            await send(message)

        def take(count: int) -> None:
            nonlocal size
            size += count
            self._held += count
            if size > self._settings.body:
                raise _too_large(self._settings.body)
            if self._held > self._settings.held:
                raise Refusal(429, "busy", "the service holds as many bytes of requests as it may; try again", 1)

        try:
            self._check_token(scope, headers)
            body = await self._body(headers, receive, take)
            kept = [pair for pair in scope["headers"] if pair[0].lower() != b"x-request-id"]
            scope = {**scope, "headers": [*kept, (b"x-request-id", request_id.encode())]}
            await self._app(scope, _replayed(body, receive), named)
            if not started:  # as of a replica that died
                raise Refusal(503, "unavailable", "the replica that was asked is gone; try again", 1)
        except Refusal as refusal:
            if not started:
                await refuse(named, refusal, request_id)
        except Exception:
            _log.exception("request %s failed", request_id)
            if started:
                raise
            await refuse(named, Refusal(500, "internal", f"the request {request_id} failed; see the log"), request_id)
        finally:
            self._held -= size

    def _check_token(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if not self._settings.token or scope["path"] in OPEN:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = hashlib.sha256(given.strip()).hexdigest()
        if kind.lower() != b"bearer" or not hmac.compare_digest(found, self._settings.token):
            raise Refusal(401, "unauthorized", "the request needs the header 'Authorization: Bearer TOKEN'")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, take: Callable[[int], None]) -> bytes:
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > 18:
            raise Refusal(400, "invalid_request", "the header Content-Length is no number")
        if int(declared) > self._settings.body:
            raise _too_large(self._settings.body)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._settings.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "disconnected", "the client went away")
                    part = message.get("body", b"")
                    take(len(part))
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refusal(408, "slow", f"the body did not come within {self._settings.seconds:g} s", 1) from None


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too_large", f"the body has more than {most:,} bytes; send fewer items at once")


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def refuse(send: Send, refusal: Refusal, request_id: str) -> None:
    """Answer with an error of JSON."""
    error = {"type": refusal.kind, "message": refusal.message, "request_id": request_id}
    headers = [] if refusal.retry_after is None else [(b"retry-after", str(refusal.retry_after).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await answer(send, refusal.status, json.dumps({"error": error}).encode(), headers=headers)


async def answer(
    send: Send,
    status: int,
    body: bytes,
    kind: str = "application/json",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a whole answer."""
    about = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})


def middlewares() -> list[Any]:
    """What Ray Serve puts before its proxies: a front with the settings of the environment."""
    from starlette.middleware import Middleware

    settings = FrontSettings(**json.loads(os.environ.get(SETTINGS, "{}")))
    return [Middleware(Front, settings=settings)]


def token_of(file: Path | None, given: str, host: str, none: bool) -> str:
    """The bearer token of a service; empty for none.

    Args:
        file: that holds it.
        given: the one of the environment, where there is no file.
        host: where the service listens.
        none: whether it is to run without one.

    Raises:
        ConfigError: there is none, or one of fewer than 16 characters; or it would listen without one where other machines reach it.
    """
    token = (file.read_text(encoding="utf-8") if file is not None else given).strip()
    if none:
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise ConfigError(f"at {host} other machines reach the service; give it a token")
        return ""
    if len(token) < 16 or not token.isascii():
        raise ConfigError(
            "the service needs a token of 16 characters or more, in --token-file or in the environment variable RSW_SERVE_TOKEN;"
            " on an address of this machine, --no-token does without"
        )
    return token
