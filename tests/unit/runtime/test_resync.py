from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import prometheus_client
import pytest
from structlog.testing import capture_logs
from tests.unit.runtime.fake_time import FakeTime
from tests.unit.runtime.objects import Body, child, finetune_job

from finetune_operator.runtime import resync as resync_module
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey, Kind
from finetune_operator.runtime.metrics import QueueGauges
from finetune_operator.runtime.queue import Backoff, WorkQueue
from finetune_operator.runtime.resync import Page, Resync, ResyncError
from finetune_operator.runtime.store import Store
from finetune_operator.runtime.workers import TransientError

BOT = JobKey("team", "bot")


@dataclass
class Lists:
    """What the API server would list, a page of one object at a time."""

    objects: dict[Kind, list[Body]]
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    denied: dict[Kind, Exception] = field(default_factory=dict)

    async def __call__(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]:
        self.asked.append((kind.plural, namespace))
        if kind in self.denied:
            raise self.denied[kind]
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


@pytest.mark.parametrize("error", [PermissionError("403 Forbidden"), TransientError("503"), KeyError("items")])
async def test_a_kind_that_cannot_be_listed_keeps_none_of_the_others_from_it(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime, error: Exception
) -> None:
    resync = resync_of(store, queue, lists, time)
    lists.denied[PODS] = error
    with pytest.raises(ResyncError, match="pods cannot be listed"):
        await resync.fresher_than(time.now)
    assert store.children(BOT, BATCH_JOBS)
    assert queue.take() == BOT
    assert not resync.synced.is_set()
    assert "pods" in resync.problem
    del lists.denied[PODS]
    await resync.fresher_than(time.now)
    assert resync.synced.is_set()
    assert not resync.problem


async def test_objects_of_a_kind_that_could_not_be_listed_are_not_taken_for_deleted(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    resync = resync_of(store, queue, lists, time)
    await resync.fresher_than(time.now)
    lists.denied[PODS] = TransientError("503")
    time.advance(1)
    with pytest.raises(ResyncError):
        await resync.fresher_than(time.now)
    assert store.children(BOT, PODS)


async def test_an_object_that_nobody_can_read_hides_no_other_and_is_named_once(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    broken = finetune_job("broken")
    del broken["spec"]["template"]
    lists.objects[FINETUNE_JOBS].insert(0, broken)
    resync = resync_of(store, queue, lists, time)
    with capture_logs() as logs:
        for _ in range(2):
            await resync.fresher_than(time.now)
            time.advance(1)
    assert queue.take() == BOT
    assert [line["event"] for line in logs].count("object_unreadable") == 1


async def test_it_tries_again_with_growing_pauses_when_it_fails(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime
) -> None:
    resync = resync_of(store, queue, lists, time)
    resync.backoff = Backoff(first=0.001, most=0.002)
    lists.denied[PODS] = PermissionError("403")
    running = asyncio.create_task(resync.run(0.001))
    async with asyncio.timeout(10):
        while len(lists.asked) < 20:
            await asyncio.sleep(0.001)
            time.advance(1)
        lists.denied.clear()
        await resync.synced.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_may_have_been_lost_is_looked_for_before_it_is_due(
    store: Store, queue: WorkQueue[JobKey], lists: Lists, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync_module, "_SOONEST", 0.001)
    resync = resync_of(store, queue, lists, time)
    running = asyncio.create_task(resync.run(3600))
    await asyncio.sleep(0.01)
    assert not lists.asked
    resync.soon()
    async with asyncio.timeout(10):
        await resync.synced.wait()
    time.advance(1)
    await asyncio.sleep(0.02)
    assert lists.asked.count(("pods", None)) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
