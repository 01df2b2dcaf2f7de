"""What comes in, and how soon the job that it concerns is looked at."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.runtime.fake_time import FakeTime
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey
from finetune_operator.runtime.queue import NoMetrics, WorkQueue
from finetune_operator.runtime.store import Store, record_of
from finetune_operator.runtime.turns import Turns

BOT = JobKey("team", "bot")
WAITING: dict[str, Any] = {"phase": "Pending", "observedGeneration": 1}


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def queue(store: Store, time: FakeTime) -> WorkQueue[JobKey]:
    turns: Turns[JobKey] = Turns(lambda key: key.namespace, is_new=store.is_new)
    return WorkQueue(time, NoMetrics(), turns=turns)


@pytest.fixture
def inbox(store: Store, queue: WorkQueue[JobKey]) -> Inbox:
    return Inbox(store, queue)


@pytest.mark.parametrize(("phase", "found"), [("Running", None), ("Succeeded", BOT), ("Failed", BOT)])
def test_a_job_that_rests_is_woken_soon_by_its_pod_and_at_once_by_one_that_has_ended(
    inbox: Inbox, queue: WorkQueue[JobKey], time: FakeTime, phase: str, found: JobKey | None
) -> None:
    inbox.open()
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job()))
    assert queue.take() == BOT
    queue.rest(BOT, 1)
    queue.done(BOT)
    inbox.seen(record_of(BATCH_JOBS, child("Job", "bot-train")))
    inbox.seen(record_of(PODS, child("Pod", "bot-train-0", status={"phase": phase})))
    assert queue.take() == found
    time.advance(0.1)
    assert (found or queue.take()) == BOT


def test_a_pod_that_has_ended_wakes_nothing_in_a_process_that_does_not_lead(
    inbox: Inbox, queue: WorkQueue[JobKey]
) -> None:
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job()))
    inbox.seen(record_of(BATCH_JOBS, child("Job", "bot-train")))
    inbox.seen(record_of(PODS, child("Pod", "bot-train-0", status={"phase": "Failed"})))
    assert queue.take() is None


def test_at_the_start_a_new_job_and_one_that_changes_come_before_those_that_are_only_looked_at(
    inbox: Inbox, queue: WorkQueue[JobKey]
) -> None:
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("first", **WAITING)))
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("second", **WAITING)))
    inbox.open()
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("changes", **WAITING)))
    inbox.seen(record_of(FINETUNE_JOBS, finetune_job("new")))
    assert [queue.take() for _ in range(4)] == [JobKey("team", name) for name in ("new", "changes", "first", "second")]
