"""A reward service in a thread of the test's process, at a real socket, with the front that Ray Serve's proxies have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.serve.front import Front, FrontSettings, digest
from rsw_rewards.serve.service import Service
from rsw_rewards.serve.wire import Limits

TOKEN = "a token of some length"


@contextmanager
def served(
    rubric: Any, samples: Any = None, limits: Limits | None = None, queue: int = 256, front: FrontSettings | None = None
) -> Iterator[str]:
    """The address of a service that asks for :data:`TOKEN`."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    limits = limits or Limits(body=4 << 20)
    known = samples or []
    service = Service(rsw.Reward(rubric, samples=samples), known, limits=limits, queue=queue)
    service.warm()
    app = Front(service, front or FrontSettings(digest(TOKEN), limits.body))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
