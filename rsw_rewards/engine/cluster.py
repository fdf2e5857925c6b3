"""One place where Ray is started or joined, quietly and without imposing anything on its workers."""

from __future__ import annotations

import logging
import os
import secrets
import select
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from rsw_rewards.core.plugins import user_modules
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need


def ensure_ray(address: str | None = None, num_cpus: int | None = None) -> None:
    """Join the Ray cluster at ``address``, or start one on this machine. One that this process has already is kept.

    Without an address other clusters on this machine, and ``RAY_ADDRESS``, are left alone: they were started for other work.

    Workers import the installed package: no working directory is shipped, because from the root of a checkout our folder
    ``verifiers`` would shadow the package of that name that others use. Modules that a user named by file are sent by value. A
    cluster that is started here ends with this process.

    Args:
        address: a running cluster: ``"host:port"``, or ``"auto"`` for that of ``RAY_ADDRESS`` or of this machine. None starts one.
        num_cpus: logical CPUs of a cluster started here; by default those of the machine, at least 2.

    Raises:
        ConfigError: there is no cluster at ``address``.
        MissingExtra: Ray is not installed.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else actors without a share of a GPU see none
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # With a token of its own the cluster stays closed to other users of the machine, and Ray does not write one to
        # the home directory with a warning.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    need("work in other processes (workers, timeout_s, actors)", "ray")
    import ray
    from ray import cloudpickle

    for module in user_modules():
        cloudpickle.register_pickle_by_value(module)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"address": "local", "num_cpus": num_cpus or max(2, os.cpu_count() or 1), "include_dashboard": False}
    else:
        # Ray itself takes "auto" for any cluster that runs here, whatever RAY_ADDRESS says.
        named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
        options |= {"address": named or address}
    try:
        with _starting:
            if not ray.is_initialized():
                _in_a_lasting_thread(lambda: ray.init(**options))
                if address is None:
                    _end_with_the_raylet()
    except ConnectionError as error:
        raise ConfigError(f"no Ray cluster answers at {address!r}: {error}") from error


_starting = threading.Lock()


def _in_a_lasting_thread(start: Callable[[], object]) -> None:
    """Call ``start`` in a thread that lives as long as this process: Ray's processes are killed with the thread that started them."""
    if threading.current_thread() is threading.main_thread():
        start()
        return
    started: Future[None] = Future()

    def stay() -> None:
        try:
            start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        threading.Event().wait()

    threading.Thread(target=stay, name="rsw-ray", daemon=True).start()
    started.result()


STOPPED = 2
"""Exit code of a process that ends with the raylet of its cluster, as of one that was stopped by an error of ours."""


def _end_with_the_raylet() -> None:
    """Watch the raylet of the cluster that was started here, and end this process with a sentence if it dies.

    Ray ends the process all the same, half a minute later, from a thread that no handler sees, and says why in hundreds of lines.
    """
    import ray

    raylets = _children("raylet")
    if not raylets or not hasattr(os, "pidfd_open"):  # no Linux
        return
    session, process = ray.get_runtime_context().get_node_id(), os.pidfd_open(max(raylets))

    def watch() -> None:
        select.select([process], [], [])
        os.close(process)
        time.sleep(1)  # a shutdown on purpose disconnects before it ends the raylet, and takes its time
        if not ray.is_initialized() or ray.get_runtime_context().get_node_id() != session:
            return
        sys.stdout.flush()
        print(
            "rsw: Ray's raylet, the process that runs the actors, died or was killed; see that there is memory enough, and go on with"
            " --resume where a run was cut off",
            file=sys.stderr,
            flush=True,
        )
        os._exit(STOPPED)

    threading.Thread(target=watch, name="rsw-raylet", daemon=True).start()


def _children(name: str) -> list[int]:
    """Processes of that name that this one started."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            own, _, rest = place.read_text().partition(" (")
            told, _, state = rest.rpartition(") ")
            if told == name and int(state.split()[1]) == os.getpid():
                found.append(int(own))
    return found


def require_gpus(count: float) -> None:
    """Refuse to ask a cluster for more GPUs than it has: such actors would wait for ever. Raises :class:`ConfigError`."""
    import ray

    have = ray.cluster_resources().get("GPU", 0.0)
    if count > have:
        raise ConfigError(f"{count:g} GPUs are asked for, and the Ray cluster has {have:g}")
