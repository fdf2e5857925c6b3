"""Starting or joining Ray, the same way for every part that runs actors."""

from __future__ import annotations

import logging
import os


def ensure_ray(address: str | None = None, num_cpus: int | None = None) -> None:
    """Start a local Ray, or join the cluster at ``address``; does nothing where Ray runs already.

    Workers import the installed package: no working directory is shipped, because from the root of a checkout our folder
    ``verifiers`` would shadow the package of that name that others use.

    Args:
        address: of a running cluster, as Ray takes it (``auto``, ``host:port``).
        num_cpus: processors that Ray counts with; what the machine has, at least two, where left out.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    if address is not None:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        return
    ray.init(
        num_cpus=num_cpus or max(2, os.cpu_count() or 2),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
