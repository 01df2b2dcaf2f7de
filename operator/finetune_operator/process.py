"""One operator process, put together: what watches, what leads, what works, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
import uuid
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import structlog

from finetune_operator.builtin import templates
from finetune_operator.cluster import config
from finetune_operator.cluster.apply import Applier
from finetune_operator.cluster.children import Children
from finetune_operator.cluster.client import ApiError, connect
from finetune_operator.cluster.crd_check import missing_fields
from finetune_operator.cluster.discovery import wait_for_kinds
from finetune_operator.cluster.events import EventSender
from finetune_operator.cluster.install import install_templates
from finetune_operator.cluster.latest_warning import LatestWarnings
from finetune_operator.cluster.leases import ClusterLease
from finetune_operator.cluster.observe import Observer
from finetune_operator.cluster.progress import ScrapeLoop, Scraper, pod_session
from finetune_operator.cluster.resolved import ResolvedSpecs
from finetune_operator.handlers import Watcher
from finetune_operator.reconcile import Reconciler
from finetune_operator.runtime.http import Endpoints
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import JobKey
from finetune_operator.runtime.lease import Election, LeaseTimes
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.progress import ProgressBoard
from finetune_operator.runtime.queue import WorkQueue
from finetune_operator.runtime.resync import Resync
from finetune_operator.runtime.store import Store
from finetune_operator.runtime.supervise import Supervisor
from finetune_operator.runtime.turns import Turns
from finetune_operator.runtime.workers import Workers
from finetune_operator.settings import Settings

_log = structlog.get_logger(__name__)
_SILENT_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 2.0
_LOOK_AT_CRDS_SECONDS: Final = 300.0
_REST_SECONDS: Final = 2.0
"""For which a job that has just got its Job is left alone at most: its pods come first, then what is told of them."""
_GC_AT_START: Final = (50_000, 50, 100)
"""Python's own looks for garbage so often among 10,000 objects that it takes a quarter of the start."""
_GC_THEN: Final = (2_000, 20, 100)
"""Afterwards often and little: a look at 50,000 objects holds everything up for 80 ms, at 2,000 for 3 ms."""


def now() -> datetime:
    return datetime.now(UTC)


class Operator:
    """Everything that one process holds."""

    def __init__(self, settings: Settings, configuration: Any, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        self.settings = settings
        self.store = Store()
        self.metrics = Metrics(self.store.phases, settings.workers, settings.lease_name)
        turns: Turns[JobKey] = Turns(lambda key: key.namespace, settings.workers, self.store.is_new)
        self.queue: WorkQueue[JobKey] = WorkQueue(loop, self.metrics.queue, turns=turns)
        self.supervisor = Supervisor(time.monotonic, self.metrics.task_failed)
        self.inbox = Inbox(self.store, self.queue)
        self.lease_client = connect(configuration, lambda: None, self.metrics.requested)
        self.election = self._election()
        self.client = connect(
            configuration, self.election.check, self.metrics.requested, settings.longest_write_seconds
        )
        self.resync = Resync(
            self.store,
            self.inbox,
            self.client.pages,
            settings.namespaces,
            time.monotonic,
            self.metrics.resynced,
        )
        self.events = EventSender(self.client, self.metrics.event_dropped)
        self.resolved = ResolvedSpecs(self.client)
        self.board = ProgressBoard(self.queue.add)
        self.observer = Observer(
            self.store,
            self.client,
            Children(self.store, self.client),
            self.resolved,
            LatestWarnings(self.client, time.monotonic),
            self.board,
        )
        self.crds_lack: str | None = None
        self.watcher = Watcher(
            self.inbox,
            lambda: config.credentials(configuration),
            settings.namespaces,
            loop,
            self.metrics.watched,
            self._lost,
        )
        self.workers = Workers(self.queue, self._reconciler().reconcile, self.metrics, settings.workers, time.monotonic)
        scraper = Scraper(self.client, session, time.monotonic)
        self.scraping = ScrapeLoop(self.store, scraper, self.board, now, self.metrics.scraped)

    async def run(self) -> None:
        """Runs until cancelled, or until something that must not end does."""
        keep = self.supervisor.until_done
        async with asyncio.TaskGroup() as group:
            await keep("discovery", lambda: wait_for_kinds(self.client))
            leading = keep("election", lambda: self.election.run(lambda: keep("leading", self._lead)))
            group.create_task(leading, name="election")
            await self._get_to_know_the_cluster()
            self.watcher.start()
            group.create_task(keep("resync", lambda: self.resync.run(self.settings.resync_seconds)), name="resync")
            group.create_task(self._fail_with_watcher(), name="watcher")
            group.create_task(keep("crds", self._look_at_crds), name="crds")

    async def close(self) -> None:
        await self.watcher.stop()
        await self.client.close()
        await self.lease_client.close()

    def alive(self) -> str | None:
        silent = self.watcher.silent_for()
        return f"the watches have been silent for {silent:.0f} s" if silent > _SILENT_SECONDS else None

    def ready(self) -> str | None:
        unknown = "" if self.resync.synced.is_set() else "the cluster is not known yet"
        return "; ".join(filter(None, (unknown, self.resync.problem))) or None

    async def _get_to_know_the_cluster(self) -> None:
        """One list serves both for a warm store and, where this process leads at once, for leading."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.election.answered.wait()
        except TimeoutError:
            _log.warning("lease_out_of_reach", lease=self.settings.lease_name)
        await self._synced_since(began)
        # What is there now stays: the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THEN)

    async def _synced_since(self, moment: float) -> None:
        await self.supervisor.until_done("first list", lambda: self.resync.fresher_than(moment))

    async def _lead(self) -> None:
        """What only the leader does. A former leader's writes are in the store before anything is decided."""
        await self._synced_since(self.election.leading_since)
        keep, settings = self.supervisor.until_done, self.settings
        self.observer.children.clear()
        await keep("resolved", lambda: self.resolved.load(settings.namespaces, self._uid_of))
        self.inbox.open()
        sending = asyncio.create_task(self.events.run(), name="events")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(keep("workers", lambda: self.workers.run(settings.drain_seconds)), name="workers")
                group.create_task(keep("scraping", lambda: self.scraping.run(settings.scrape_seconds)), name="scraping")
                if settings.install_templates:
                    group.create_task(keep("templates", self._install_templates), name="templates")
        finally:
            self.inbox.close()
            await self.events.flush(_FLUSH_SECONDS)
            sending.cancel()

    def _uid_of(self, key: JobKey) -> str | None:
        """The uid of a job that has not ended."""
        record = self.store.job(key)
        return None if record is None or record.ended else record.uid

    async def _look_at_crds(self) -> None:
        """Tells of CRDs of another version, and of their having been replaced; everything goes on all the while."""
        while True:
            try:
                lack = await missing_fields(self.client)
            except ApiError as error:
                _log.warning("crds_not_compared", error=str(error))
            else:
                if lack is None:
                    self.crds_lack = None
                    return
                if lack != self.crds_lack:
                    _log.warning("crds_of_another_version", why=lack)
                self.crds_lack = lack
            await asyncio.sleep(_LOOK_AT_CRDS_SECONDS)

    async def _install_templates(self) -> None:
        await install_templates(self.client, self.store, self.inbox, templates())

    def _lost(self, kind: str) -> None:
        self.metrics.lost(kind)
        self.resync.soon()

    async def _fail_with_watcher(self) -> None:
        await self.watcher.failed.wait()
        raise RuntimeError("the watches have ended")

    def _election(self) -> Election:
        settings = self.settings
        lease = ClusterLease(
            self.lease_client, settings.lease_namespace or config.own_namespace(), settings.lease_name, now
        )
        times = LeaseTimes(settings.lease_duration_seconds, settings.lease_deadline, settings.lease_renew_seconds)
        identity = f"{settings.identity or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        return Election(lease, identity, time.monotonic, times, self.metrics.leading)

    def _reconciler(self) -> Reconciler:
        return Reconciler(
            store=self.store,
            client=self.client,
            observer=self.observer,
            applier=Applier(self.client, self.store, self.inbox, self.resolved),
            events=self.events,
            forget=self._forget,
            rest=lambda key: self.queue.rest(key, _REST_SECONDS),
            settings=self.settings.plan,
            now=now,
        )

    def _forget(self, key: JobKey) -> None:
        self.observer.forget(key)
        self.queue.drop(key)


async def run(settings: Settings, configuration: Any) -> int:
    """Runs an operator until SIGTERM or SIGINT; returns the process's exit code."""
    gc.set_threshold(*_GC_AT_START)
    async with pod_session() as session:
        operator = Operator(settings, configuration, session)
        endpoints = Endpoints(operator.metrics.render, operator.alive, operator.ready, lambda: operator.crds_lack)
        await endpoints.start(settings.metrics_port, settings.health_port)
        try:
            return await _until_stopped(operator.run())
        finally:
            await operator.close()
            await endpoints.stop()


async def _until_stopped(work: Coroutine[Any, Any, None]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="operator")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stopped = loop.create_task(stopping.wait(), name="signals")
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        _log.info("stopping")
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except BaseExceptionGroup as failures:
        for failure in failures.exceptions:
            _log.error("operator_failed", error=str(failure), exc_info=failure)
        return 1
    return 1
