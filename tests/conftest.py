"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for all tests that run actors."""
    from rsw_rewards.cluster import ensure_ray

    ensure_ray(num_cpus=4)
    yield
    import ray

    ray.shutdown()
