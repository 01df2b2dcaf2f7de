"""The operator's metrics, by the names that controller-runtime gave them, so that its dashboards fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_operator.api.status import Phase

CONTROLLER: Final = "finetunejob"
_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class _Phases(Collector):
    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("finetune_jobs", "FineTuneJobs by phase", labels=["phase"])
        counts = self._count()
        for phase in Phase:
            family.add_metric([phase.value], counts.get(phase.value, 0))
        yield family


class Metrics:
    """All metrics of one operator process, in a registry of their own."""

    def __init__(self, phases: Callable[[], Mapping[str, int]], workers: int, lease: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.GCCollector(registry=registry)
        registry.register(_Phases(phases))
        controller = ["controller"]
        self._reconciles = prometheus_client.Counter(
            "controller_runtime_reconcile", "Reconciles by result", [*controller, "result"], registry=registry
        )
        self._errors = prometheus_client.Counter(
            "controller_runtime_reconcile_errors", "Reconciles that failed", controller, registry=registry
        ).labels(CONTROLLER)
        self._seconds = prometheus_client.Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of a reconcile",
            controller,
            buckets=_SECONDS,
            registry=registry,
        ).labels(CONTROLLER)
        self._active = prometheus_client.Gauge(
            "controller_runtime_active_workers", "Workers that are at work", controller, registry=registry
        ).labels(CONTROLLER)
        prometheus_client.Gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers", controller, registry=registry
        ).labels(CONTROLLER).set(workers)
        self._requests = prometheus_client.Counter(
            "rest_client_requests", "Requests to the API server", ["code", "method"], registry=registry
        )
        self._master = prometheus_client.Gauge(
            "leader_election_master_status", "Whether this process leads", ["name"], registry=registry
        ).labels(lease)
        self._resyncs = prometheus_client.Histogram(
            "finetune_resync_seconds", "Length of a resync", buckets=_SECONDS, registry=registry
        )
        self._events = prometheus_client.Counter(
            "finetune_watch_events", "Watch events; type listed is the first list", ["kind", "type"], registry=registry
        )
        self._dropped = prometheus_client.Counter(
            "finetune_events_dropped", "Kubernetes Events that were not sent", registry=registry
        )
        self._scrapes = prometheus_client.Counter(
            "finetune_scrapes", "Pods that were asked for their progress, by outcome", ["outcome"], registry=registry
        )
        self._failures = prometheus_client.Counter(
            "finetune_task_failures", "Background tasks that failed and were started again", ["task"], registry=registry
        )
        self._lost = prometheus_client.Counter(
            "finetune_watch_events_lost", "Watch events that could not be taken in", ["kind"], registry=registry
        )
        self.queue = QueueGauges(registry)

    def reconciled(self, result: str, seconds: float) -> None:
        """A reconcile ended: `success`, `requeue_after` or `error`."""
        self._reconciles.labels(CONTROLLER, result).inc()
        self._seconds.observe(seconds)
        if result == "error":
            self._errors.inc()

    def working(self, workers: int) -> None:
        self._active.set(workers)

    def requested(self, code: str, method: str) -> None:
        self._requests.labels(code, method).inc()

    def leading(self, status: int) -> None:
        """1 while this process leads, else 0."""
        self._master.set(status)

    def resynced(self, seconds: float) -> None:
        self._resyncs.observe(seconds)

    def watched(self, kind: str, change: str) -> None:
        """A watch event; any thread may tell of it."""
        self._events.labels(kind, change).inc()

    def event_dropped(self) -> None:
        self._dropped.inc()

    def scraped(self, outcome: str) -> None:
        """A pod was asked for its progress."""
        self._scrapes.labels(outcome).inc()

    def task_failed(self, task: str) -> None:
        self._failures.labels(task).inc()

    def lost(self, kind: str) -> None:
        """A watch event could not be taken in; any thread may tell of it."""
        self._lost.labels(kind).inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)


class QueueGauges:
    """Metrics of the work queue."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        name = ["name"]
        self._depth = prometheus_client.Gauge(
            "workqueue_depth", "Keys that wait for a worker", name, registry=registry
        ).labels(CONTROLLER)
        self._adds = prometheus_client.Counter("workqueue_adds", "Keys added", name, registry=registry).labels(
            CONTROLLER
        )
        self._waited = prometheus_client.Histogram(
            "workqueue_queue_duration_seconds",
            "How long a key waited for a worker",
            name,
            buckets=_SECONDS,
            registry=registry,
        ).labels(CONTROLLER)
        self._worked = prometheus_client.Histogram(
            "workqueue_work_duration_seconds",
            "How long a key was worked on",
            name,
            buckets=_SECONDS,
            registry=registry,
        ).labels(CONTROLLER)
        self._retries = prometheus_client.Counter(
            "workqueue_retries", "Keys that came back after a failure", name, registry=registry
        ).labels(CONTROLLER)

    def depth(self, size: int) -> None:
        self._depth.set(size)

    def added(self) -> None:
        self._adds.inc()

    def started(self, waited: float) -> None:
        self._waited.observe(waited)

    def finished(self, worked: float) -> None:
        self._worked.observe(worked)

    def retried(self) -> None:
        self._retries.inc()
