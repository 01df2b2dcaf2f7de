"""Workers: take a key, reconcile it, and see that it comes back when it should."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from finetune_operator.runtime.kinds import JobKey
from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.queue import WorkQueue

_log = structlog.get_logger(__name__)

Reconcile = Callable[[JobKey], Awaitable[float | None]]
"""Reconciles a job; returns the seconds after which to look again although nothing happened."""


class TransientError(Exception):
    """Something outside is not as it will be soon: worth another try, and no stack trace."""


class WorkerMetrics(Protocol):
    def reconciled(self, result: str, seconds: float) -> None: ...

    def working(self, workers: int) -> None: ...


class Workers:
    """N workers on one queue."""

    def __init__(
        self,
        queue: WorkQueue[JobKey],
        reconcile: Reconcile,
        metrics: WorkerMetrics,
        count: int,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._count = count
        self._clock = clock
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, drain_seconds: float) -> None:
        """Works until cancelled; what is under way then may finish within `drain_seconds`."""
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(self._work(stopping), name=f"worker-{number}") for number in range(self._count)]
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
            key = await self._queue.get()
            self._now_busy(self._busy + 1)
            try:
                await self._work_on(key)
            finally:
                self._now_busy(self._busy - 1)
                self._queue.done(key)

    def _now_busy(self, workers: int) -> None:
        self._busy = workers
        self._metrics.working(workers)
        if workers:
            self._idle.clear()
        else:
            self._idle.set()

    async def _work_on(self, key: JobKey) -> None:
        began = self._clock()
        try:
            after = await self._reconcile(key)
        except NotLeadingError:
            self._metrics.reconciled("error", self._clock() - began)
        except TransientError as error:
            self._retry(key, began, str(error))
        except Exception:  # noqa: BLE001 - a fault in one job must not stop the others: it is logged, and tried again
            _log.exception("reconcile_failed", job=key.name, namespace=key.namespace)
            self._retry(key, began, "unexpected")
        else:
            self._queue.forgive(key)
            if after is not None:
                self._queue.add_after(key, after)
            result = "success" if after is None else "requeue_after"
            self._metrics.reconciled(result, self._clock() - began)

    def _retry(self, key: JobKey, began: float, error: str) -> None:
        delay = self._queue.retry(key)
        self._metrics.reconciled("error", self._clock() - began)
        _log.warning("reconcile_retried", job=key.name, namespace=key.namespace, error=error, delay=round(delay, 3))
