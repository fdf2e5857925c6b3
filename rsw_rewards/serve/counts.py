"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from rsw_rewards.engine.reward import Result

Counts = Mapping[tuple[str, str], float]
"""By the name of a series and its labels, as they are written."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Upper ends of the buckets of latencies, in seconds."""

SERIES = {
    "rsw_requests_total": ("counter", "requests answered, by route and status"),
    "rsw_items_total": ("counter", "outputs scored"),
    "rsw_unrewarded_total": ("counter", "outputs without a reward, through a failure of ours"),
    "rsw_scores_total": ("counter", "scores, by component and status"),
    "rsw_request_seconds": ("histogram", "time from the whole body to the answer"),
    "rsw_waiting_requests": ("gauge", "requests that are being scored or wait for it"),
    "rsw_replicas": ("gauge", "replicas that are counted here"),
}


class Meter:
    """Counts of one replica. Threads may count at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, str], float] = defaultdict(
            float, {("rsw_replicas", ""): 1.0, ("rsw_waiting_requests", ""): 0.0}
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._lock:
            self._counts["rsw_requests_total", f'route="{route}",status="{status}"'] += 1
            for end in BUCKETS:
                self._counts["rsw_request_seconds_bucket", f'le="{end:g}"'] += seconds <= end
            self._counts["rsw_request_seconds_bucket", 'le="+Inf"'] += 1
            self._counts["rsw_request_seconds_count", ""] += 1
            self._counts["rsw_request_seconds_sum", ""] += seconds

    def waiting(self, change: int) -> None:
        """Count one request more or less that waits."""
        with self._lock:
            self._counts["rsw_waiting_requests", ""] += change

    def scored(self, results: Iterable[Result]) -> None:
        """Count the scores of a request."""
        found: Counter[tuple[str, str]] = Counter()
        for result in results:
            found["rsw_items_total", ""] += 1
            found["rsw_unrewarded_total", ""] += result.reward is None
            for label, score in result.parts.items():
                name = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
                found["rsw_scores_total", f'component="{name}",status="{score.status}"'] += 1
        with self._lock:
            for key, count in found.items():
                self._counts[key] += count

    def counts(self) -> dict[tuple[str, str], float]:
        """What was counted up to now."""
        with self._lock:
            return dict(self._counts)


def page(every: Iterable[Counts]) -> str:
    """The sums of the counts of several replicas, as Prometheus reads them."""
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for counts in every:
        for key, value in counts.items():
            sums[key] += value
    lines = []
    for series, (kind, what) in SERIES.items():
        lines += [f"# HELP {series} {what}", f"# TYPE {series} {kind}"]
        names = [f"{series}{end}" for end in ("_bucket", "_sum", "_count")] if kind == "histogram" else [series]
        for (name, labels), value in sums.items():
            if name in names:
                lines.append(f"{name}{{{labels}}} {value:g}" if labels else f"{name} {value!r}")
    return "\n".join(lines) + "\n"
