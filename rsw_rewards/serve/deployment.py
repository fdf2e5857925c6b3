"""The reward service on Ray Serve: replicas on one machine or many, with fractions of GPUs and autoscaling."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rsw_rewards.core.records import Sample
from rsw_rewards.core.rubric import as_rubric
from rsw_rewards.engine.cluster import ensure_ray, require_gpus
from rsw_rewards.engine.reward import Reward
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.serve.counts import Counts
from rsw_rewards.serve.front import SETTINGS, Front, FrontSettings, digest
from rsw_rewards.serve.service import Service
from rsw_rewards.serve.wire import Limits

_log = logging.getLogger(__name__)

APPLICATION = "rsw-rewards"
_COUNTERS = "counters"
_FRESH_S = 2.0
"""Seconds after which a replica tells its counts again."""
_FORGOTTEN_S = 60.0
"""Seconds after which counts of a replica that tells nothing any more are those of a dead one: its gauges no longer count."""
_TURN_S = 0.0005
"""Seconds that a thread of a replica keeps Python for itself. A network's thread asks for it after every small operation, and would wait
Python's own 5 ms each time while another request is read."""


class Plan(NamedTuple):
    """How a service is run. The fields are the options of ``rsw serve``."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    most_replicas: int = 0
    """Replicas up to which Ray Serve adds to ``replicas`` under load; 0 keeps their number."""
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    device: str = "cpu"
    queue: int = 256
    """Requests that a replica lets wait or scores at once."""
    seconds: float = 600.0
    """After which a request is given up."""
    window_ms: float = 5.0
    batch_size: int = 64
    seed: int = 0


class Counters:
    """The counts of all replicas, in an actor: a request for them is answered by any one replica."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[float, dict[tuple[str, str], float]]] = {}

    def tell(self, replica: str, counts: dict[tuple[str, str], float]) -> list[dict[tuple[str, str], float]]:
        """Keep the counts of one, and give those of all."""
        now = time.monotonic()
        self._of[replica] = (now, counts)
        gauges = ("rsw_waiting_requests", "rsw_replicas")
        return [
            counts if now - told < _FORGOTTEN_S else {key: held for key, held in counts.items() if key[0] not in gauges}
            for told, counts in self._of.values()
        ]


def start(
    rubric: Any,
    samples: Path | None = None,
    roots: Sequence[Path] = (),
    *,
    token: str = "",
    plan: Plan | None = None,
    limits: Limits | None = None,
    address: str | None = None,
) -> str:
    """Start a service and wait until it is ready.

    Args:
        rubric: as for :class:`rsw.Reward`.
        samples: a samples file, which every replica reads.
        roots: further folders that its paths may point into.
        token: the bearer token of requests. The cluster is told its SHA-256 alone.
        plan: where and how large.
        limits: of a request.
        address: a Ray cluster to join; without one, it runs on this machine.

    Returns:
        The address of the service.

    Raises:
        ConfigError: the rubric or the cluster cannot be used, or the service did not start.
        InputError: the samples cannot be used.
        MissingExtra: Ray Serve is not installed.
    """
    plan, limits = plan or Plan(), limits or Limits()
    need("the reward service", "starlette", "uvicorn", "ray")
    rubric = as_rubric(rubric)
    known = _samples(samples, roots)
    Reward(rubric, samples=known or None, device=plan.device, window_ms=0).close()  # here an error is one sentence
    ensure_ray(address)
    if plan.num_gpus:
        require_gpus(plan.num_gpus * plan.replicas)
    front = FrontSettings(digest(token) if token else "", limits.body)
    _start_proxies(front, plan)
    _run(_builder(rubric, samples, tuple(roots), front, plan, limits), plan)
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    return f"http://{host}:{plan.port}"


def _start_proxies(front: FrontSettings, plan: Plan) -> None:
    """Start Ray Serve in the cluster, with a front before its proxies. Raises :class:`ConfigError` where others run it there."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    running = serve.status()
    if APPLICATION in running.applications:  # of a process that was killed; its proxies know another token
        stop()
    elif running.proxies:
        raise ConfigError(
            "Ray Serve runs in the cluster already, and its proxies check no token; end it by 'serve shutdown', or take another cluster"
        )
    serve.start(
        http_options={"host": plan.host, "port": plan.port, "request_timeout_s": plan.seconds + 60},
        proxy_location="EveryNode",
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        controller_options={"runtime_env": {"env_vars": {**_FRONT, SETTINGS: front.dump()}}},
    )


def _run(application: Callable[[], Any], plan: Plan) -> None:
    """Deploy the replicas and wait until they are ready. Raises :class:`ConfigError` where they do not start."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, BackpressureConfig

    scaled: dict[str, Any] = {"num_replicas": plan.replicas}
    if plan.most_replicas > plan.replicas:
        scaled = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=plan.replicas, max_replicas=plan.most_replicas, target_ongoing_requests=8
            )
        }
    deployment: Any = serve.deployment(
        serve.ingress(application)(),
        name="replica",
        ray_actor_options={"num_cpus": plan.num_cpus, "num_gpus": plan.num_gpus},
        max_ongoing_requests=plan.queue + 16,  # so that the replica itself says that it is busy, and answers /health
        max_queued_requests=plan.queue * max(plan.replicas, plan.most_replicas),
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        health_check_period_s=5,
        graceful_shutdown_timeout_s=30,
        **scaled,
    )
    try:
        serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise ConfigError(f"the service did not start: {error}") from error


_FRONT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "rsw_rewards.serve.front:middlewares"}


def _samples(file: Path | None, roots: Sequence[Path]) -> list[Sample]:
    return [] if file is None else load_samples(file, roots)


def _builder(
    rubric: Any, samples: Path | None, roots: Sequence[Path], front: FrontSettings, plan: Plan, limits: Limits
) -> Callable[[], Any]:
    """What makes the application in a replica. Ray Serve wants a function without arguments."""

    def application() -> Front:
        sys.setswitchinterval(_TURN_S)
        known = _samples(samples, roots)
        reward = Reward(
            rubric, samples=known or None, device=plan.device, seed=plan.seed, window_ms=plan.window_ms, batch_size=plan.batch_size
        )  # fmt: skip
        service = Service(reward, known, limits=limits, queue=plan.queue, seconds=plan.seconds, counted=_together)
        service.warm()  # until then, Ray Serve sends no request here
        threading.Thread(target=_tell, args=(service,), daemon=True).start()
        return Front(service, front)

    return application


_name = secrets.token_hex(8)
"""Of this process among the replicas."""


def _counters() -> Any:
    import ray

    return (
        ray.remote(Counters)
        .options(name=_COUNTERS, namespace=APPLICATION, get_if_exists=True, num_cpus=0, lifetime="detached")
        .remote()
    )


def stop() -> None:
    """End the service; in a cluster that was joined, the cluster goes on."""
    import ray
    from ray import serve

    serve.shutdown()
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(_COUNTERS, APPLICATION))


def _together(own: Counts) -> Sequence[Mapping[tuple[str, str], float]]:
    """The counts of all replicas; those of this one alone where the others cannot be asked."""
    import ray

    try:
        found: list[Mapping[tuple[str, str], float]] = ray.get(_counters().tell.remote(_name, dict(own)), timeout=10)
        return found
    except Exception:  # of a metric nobody's request may fail
        _log.warning("the counts of other replicas cannot be asked for", exc_info=True)
        return [own]


def _tell(service: Service) -> None:
    while True:
        time.sleep(_FRESH_S)
        _together(service.meter.counts())
