"""The routes of the reward service: an ASGI application around one :class:`rsw.Reward`, for a replica."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from rsw_rewards.core.records import Sample
from rsw_rewards.engine.reward import Result, Reward
from rsw_rewards.errors import ConfigError, InputError, RunStopped
from rsw_rewards.serve import compatible
from rsw_rewards.serve.counts import Counts, Meter, page
from rsw_rewards.serve.entries import dumped, result_entry
from rsw_rewards.serve.front import Receive, Refusal, Scope, Send, answer, refuse
from rsw_rewards.serve.wire import VERSION, Limits, Reader

THREADS = 16
"""Requests that are read and scored at the same time. Those of verifiers with networks are joined to one batch."""
_log = logging.getLogger(__name__)


class Service:
    """Answers requests for rewards.

    Args:
        reward: what gives them; it is warmed up when the application starts.
        samples: those that a request may name by id.
        limits: of a request.
        queue: requests that may wait or be scored at once; more are told to come again.
        seconds: after which a request that is being scored is given up.
        counted: the counts of all replicas, where there are others; called in a thread.
    """

    def __init__(
        self,
        reward: Reward,
        samples: Sequence[Sample] = (),
        *,
        limits: Limits | None = None,
        queue: int = 256,
        seconds: float = 600.0,
        counted: Callable[[Counts], Iterable[Counts]] | None = None,
    ) -> None:
        self.reward, self.limits, self.queue, self.seconds = reward, limits or Limits(), queue, seconds
        self.samples = {sample.id: sample for sample in samples}
        self.by_prompt = compatible.by_prompt(samples)
        self.meter = Meter()
        self._counted = counted or (lambda own: [own])
        self._hidden = _folders_of(samples)
        self._pool = ThreadPoolExecutor(THREADS, "rsw-serve")
        self._waiting = 0
        self._ready = False
        self._posts: dict[str, Callable[[Reader, bytes, dict[str, str]], Any]] = {"/v1/score": self._score}
        for prefix, groups in (("", False), ("/groups", True)):
            for path, route in compatible.ROUTES.items():
                self._posts[prefix + path] = self._foreign(route, groups)

    def warm(self) -> None:
        """Load all that a first request would load. Raises :class:`ConfigError`."""
        self.reward.warm()
        self._ready = True

    def close(self) -> None:
        """Answer what was asked, and stop."""
        self._pool.shutdown()
        self.reward.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        path, start = scope["path"].rstrip("/") or "/", time.perf_counter()
        status, route = 200, path if path in self._posts else "other"
        try:
            if scope["method"] == "POST" and path in self._posts:
                body = (await receive()).get("body", b"")  # whole: the front has read it
                given = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
                await answer(send, 200, await self._answer(self._posts[path], body, given, request_id))
            elif scope["method"] == "GET" and path in _PAGES:
                route = path
                await _PAGES[path](self, send)
            else:
                known = ", ".join([*(f"POST {one}" for one in self._posts), *(f"GET {one}" for one in _PAGES)])
                raise Refusal(404, "not_found", f"there is no such route; known are {known}")
        except Refusal as refusal:
            status = refusal.status
            await refuse(send, refusal, request_id)
        finally:
            self.meter.answered(route, status, time.perf_counter() - start)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self.close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, score: Callable[..., Any], body: bytes, given: dict[str, str], request_id: str) -> bytes:
        if self._waiting >= self.queue:
            raise Refusal(429, "busy", f"{self._waiting} requests are waiting; try again", 1)
        if not self._ready:
            raise Refusal(503, "not_ready", "the service is loading; try again", 5)
        self._count(1)
        done = asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: dumped(score(Reader(self.limits, self.samples), body, given))
        )
        done.add_done_callback(lambda _: self._count(-1))  # also where nobody waits for it any more
        try:
            return await asyncio.wait_for(asyncio.shield(done), self.seconds)
        except TimeoutError:
            raise Refusal(503, "timeout", f"no score within {self.seconds:g} s", 5) from None
        except (InputError, ConfigError) as error:
            kind = "config" if isinstance(error, ConfigError) else "invalid_request"
            raise Refusal(422, kind, self.hide(str(error))[:1000]) from None
        except RunStopped as error:
            raise Refusal(503, "no_reward", self.hide(str(error))[:1000], 5) from None
        except Refusal:
            raise
        except Exception:
            _log.exception("request %s failed", request_id)
            raise Refusal(
                500, "internal", f"the request {request_id} failed through a fault of the service's"
            ) from None

    def _count(self, change: int) -> None:
        self._waiting += change
        self.meter.waiting(change)

    def _score(self, reader: Reader, body: bytes, given: dict[str, str]) -> dict[str, Any]:
        asked = reader.asked(body)
        entries = [result_entry(result) for result in self.results(asked.outputs, asked.samples, asked.groups)]
        for entry, output in zip(entries, asked.outputs, strict=True):
            entry |= {"id": output.sample_id, "candidate": output.candidate}
            _hide_reasons(entry, self.hide)
        return {"items": entries}

    def results(self, outputs: Sequence[Any], samples: Sequence[Sample], groups: Sequence[Any] | None) -> list[Result]:
        """Rewards, which are counted. Raises what :meth:`rsw.Reward.many` raises."""
        results = self.reward.many(outputs, samples, groups)
        self.meter.scored(results)
        return results

    def _foreign(self, route: compatible.Route, groups: bool) -> Callable[[Reader, bytes, dict[str, str]], Any]:
        def score(reader: Reader, body: bytes, given: dict[str, str]) -> Any:
            if not groups and self.reward.needs_groups:
                raise ConfigError(
                    f"{self.reward.needs_groups}, and this route has no groups; put /groups before it where a request holds whole groups"
                )
            return route(self, reader, body, given)

        return score

    def hide(self, text: str) -> str:
        """A text without the folders of this machine."""
        for folder in self._hidden:
            text = text.replace(folder, "")
        return text

    def about(self) -> dict[str, Any]:
        """What ``GET /rubric`` says."""
        verifiers = [component.build() for component in self.reward.rubric.components]
        limits = {name: getattr(self.limits, name) for name in Limits.__slots__}
        return {
            "wire": VERSION, "rubric": _shown(self.reward.rubric.dump()), "needs_groups": self.reward.needs_groups,
            "whole_calls": any(one.scope == "population" for one in verifiers), "samples": len(self.samples), "limits": limits,
            "routes": list(self._posts),
        }  # fmt: skip

    async def _get_health(self, send: Send) -> None:
        await answer(send, 200, b'{"status":"ok"}')

    async def _get_ready(self, send: Send) -> None:
        if not self._ready:
            raise Refusal(503, "not_ready", "the service is loading; try again", 5)
        await answer(send, 200, b'{"status":"ready"}')

    async def _get_rubric(self, send: Send) -> None:
        await answer(send, 200, dumped(self.about()))

    async def _get_metrics(self, send: Send) -> None:
        every = await asyncio.to_thread(self._counted, self.meter.counts())
        await answer(send, 200, page(every).encode(), "text/plain; version=0.0.4; charset=utf-8")

    async def _get_rewards(self, send: Send) -> None:
        await answer(send, 200, dumped({"rewards": compatible.names_of(self.reward)}))


_PAGES: Mapping[str, Callable[[Service, Send], Any]] = {
    "/health": Service._get_health,
    "/ready": Service._get_ready,
    "/rubric": Service._get_rubric,
    "/metrics": Service._get_metrics,
    "/rewards": Service._get_rewards,
}


def _folders_of(samples: Sequence[Sample]) -> list[str]:
    """The folders whose names no answer holds, the longest first."""
    found = {str(image.path.absolute().parent) for sample in samples for image in sample.every_image if image.path}
    found |= {str(Path.cwd()), str(Path.home()), str(Path(__file__).parents[2])}
    found |= {os.path.realpath(folder) for folder in found}
    return sorted((f"{folder}/" for folder in found if len(folder) > 1), key=len, reverse=True)


def _hide_reasons(entry: dict[str, Any], hide: Callable[[str], str]) -> None:
    for part in (entry, *entry["parts"].values()):
        if part.get("reason"):
            part["reason"] = hide(part["reason"])


def _shown(value: Any) -> Any:
    """A rubric without paths and addresses, of which the last part is kept."""
    if isinstance(value, dict):
        return {key: _shown(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_shown(held) for held in value]
    if isinstance(value, str) and ("://" in value or "\\" in value or value[:1] in "/~." or os.path.exists(value)):  # noqa: PTH110
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if isinstance(value, str) and (".py:" in value or value.count("/") > 1):
        return value.rpartition("/")[2]
    return value
