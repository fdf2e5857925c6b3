"""RemoteReward: the interface of rsw.Reward, answered by a reward service on another machine."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.engine.reward import Result, paired
from rsw_rewards.errors import ConfigError, InputError, RunStopped
from rsw_rewards.io.endpoint import wait_s
from rsw_rewards.serve.entries import dumped, output_entry, read_result, sample_entry
from rsw_rewards.serve.wire import TOKEN, VERSION

if TYPE_CHECKING:
    import httpx

LONGEST_WAIT_S = 30.0
"""No Retry-After and no back-off makes a request wait longer."""
_CALLERS = 32
"""Calls of coroutines that are answered at once."""
_RETRIED = frozenset({408, 425, 429, 502, 503, 504})


class RemoteReward:
    """Client of a reward service (``rsw serve``), with the interface of :class:`rsw.Reward` but without ``observe``.

    Rewards, values, raw numbers, statuses and contents are those that the service computes, bit by bit; ``stats`` of scores stay
    there. Images travel as their pixels. Adapters take it, or the address alone, in place of a rubric. Threads and coroutines may
    use it at the same time. It can be pickled; a forked process makes connections of its own.

    Args:
        url: the service, as ``http://host:8000``.
        token: the bearer token; by default that of the environment variable ``RSW_SERVE_TOKEN``, if there is one.
        by_id: samples are named by their ids, which the service must have been started with, in place of sent whole.
        timeout_s: longest wait for one answer.
        retries: tries after the first, where the service is busy (429), not ready or gone (503), or cannot be reached. Between them
            it waits as long as the service says, else 0.5 s, 1 s, 2 s and so on up to 30 s.
        concurrency: requests of one call that are in flight at once.

    Raises:
        ConfigError: the address cannot be used.

    >>> rsw.RemoteReward("reward-machine:8000")
    Traceback (most recent call last):
        ...
    rsw_rewards.errors.ConfigError: the address 'reward-machine:8000' must begin with http:// or https://
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        by_id: bool = False,
        timeout_s: float = 120.0,
        retries: int = 8,
        concurrency: int = 4,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"the address {url!r} must begin with http:// or https://")
        self.url = url.rstrip("/")
        token = (os.environ.get(TOKEN, "") if token is None else token).strip()
        if not (token.isascii() and (token.isprintable() or not token)):
            raise ConfigError("the token holds characters that no token has; give it again")
        self._token = token
        self._settings: dict[str, Any] = {
            "by_id": by_id,
            "timeout_s": timeout_s,
            "retries": retries,
            "concurrency": concurrency,
        }
        self._by_id, self._timeout, self._retries, self._concurrency = by_id, timeout_s, retries, concurrency
        self._lock = threading.Lock()
        self._about: Mapping[str, Any] | None = None
        self._http: httpx.Client | None = None
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._process = 0
        self._closed = False

    def __reduce__(self) -> Any:
        return partial(type(self), self.url, self._token, **self._settings), ()

    def __enter__(self) -> RemoteReward:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def rubric(self) -> Rubric:
        """The service's rubric, without paths."""
        return Rubric.model_validate(self._known()["rubric"])

    @property
    def needs_groups(self) -> str:
        """Why an output cannot be rewarded alone, as a clause; empty where it can."""
        return str(self._known()["needs_groups"])

    def warm(self) -> None:
        """Wait until the service is ready.

        Raises:
            ConfigError: it does not take the token, or is no reward service of this version.
            RunStopped: it is not ready after all tries.
        """
        self._ask("GET", "/ready")
        self._known()

    def one(self, output: Any, sample: Any) -> Result:
        """The reward of one output, as :meth:`rsw.Reward.one` gives it, which says what may be given and what is raised."""
        if why := self.needs_groups:
            raise ConfigError(f"{why}; call many() or amany() with whole groups")
        return self.many([output], [sample])[0]

    def many(
        self, outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None = None
    ) -> list[Result]:
        """The rewards of outputs, in their order, as :meth:`rsw.Reward.many` gives them.

        Large calls become several requests, in which groups stay whole.

        Raises:
            ConfigError, InputError: as :meth:`rsw.Reward.many`; also for an image that would be read otherwise at the service.
            RunStopped: the service gave no answer in all tries.
        """
        known = self._known()
        made, asked, numbers = paired(outputs, samples, groups)
        if not made:
            return []
        rows: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            rows.setdefault(number, []).append(place)
        most = len(made) if known["whole_calls"] else int(known["limits"]["items"])
        parts = _parts(list(rows.values()), most)
        bodies = [self._body(part, made, asked, numbers) for part in parts]
        answers = (
            [self._score(bodies[0])] if len(bodies) == 1 else list(self._threads("requests").map(self._score, bodies))
        )
        results: list[Any] = [None] * len(made)
        for part, entries in zip(parts, answers, strict=True):
            for place, entry in zip(part, entries, strict=True):
                results[place] = read_result(entry)
        return results

    async def aone(self, output: Any, sample: Any) -> Result:
        """:meth:`one` for coroutines."""
        return await asyncio.get_running_loop().run_in_executor(self._threads("callers"), self.one, output, sample)

    async def amany(
        self, outputs: Iterable[Any], samples: Iterable[Any], groups: Iterable[Hashable] | None = None
    ) -> list[Result]:
        """:meth:`many` for coroutines."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads("callers"), self.many, outputs, samples, groups
        )

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        if self._process != os.getpid():  # the connections and threads are another process's
            return
        for pool in self._pools.values():
            pool.shutdown()
        if self._http is not None:
            self._http.close()

    def _known(self) -> Mapping[str, Any]:
        if self._about is None:
            about = self._ask("GET", "/rubric")
            if about.get("wire") != VERSION:
                raise ConfigError(
                    f"{self.url} speaks version {about.get('wire')} of the requests and this package {VERSION}; install one version on both"
                )
            self._about = about
        return self._about

    def _body(self, part: list[int], outputs: list[Output], samples: list[Sample], groups: list[int]) -> bytes:
        """One request: every sample once, whatever the number of its outputs."""
        places: dict[int, int] = {}
        items: list[dict[str, Any]] = []
        sent: list[dict[str, Any]] = []
        for row in part:
            sample = samples[row]
            if self._by_id:
                about: dict[str, Any] = {"sample_id": sample.id}
            else:
                if id(sample) not in places:
                    places[id(sample)] = len(sent)
                    sent.append(sample_entry(sample))
                about = {"sample": places[id(sample)]}
            items.append({"group": groups[row], **about, **output_entry(outputs[row])})
        return dumped({"items": items, "samples": sent})

    def _score(self, body: bytes) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self._ask("POST", "/v1/score", body)["items"]
        return found

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Mapping[str, Any]:
        """The object that the service answers with, after as many tries as are allowed."""
        import httpx

        why = ""
        for attempt in range(self._retries + 1):
            wait = wait_s(attempt, LONGEST_WAIT_S)
            try:
                response = self._client().request(method, self.url + path, content=body)
                answer = _object(response.content)
                error = answer.get("error")
                error = error if isinstance(error, dict) else {}
                if response.status_code == 200 and answer:
                    return answer
                message = str(error.get("message") or f"status {response.status_code}")
                why = f"{message} (status {response.status_code})"
                # An answer that is none of the service's comes from a proxy before it.
                if error and response.status_code not in _RETRIED:
                    raise _as_error(response.status_code, str(error.get("type")), message, self.url)
                if not error and response.status_code < 500 and response.status_code not in (200, *_RETRIED):
                    raise ConfigError(f"{self.url}{path} is no reward service: {why}")
                wait = wait_s(attempt, LONGEST_WAIT_S, response.headers.get("retry-after"))
            except httpx.TimeoutException:
                why = f"no answer within {self._timeout:g} s"
            except httpx.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
            if attempt < self._retries:
                time.sleep(wait)
        raise RunStopped(
            f"{self.url} gave no answer in {self._retries + 1} tries ({why}); start the service or look at its log"
        )

    def _client(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._closed:
                raise ConfigError("this RemoteReward is closed; make a new one")
            if self._http is None or self._process != os.getpid():  # a forked process cannot share connections
                headers = {"content-type": "application/json"}
                if self._token:
                    headers["authorization"] = f"Bearer {self._token}"
                limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
                self._http = httpx.Client(headers=headers, timeout=self._timeout, limits=limits)
                self._pools, self._process = {}, os.getpid()
            return self._http

    def _threads(self, name: str) -> ThreadPoolExecutor:
        """Threads for the requests of a call, or for the calls of coroutines, which wait for those."""
        self._client()
        with self._lock:
            if name not in self._pools:
                count = _CALLERS if name == "callers" else self._concurrency
                self._pools[name] = ThreadPoolExecutor(count, f"rsw-remote-{name}")
            return self._pools[name]


def is_address(value: Any) -> bool:
    """Whether a value in a rubric's place is the address of a reward service."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _parts(groups: list[list[int]], most: int) -> list[list[int]]:
    """Rows of whole groups, at most ``most`` together. Raises :class:`InputError` for a larger group."""
    parts: list[list[int]] = [[]]
    for rows in groups:
        if len(rows) > most:
            raise InputError(f"a group has {len(rows)} outputs; the service takes {most} at once (rsw serve --items)")
        if len(parts[-1]) + len(rows) > most:
            parts.append([])
        parts[-1] += rows
    return parts


def _as_error(status: int, kind: str, message: str, url: str) -> Exception:
    if status == 401:
        return ConfigError(
            f"{url} does not take the token; put that of the service into the environment variable {TOKEN}"
        )
    if status == 500:
        return RunStopped(f"{url}: {message}")
    return ConfigError(message) if kind in ("config", "not_found") else InputError(message)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
