from __future__ import annotations

import asyncio
import time as clock
from collections import Counter

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.fake_time import FakeTime

from finetune_operator.runtime.kinds import JobKey
from finetune_operator.runtime.metrics import Metrics, QueueGauges
from finetune_operator.runtime.queue import Backoff, NoMetrics, WorkQueue
from finetune_operator.runtime.turns import Lane, Turns
from finetune_operator.runtime.workers import TransientError, Workers


def keys(tenant: str, count: int) -> list[JobKey]:
    return [JobKey(tenant, f"job-{number}") for number in range(count)]


def turns(workers: int | None = None) -> Turns[JobKey]:
    return Turns(lambda key: key.namespace, workers)


def all_that_may_be_taken(waiting: Turns[JobKey]) -> list[str]:
    taken = []
    while (key := waiting.take()) is not None:
        taken.append(key.namespace)
    return taken


def test_tenants_take_turns_however_much_one_of_them_has_waiting() -> None:
    waiting = turns()
    for key in [*keys("noisy", 5000), *keys("team", 2), *keys("other", 1)]:
        waiting.append(key)
    taken = [waiting.take() for _ in range(6)]
    assert [key.namespace for key in taken if key] == ["noisy", "team", "other", "noisy", "team", "noisy"]


def test_what_is_new_passes_what_was_there_and_that_the_round_at_the_start() -> None:
    waiting: Turns[str] = Turns(is_new=lambda key: key.startswith("new"))
    for number in range(3):
        waiting.append(f"round-{number}", Lane.ROUND)
    waiting.append("usual")
    waiting.append("new")
    assert [waiting.take() for _ in range(5)] == ["new", "usual", "round-0", "round-1", "round-2"]


def test_a_flood_of_new_keys_lets_one_in_eight_of_the_others_through() -> None:
    waiting: Turns[str] = Turns(is_new=lambda key: key.startswith("new"))
    waiting.append("usual")
    waiting.append("round", Lane.ROUND)
    for number in range(20):
        waiting.append(f"new-{number}")
    taken = [waiting.take() for _ in range(16)]
    assert (taken[7], taken[15]) == ("round", "usual")
    assert len(waiting) == 6


def test_every_tenants_round_goes_on_beside_its_own_flood() -> None:
    waiting = turns()
    for tenant in ("a", "b"):
        waiting.append(JobKey(tenant, "round"), Lane.ROUND)
        for key in keys(tenant, 20):
            waiting.append(key)
    taken = [waiting.take() for _ in range(16)]
    assert {key.namespace for key in taken if key and key.name == "round"} == {"a", "b"}


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 1), (4, 3), (16, 12), (64, 48)])
def test_a_tenant_alone_has_three_quarters_of_the_workers(workers: int, most: int) -> None:
    waiting = turns(workers)
    for key in keys("noisy", 5000):
        waiting.append(key)
    assert len(all_that_may_be_taken(waiting)) == most
    assert len(waiting) == 5000 - most


def test_two_tenants_that_hang_leave_a_worker_for_a_third() -> None:
    waiting = turns(16)
    for tenant in ("noisy", "loud"):
        for key in keys(tenant, 100):
            waiting.append(key)
    all_that_may_be_taken(waiting)
    waiting.append(JobKey("team", "bot"))
    assert waiting.take() == JobKey("team", "bot")


def test_a_tenant_goes_on_when_one_of_its_keys_is_done() -> None:
    waiting = turns(4)
    for key in keys("noisy", 5):
        waiting.append(key)
    assert len(all_that_may_be_taken(waiting)) == 3
    waiting.done(JobKey("noisy", "job-0"))
    assert waiting.take() == JobKey("noisy", "job-3")
    assert waiting.take() is None


@given(
    st.integers(1, 20),
    st.lists(st.one_of(st.tuples(st.just("add"), st.integers(0, 5)), st.tuples(st.just("done"), st.integers(0, 5)))),
)
def test_whatever_comes_and_goes_no_worker_is_idle_while_a_tenant_without_one_waits(
    workers: int, steps: list[tuple[str, int]]
) -> None:
    waiting = turns(workers)
    busy: list[JobKey] = []
    ready: Counter[str] = Counter()
    for number, (step, which) in enumerate(steps):
        if step == "add":
            waiting.append(JobKey(f"tenant-{which}", str(number)))
            ready[f"tenant-{which}"] += 1
        elif busy:
            waiting.done(busy.pop(which % len(busy)))
        while len(busy) < workers and (taken := waiting.take()) is not None:
            busy.append(taken)
            ready[taken.namespace] -= 1
        at_work = Counter(key.namespace for key in busy)
        assert len(waiting) == ready.total()
        assert len(busy) == workers or all(at_work[tenant] for tenant, count in ready.items() if count)


async def test_reconciles_of_one_namespace_that_hang_leave_workers_for_another() -> None:
    queue = WorkQueue(asyncio.get_running_loop(), NoMetrics(), turns=turns(4))
    hangs, done = asyncio.Event(), asyncio.Event()
    most = at_work = 0

    async def reconcile(key: JobKey) -> None:
        nonlocal most, at_work
        if key.namespace == "noisy":
            at_work += 1
            most = max(most, at_work)
            await hangs.wait()
        else:
            done.set()

    metrics = Metrics(dict, 4, "lease")
    running = asyncio.create_task(Workers(queue, reconcile, metrics, 4, clock.monotonic).run(0))
    for key in keys("noisy", 200):
        queue.add(key)
    await asyncio.sleep(0.01)
    queue.add(JobKey("team", "bot"))
    async with asyncio.timeout(10):
        await done.wait()
    assert most == 3
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_every_waiting_worker_wakes_that_may_work_when_one_is_done() -> None:
    queue = WorkQueue(asyncio.get_running_loop(), NoMetrics(), turns=turns(4))
    for tenant in ("a", "b"):
        for key in keys(tenant, 10):
            queue.add(key)
    taken = [found for _ in range(3) if (found := queue.take())]
    assert queue.take() is None, "the fourth worker is for a third namespace"
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    for done in taken[:2]:
        queue.done(done)
    async with asyncio.timeout(10):
        await asyncio.wait(getters, return_when=asyncio.FIRST_COMPLETED)
        assert any(getter.done() for getter in getters)
    for getter in getters:
        getter.cancel()
    await asyncio.gather(*getters, return_exceptions=True)


async def test_a_job_waits_as_long_as_the_api_server_asked_for() -> None:
    time = FakeTime()
    queue: WorkQueue[JobKey] = WorkQueue(time, NoMetrics(), Backoff(first=0.001))
    key = JobKey("team", "bot")

    async def reconcile(_: JobKey) -> None:
        error = TransientError("429")
        error.retry_after = 30
        raise error

    workers = Workers(queue, reconcile, Metrics(dict, 1, "lease"), 1, time.time)
    running = asyncio.create_task(workers.run(0))
    queue.add(key)
    await asyncio.sleep(0.01)
    time.advance(29)
    assert len(queue) == 0
    time.advance(1)
    assert len(queue) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_delays_of_keys_that_were_dropped_do_not_pile_up() -> None:
    queue: WorkQueue[JobKey] = WorkQueue(FakeTime(), QueueGauges(prometheus_client.CollectorRegistry()))
    for key in keys("noisy", 20_000):
        queue.add_after(key, 1e9)
        queue.drop(key)
    assert len(queue._heap) < 2_000  # noqa: SLF001 - what is kept shows in memory only
