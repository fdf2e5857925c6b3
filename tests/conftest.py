"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)

# How long an example takes says nothing about the code where cores are shared.
settings.register_profile("busy", deadline=None, max_examples=50)
settings.load_profile("busy")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for all tests that run actors."""
    from rsw_rewards.engine.cluster import ensure_ray

    ensure_ray(num_cpus=4)
    yield
    import ray

    ray.shutdown()
