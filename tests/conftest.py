"""What all tests share."""

from __future__ import annotations

import os
import re
from collections import Counter
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


NEEDS = {
    r"RSW_SHARED": "need shared data (set RSW_SHARED)",
    r"GPU|CUDA|accelerator": "need a GPU",
    r"weights|is not made yet": "need weights",
    r"[Jj]ava": "need Java",
    r"make test-integrations|RSW_TRAINERS": "need a trainer's package (make test-integrations)",
    r"extra|not installed|could not import|No module": "need a package that is not installed",
    r"RSW_ORIGINALS": "need clones of benchmarks (set RSW_ORIGINALS)",
    r"chromium|pdflatex": "need chromium or pdflatex",
}
"""What a reason to skip says -> what it means; tried in this order. Any other reason is shown as it stands."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end of a run: how many tests were skipped, and what they need."""
    reports = [report for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in reports]
    found = Counter(next((said for told, said in NEEDS.items() if re.search(told, one)), one) for one in reasons)
    if found:
        parts = ", ".join(f"{number} {said}" for said, number in found.most_common())
        terminalreporter.write_line(f"{len(reasons)} skipped: {parts}")
