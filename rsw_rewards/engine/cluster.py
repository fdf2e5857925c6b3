"""One place where Ray is started or joined, quietly and without imposing anything on its workers."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
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
        ConfigError: there is no cluster at ``address``, or Ray does not run on this machine.
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
        named = (os.environ.get("RAY_ADDRESS") if address == "auto" else None) or address
        host, _, port = named.rpartition(":")
        if port.isdecimal() and "://" not in host and (why := _unheard(host, int(port))) is not None:
            raise ConfigError(f"no Ray cluster answers at {named!r}: {why}")  # Ray itself asks for minutes
        options |= {"address": named}
    try:
        with _starting:
            if not ray.is_initialized():
                _in_a_lasting_thread(lambda: ray.init(**options))
                if not (address or "").startswith("ray://"):  # a client of Ray has no raylet
                    _end_with_the_cluster(
                        "see that there is memory enough" if address is None else "start the cluster again"
                    )
    except Exception as error:  # Ray raises bare ones as well
        if address is None:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"Ray could not be started on this machine: {said[0]}; see that memory and processors are not taken by other programs,"
                " or work without actors"
            ) from error
        raise ConfigError(
            f"the Ray cluster at {address!r} cannot be joined: {error}; a command needs a Ray node of the cluster on its own machine,"
            " which 'ray start --address=HOST:PORT' starts"
        ) from error


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
"""Exit code of a process that ends with its cluster, as of one that was stopped by an error of ours."""
LOOK_S = 1.0
"""Seconds between two looks at the cluster."""


def _end_with_the_cluster(remedy: str) -> None:
    """Watch the raylet of this machine and the head of the cluster, and end this process with a sentence where one is gone.

    Ray ends the process all the same, up to a minute later, from a thread that no handler sees, and says why in its own words or in
    hundreds of lines. A head that is started again in time, which needs Ray's fault tolerance, goes on.
    """
    import ray

    context = (
        ray.get_runtime_context()
    )  # another call of this function would start a cluster where there is none any more
    session = context.get_node_id()
    (own,) = (node for node in ray.nodes() if node["NodeID"] == session)
    raylet = (own["NodeManagerAddress"], own["NodeManagerPort"])
    head, _, port = context.gcs_address.rpartition(":")
    patience = max(LOOK_S, float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60")) - 15)  # noqa: SIM112 - Ray's own name

    def ended() -> bool:
        try:
            return context.get_node_id() != session
        except RuntimeError:  # disconnected
            return True

    def watch() -> None:
        heard = time.monotonic()
        while not ended():
            time.sleep(LOOK_S)
            if isinstance(_unheard(*raylet), ConnectionRefusedError):
                time.sleep(1)  # a shutdown on purpose disconnects before it ends the raylet, and takes its time
                if not ended():
                    _stop("Ray's raylet, the process that runs the actors, died or was killed; " + remedy)
            if _unheard(head, int(port)) is None:
                heard = time.monotonic()
            elif time.monotonic() - heard > patience and not ended():
                _stop(f"the Ray cluster at {head}:{port} has not answered for {patience:.0f} s; {remedy}")

    threading.Thread(target=watch, name="rsw-cluster", daemon=True).start()


def _unheard(host: str, port: int) -> OSError | None:
    """Why nobody answers there, or None."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=5).close()
    except OSError as error:
        return error
    return None


def _stop(why: str) -> None:
    sys.stdout.flush()
    print(f"rsw: {why}, and go on with --resume where a run was cut off", file=sys.stderr, flush=True)
    os._exit(STOPPED)


def require_gpus(count: float) -> None:
    """Refuse to ask a cluster for more GPUs than it has: such actors would wait for ever. Raises :class:`ConfigError`."""
    import ray

    have = ray.cluster_resources().get("GPU", 0.0)
    if count > have:
        raise ConfigError(f"{count:g} GPUs are asked for, and the Ray cluster has {have:g}")
