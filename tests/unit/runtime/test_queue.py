from __future__ import annotations

import asyncio

import prometheus_client
import pytest
from tests.unit.runtime.fake_time import FakeTime

from finetune_operator.runtime.metrics import QueueGauges
from finetune_operator.runtime.queue import Backoff, WorkQueue


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    return prometheus_client.CollectorRegistry()


@pytest.fixture
def queue(time: FakeTime, registry: prometheus_client.CollectorRegistry) -> WorkQueue[str]:
    return WorkQueue(time, QueueGauges(registry), Backoff(first=1, most=100, jitter=0.25), chance=lambda: 0.5)


def test_keys_come_in_the_order_they_were_added(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [queue.take(), queue.take(), queue.take(), queue.take()] == ["a", "b", "c", None]


def test_a_key_is_queued_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert (queue.take(), queue.take()) == ("a", None)


def test_a_key_added_while_it_is_worked_on_comes_again_after_that_work(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.take()
    queue.add("a")
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == "a"


def test_a_key_that_was_not_added_again_does_not_come_again(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.take()
    queue.done("a")
    assert queue.take() is None


def test_a_delayed_key_comes_when_it_is_due(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add_after("a", 10)
    time.advance(9.9)
    assert queue.take() is None
    time.advance(0.2)
    assert queue.take() == "a"


def test_of_several_delays_the_soonest_counts(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 20)
    time.advance(2)
    assert queue.take() == "a"
    queue.done("a")
    time.advance(100)
    assert queue.take() is None


def test_a_later_key_does_not_hold_up_a_sooner_one(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add_after("late", 50)
    queue.add_after("soon", 1)
    time.advance(1)
    assert queue.take() == "soon"
    time.advance(49)
    assert queue.take() == "late"


def test_failures_of_a_key_double_its_delay_until_it_is_forgotten(queue: WorkQueue[str]) -> None:
    assert [queue.retry("a") for _ in range(4)] == [1, 2, 4, 8]
    queue.forget("a")
    assert queue.retry("a") == 1


def test_backoff_is_bounded_and_spread() -> None:
    backoff = Backoff(first=1, most=100, jitter=0.25)
    assert backoff.delay(1000, 0.5) == 100
    assert backoff.delay(1, 0.0) == 0.75
    assert 1.24 < backoff.delay(1, 0.999) < 1.25


def test_a_forgotten_key_no_longer_comes_back(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.retry("a")
    queue.drop("a")
    time.advance(100)
    assert queue.take() is None


def test_clearing_forgets_what_waits_but_not_what_is_worked_on(queue: WorkQueue[str], time: FakeTime) -> None:
    for key in "ab":
        queue.add(key)
    queue.add_after("c", 1)
    assert queue.take() == "a"
    queue.clear()
    time.advance(10)
    assert queue.take() is None
    queue.done("a")


async def test_a_waiting_worker_gets_the_key_that_comes(queue: WorkQueue[str]) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await waiting == "a"


async def test_a_key_offered_to_a_worker_that_was_cancelled_goes_to_another(queue: WorkQueue[str]) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


def test_metrics_tell_of_depth_waiting_and_retries(
    queue: WorkQueue[str], time: FakeTime, registry: prometheus_client.CollectorRegistry
) -> None:
    label = {"name": "finetunejob"}
    queue.add("a")
    queue.add("b")
    assert registry.get_sample_value("workqueue_depth", label) == 2
    time.advance(3)
    queue.take()
    queue.retry("a")
    assert registry.get_sample_value("workqueue_depth", label) == 1
    assert registry.get_sample_value("workqueue_adds_total", label) == 2
    assert registry.get_sample_value("workqueue_retries_total", label) == 1
    assert registry.get_sample_value("workqueue_queue_duration_seconds_sum", label) == 3


def test_a_key_that_rests_is_left_alone_whatever_is_added_until_its_time_is_over(
    queue: WorkQueue[str], time: FakeTime
) -> None:
    queue.add("a")
    queue.take()
    queue.add("a")
    queue.rest("a", 5)
    queue.done("a")
    queue.add("a")
    assert queue.take() is None
    time.advance(5.1)
    assert queue.take() == "a"
    queue.done("a")
    queue.add("a")
    assert queue.take() == "a"


def test_a_key_that_rests_is_woken_by_what_cannot_wait(queue: WorkQueue[str], time: FakeTime) -> None:
    queue.add("a")
    queue.take()
    queue.rest("a", 5)
    queue.done("a")
    queue.wake("a", 1)
    assert queue.take() is None
    time.advance(1.1)
    assert queue.take() == "a"
    queue.done("a")
    queue.wake("a", 1)
    assert queue.take() == "a", "a key that does not rest is not put off"


def test_a_key_that_rests_is_woken_at_once_by_what_cannot_wait_at_all(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.take()
    queue.rest("a", 5)
    queue.done("a")
    queue.wake("a", 0)
    assert queue.take() == "a"


@pytest.mark.parametrize("ended", ["drop", "clear"])
def test_a_key_that_is_gone_rests_no_more(queue: WorkQueue[str], ended: str) -> None:
    queue.add("a")
    queue.take()
    queue.rest("a", 5)
    queue.done("a")
    queue.drop("a") if ended == "drop" else queue.clear()
    assert queue.take() is None
    queue.add("a")
    assert queue.take() == "a"
