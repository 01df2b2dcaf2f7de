from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import prometheus_client
import pytest
from tests.unit.runtime.fake_time import FakeTime
from tests.unit.runtime.objects import Body, child, finetune_job

from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey, Kind
from finetune_operator.runtime.metrics import QueueGauges
from finetune_operator.runtime.queue import WorkQueue
from finetune_operator.runtime.resync import Page, Resync
from finetune_operator.runtime.store import Store

BOT = JobKey("team", "bot")


@dataclass
class Lists:
    """What the API server would list, a page of one object at a time."""

    objects: dict[Kind, list[Body]]
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def __call__(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]:
        self.asked.append((kind.plural, namespace))
        yield Page((), 100)
        for body in self.objects.get(kind, []):
            yield Page((body,), 100)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def queue(time: FakeTime) -> WorkQueue[JobKey]:
    return WorkQueue(time, QueueGauges(prometheus_client.CollectorRegistry()))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def lists() -> Lists:
    return Lists({FINETUNE_JOBS: [finetune_job()], PODS: [child("Pod", "p")], BATCH_JOBS: [child("Job", "bot-train")]})


def resync_of(store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime, *namespaces: str) -> Resync:
    inbox = Inbox(store, queue)
    inbox.open()
    return Resync(store, inbox, lists, namespaces, time.time, lambda _: None)


async def test_it_fills_an_empty_store(store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime) -> None:
    resync = resync_of(store, queue, lists, time)
    await resync.fresher_than(time.now)
    assert resync.synced.is_set()
    assert store.children(BOT, PODS)
    assert queue.take() == BOT


async def test_nothing_that_is_unchanged_is_queued(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    resync = resync_of(store, queue, lists, time)
    await resync.fresher_than(time.now)
    queue.clear()
    time.advance(1)
    await resync.fresher_than(time.now)
    assert queue.take() is None


async def test_it_finds_a_deletion_that_the_watch_has_lost(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    resync = resync_of(store, queue, lists, time)
    await resync.fresher_than(time.now)
    queue.clear()
    lists.objects[PODS] = []
    time.advance(1)
    await resync.fresher_than(time.now)
    assert store.children(BOT, PODS) == []
    assert queue.take() == BOT


async def test_lists_that_are_wanted_at_the_same_time_are_made_once(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    resync = resync_of(store, queue, lists, time)
    await asyncio.gather(resync.fresher_than(time.now), resync.fresher_than(time.now))
    assert lists.asked.count(("pods", None)) == 1
    time.advance(1)
    await resync.fresher_than(time.now)
    assert lists.asked.count(("pods", None)) == 2


async def test_only_the_namespaces_that_are_watched_are_listed(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    await resync_of(store, queue, lists, time, "team", "other").fresher_than(time.now)
    assert ("pods", "team") in lists.asked
    assert ("pods", "other") in lists.asked
    assert ("clusterfinetunetemplates", None) in lists.asked
    assert ("pods", None) not in lists.asked
