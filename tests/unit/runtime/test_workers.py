from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import prometheus_client
import pytest
from tests.unit.runtime.objects import finetune_job

from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import FINETUNE_JOBS, JobKey
from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.metrics import QueueGauges
from finetune_operator.runtime.queue import Backoff, WorkQueue
from finetune_operator.runtime.store import Ref, Store, record_of
from finetune_operator.runtime.workers import TransientError, Workers

A, B = JobKey("team", "a"), JobKey("team", "b")


class Counted:
    def __init__(self) -> None:
        self.results: list[str] = []

    def reconciled(self, result: str, seconds: float) -> None:
        self.results.append(result)

    def working(self, workers: int) -> None: ...


@pytest.fixture
def metrics() -> Counted:
    return Counted()


@pytest.fixture
async def queue() -> WorkQueue[JobKey]:
    gauges = QueueGauges(prometheus_client.CollectorRegistry())
    return WorkQueue(asyncio.get_running_loop(), gauges, Backoff(first=0.001, most=0.002))


def workers(
    queue: WorkQueue[JobKey], metrics: Counted, reconcile: Callable[[JobKey], Awaitable[float | None]]
) -> Workers:
    return Workers(queue, reconcile, metrics, 4, time.monotonic)


async def stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_job_that_fails_is_tried_again_and_others_are_not_held_up(
    queue: WorkQueue[JobKey], metrics: Counted
) -> None:
    seen: list[JobKey] = []
    enough = asyncio.Event()

    async def reconcile(key: JobKey) -> None:
        seen.append(key)
        if key == A and seen.count(A) == 1:
            raise TransientError("not now")
        if key == A and seen.count(A) == 2:
            raise LookupError("a fault of ours")
        if seen.count(A) == 3:
            enough.set()

    running = asyncio.create_task(workers(queue, metrics, reconcile).run(0))
    queue.add(A)
    queue.add(B)
    await enough.wait()
    await stop(running)
    assert seen.count(B) == 1
    assert metrics.results.count("error") == 2


async def test_a_job_comes_back_when_it_asked_to(queue: WorkQueue[JobKey], metrics: Counted) -> None:
    twice = asyncio.Event()
    seen: list[JobKey] = []

    async def reconcile(key: JobKey) -> float | None:
        seen.append(key)
        if len(seen) == 2:
            twice.set()
            return None
        return 0.001

    running = asyncio.create_task(workers(queue, metrics, reconcile).run(0))
    queue.add(A)
    await twice.wait()
    await stop(running)
    assert metrics.results == ["requeue_after", "success"]


async def test_a_job_is_left_alone_once_this_process_does_not_lead(queue: WorkQueue[JobKey], metrics: Counted) -> None:
    done = asyncio.Event()

    async def reconcile(_: JobKey) -> None:
        done.set()
        raise NotLeadingError

    running = asyncio.create_task(workers(queue, metrics, reconcile).run(0))
    queue.add(A)
    await done.wait()
    await asyncio.sleep(0.01)
    await stop(running)
    assert metrics.results == ["error"]


async def test_what_is_under_way_may_finish_when_the_operator_stops(queue: WorkQueue[JobKey], metrics: Counted) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    finished: list[JobKey] = []

    async def reconcile(key: JobKey) -> None:
        began.set()
        await may_end.wait()
        finished.append(key)

    running = asyncio.create_task(workers(queue, metrics, reconcile).run(5))
    queue.add(A)
    await began.wait()
    queue.add(B)
    running.cancel()
    asyncio.get_running_loop().call_later(0.01, may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert A in finished


async def test_a_follower_keeps_its_store_warm_and_queues_nothing(queue: WorkQueue[JobKey]) -> None:
    store = Store()
    inbox = Inbox(store, queue)
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("a")))
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("over", phase="Succeeded")))
    assert queue.take() is None
    inbox.open()
    assert (queue.take(), queue.take()) == (A, None)
    queue.done(A)
    inbox.gone(FINETUNE_JOBS, Ref("team", "a"), "uid-a")
    assert queue.take() == A
    inbox.close()
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("b")))
    assert queue.take() is None


async def test_many_jobs_at_which_nothing_happens_hold_nothing_else_up(
    queue: WorkQueue[JobKey], metrics: Counted
) -> None:
    turns = 0
    last = JobKey("team", "job-999")
    done = asyncio.Event()

    async def reconcile(key: JobKey) -> None:
        if key == last:
            done.set()

    async def lease() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for number in range(1000):
        queue.add(JobKey("team", f"job-{number}"))
    renewing = asyncio.create_task(lease())
    running = asyncio.create_task(workers(queue, metrics, reconcile).run(0))
    await done.wait()
    await stop(running)
    renewing.cancel()
    assert turns >= 1000 / 4
