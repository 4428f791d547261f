"""What the policy server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lehrling.datasets.errors import InputError

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Counters of one server; none of them names a client or a prompt."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "lehrling_requests", "Requests by adapter and outcome.", ("adapter", "outcome"), registry=self._registry
        )
        self.infer_s = Histogram(
            "lehrling_infer_seconds",
            "One batch through the policy.",
            ("adapter",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.total_s = Histogram(
            "lehrling_request_seconds", "From the frame to the answer.", buckets=SECONDS, registry=self._registry
        )
        self.batch = Histogram(
            "lehrling_batch_size", "Requests inferred together.", buckets=SIZES, registry=self._registry
        )
        self.clients = Gauge("lehrling_clients", "Connections that are open.", registry=self._registry)
        self.refused = Counter(
            "lehrling_refused", "Connections refused, by status.", ("status",), registry=self._registry
        )

    def batch_done(self, adapter: str, size: int, seconds: float) -> None:
        """Count a batch."""
        self.infer_s.labels(adapter).observe(seconds)
        self.batch.observe(size)

    def complained(self, error: Exception) -> None:
        """Count a request that got an error in place of actions."""
        self.requests.labels("", "refused" if isinstance(error, InputError) else "failed").inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
