"""Workers: take a key, reconcile it, and see that it comes back when it should."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from finetune_operator.runtime.kinds import JobKey
from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.queue import WorkQueue

_log = structlog.get_logger(__name__)

Reconcile = Callable[[JobKey], Awaitable[float | None]]
"""Reconciles a job; returns the seconds after which to look again although nothing happened."""


_MOST_SPREAD: Final = 3.0


class TransientError(Exception):
    """Something outside is not as it will be soon: worth another try, and no stack trace."""

    retry_after: float = 0.0
    """Seconds that must pass before another try."""


class WorkerMetrics(Protocol):
    def reconciled(self, result: str, seconds: float) -> None: ...

    def working(self, workers: int) -> None: ...


@dataclass
class Workers:
    """N workers on one queue."""

    queue: WorkQueue[JobKey]
    reconcile: Reconcile
    metrics: WorkerMetrics
    count: int
    clock: Callable[[], float]
    chance: Callable[[], float] = random.random
    _busy: int = field(default=0, init=False)
    _idle: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self._idle.set()

    async def run(self, drain_seconds: float) -> None:
        """Works until cancelled; what is under way then may finish within `drain_seconds`."""
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(self._work(stopping), name=f"worker-{number}") for number in range(self.count)]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()
        finally:
            stopping.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self._idle.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            key = await self.queue.get()
            self._now_busy(self._busy + 1)
            try:
                await self._work_on(key)
            finally:
                self._now_busy(self._busy - 1)
                self.queue.done(key)
            # A job at which nothing happens is reconciled without a pause: thousands of them would hold up the lease.
            await asyncio.sleep(0)

    def _now_busy(self, workers: int) -> None:
        self._busy = workers
        self.metrics.working(workers)
        if workers:
            self._idle.clear()
        else:
            self._idle.set()

    async def _work_on(self, key: JobKey) -> None:
        began = self.clock()
        try:
            after = await self.reconcile(key)
        except NotLeadingError:
            self.metrics.reconciled("error", self.clock() - began)
        except TransientError as error:
            self._retry(key, began, str(error), error.retry_after)
        except Exception:  # noqa: BLE001 - a fault in one job must not stop the others: it is logged, and tried again
            _log.exception("reconcile_failed", job=key.name, namespace=key.namespace)
            self._retry(key, began, "unexpected")
        else:
            self.queue.forget(key)
            if after is not None:
                self.queue.add_after(key, _spread(after, self.chance()))
            result = "success" if after is None else "requeue_after"
            self.metrics.reconciled(result, self.clock() - began)

    def _retry(self, key: JobKey, began: float, error: str, at_least: float = 0.0) -> None:
        delay = self.queue.retry(key, at_least)
        self.metrics.reconciled("error", self.clock() - began)
        _log.warning("reconcile_retried", job=key.name, namespace=key.namespace, error=error, delay=round(delay, 3))


def _spread(delay: float, chance: float) -> float:
    """A little later than asked, so that jobs that began together do not come back together."""
    return delay + chance * min(_MOST_SPREAD, delay / 10)
