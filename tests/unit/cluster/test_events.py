from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.unit.cluster.api_server import ApiServer, client_of, status
from tests.unit.runtime.objects import finetune_job

from finetune_operator.api.resources import FineTuneJob, ObjectMeta
from finetune_operator.api.status import Reason
from finetune_operator.cluster import events
from finetune_operator.cluster.client import Client, UnavailableError
from finetune_operator.cluster.events import EventSender
from finetune_operator.plan.model.plan import EventType, JobEvent
from finetune_operator.runtime.lease import NotLeadingError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = "/api/v1/namespaces/team/events"
RESTARTED = JobEvent(EventType.WARNING, Reason.RESTARTING, "rank 1 was lost")


def job(version: int = 1, name: str = "bot") -> ObjectMeta:
    return FineTuneJob.model_validate(finetune_job(name, version=version)).metadata


def saying(message: str) -> JobEvent:
    return JobEvent(EventType.WARNING, Reason.POD_PROBLEM, message)


@dataclass
class Told:
    """Events that an API server keeps."""

    server: ApiServer
    client: Client

    async def send(self, event: JobEvent, version: int = 1, after: timedelta = timedelta()) -> None:
        await events.send(self.client, job(version), event, NOW + after)

    @property
    def counts(self) -> list[tuple[str, int]]:
        return [(body["message"], body["count"]) for body in self.server.kept[ROOT].values()]


@pytest.fixture
def told(server: ApiServer, client: Client) -> Told:
    server.kept[ROOT] = {}
    return Told(server, client)


async def test_an_event_tells_whom_it_is_about_and_when(server: ApiServer, client: Client) -> None:
    server.answer("POST", ROOT, {})
    await events.send(client, job(), RESTARTED, NOW)
    (body,) = (asked.body for asked in server.asked)
    assert body["metadata"].pop("name").startswith("bot.")
    assert body["metadata"].pop("annotations")["finetune-operator.io/occasion"].startswith("1 ")
    assert body == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "team"},
        "involvedObject": {
            "apiVersion": "finetune-operator.io/v1alpha1",
            "kind": "FineTuneJob",
            "name": "bot",
            "namespace": "team",
            "uid": "uid-bot",
        },
        "type": "Warning",
        "reason": "Restarting",
        "message": "rank 1 was lost",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
        "source": {"component": "finetune-operator"},
        "reportingComponent": "finetune-operator",
        "reportingInstance": "finetune-operator",
    }


async def test_what_happens_again_is_counted_on_the_first_event(told: Told) -> None:
    await told.send(RESTARTED, version=1)
    await told.send(RESTARTED, version=2, after=timedelta(hours=1))
    assert told.counts == [("rank 1 was lost", 2)]
    (body,) = told.server.kept[ROOT].values()
    assert body["lastTimestamp"] == "2026-01-01T01:00:00Z"


async def test_an_event_that_another_program_has_stripped_is_counted_on(told: Told) -> None:
    await told.send(RESTARTED, version=1)
    (body,) = told.server.kept[ROOT].values()
    body["count"] = 7
    del body["metadata"]["annotations"]
    await told.send(RESTARTED, version=2)
    assert told.counts == [("rank 1 was lost", 8)]


async def test_a_reconcile_that_is_repeated_after_a_crash_counts_nothing(told: Told) -> None:
    for _ in range(3):
        await told.send(RESTARTED, version=5)
    assert told.counts == [("rank 1 was lost", 1)]
    assert told.server.paths("PATCH") == []


async def test_words_that_differ_in_numbers_only_are_one_event_with_the_newest_words(told: Told) -> None:
    await told.send(saying("0/3 nodes are available: 1 Insufficient cpu"))
    await told.send(saying("0/4 nodes are available: 12 Insufficient cpu"), 2, timedelta(minutes=9))
    assert told.counts == [("0/4 nodes are available: 12 Insufficient cpu", 2)]


async def test_other_words_are_another_event(told: Told) -> None:
    await told.send(saying("0/3 nodes: Insufficient cpu"))
    await told.send(saying("0/3 nodes: Insufficient memory"))
    assert [count for _, count in told.counts] == [1, 1]


async def test_the_same_words_for_another_reason_are_another_event(told: Told) -> None:
    await told.send(RESTARTED)
    await told.send(JobEvent(RESTARTED.type, Reason.POD_PROBLEM, RESTARTED.message))
    assert told.counts == [(RESTARTED.message, 1)] * 2


async def test_numbers_that_differ_after_ten_minutes_are_another_event(told: Told) -> None:
    await told.send(saying("1 of 3"))
    await told.send(saying("2 of 3"), 2, timedelta(minutes=11))
    assert told.counts == [("1 of 3", 1), ("2 of 3", 1)]


async def test_two_events_of_one_reconcile_that_differ_in_numbers_are_both_counted_and_only_once(told: Told) -> None:
    for _ in range(2):
        await told.send(saying("artifact 1"), version=7)
        await told.send(saying("artifact 2"), version=7)
    assert told.counts == [("artifact 2", 2)]


# In the background


@asynccontextmanager
async def running(client: Client, dropped: Callable[[], None] = lambda: None, most: int = 1000) -> AsyncIterator[Any]:
    sender = EventSender(client, dropped, most, pause_seconds=0.0)
    task = asyncio.create_task(sender.run())
    yield sender
    task.cancel()


def said(server: ApiServer) -> list[str]:
    return [asked.body["message"] for asked in server.asked if asked.method == "POST"]


async def test_events_of_a_job_are_sent_in_order_while_nobody_waits(server: ApiServer, client: Client) -> None:
    server.answer("POST", ROOT, {})
    async with running(client) as sender:
        for words in ("a", "b", "c"):
            sender.post(job(), saying(words), NOW)
        assert server.asked == []
        await sender.flush(5)
    assert said(server) == ["a", "b", "c"]


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_an_event_that_the_api_server_has_no_time_for_is_sent_again(
    server: ApiServer, client: Client, code: int
) -> None:
    server.answer("POST", ROOT, status(code), status(code), {})
    async with running(client) as sender:
        sender.post(job(), RESTARTED, NOW)
        await sender.flush(5)
    assert len(said(server)) == 3


async def test_an_event_that_fails_for_good_is_counted_and_the_next_one_sent(server: ApiServer, client: Client) -> None:
    lost: list[int] = []
    for refusal in (status(503), status(403, "Forbidden"), status(404)):
        server.asked.clear()
        server.answer("POST", ROOT, *[refusal] * (4 if refusal["code"] == 503 else 1), {})
        async with running(client, lambda: lost.append(1)) as sender:
            sender.post(job(), saying("x"), NOW)
            sender.post(job(), saying("y"), NOW)
            with capture_logs() as logs:
                await sender.flush(5)
        assert said(server) == ["x"] * (4 if refusal["code"] == 503 else 1) + ["y"]
        (told,) = logs
        assert (told["job"], told["namespace"], told["reason"]) == ("bot", "team", "PodProblem")
    assert len(lost) == 3


async def test_a_job_whose_event_hangs_does_not_hold_up_the_events_of_most_others(server: ApiServer) -> None:
    stuck = job(name="stuck").model_copy(update={"namespace": "elsewhere"})
    server.answer("POST", ROOT, {})
    server.meeting = {("POST", "/api/v1/namespaces/elsewhere/events"), ("POST", "/never")}
    async with client_of(server) as client, running(client) as sender:
        sender.post(stuck, saying("stuck"), NOW)
        for number in range(40):
            sender.post(job(name=f"job-{number}"), saying("x"), NOW)
        with capture_logs():
            await sender.flush(0.5)
    assert len(said(server)) > 20


async def test_of_more_events_than_it_holds_the_oldest_are_dropped(server: ApiServer, client: Client) -> None:
    lost: list[int] = []
    server.answer("POST", ROOT, {})
    async with running(client, lambda: lost.append(1), most=8) as sender:
        for words in "abcde":
            sender.post(job(), saying(words), NOW)
        await sender.flush(5)
    assert (said(server), len(lost)) == (["d", "e"], 3)


async def test_at_the_end_only_so_long_is_waited(server: ApiServer) -> None:
    lost: list[int] = []
    server.meeting = {("POST", ROOT), ("POST", "/never")}
    async with client_of(server) as client, running(client, lambda: lost.append(1)) as sender:
        sender.post(job(), saying("a"), NOW)
        sender.post(job(), saying("b"), NOW)
        await sender.flush(0.2)
    assert len(lost) == 1, "the one that was not begun"


async def test_who_does_not_lead_sends_nothing(server: ApiServer) -> None:
    def fence() -> None:
        raise NotLeadingError

    lost: list[int] = []
    async with client_of(server, fence) as client, running(client, lambda: lost.append(1)) as sender:
        sender.post(job(), RESTARTED, NOW)
        await sender.flush(5)
    assert (server.asked, len(lost)) == ([], 1)


async def test_an_unavailable_api_server_is_for_the_sender_to_retry(server: ApiServer, client: Client) -> None:
    server.answer("POST", ROOT, status(503))
    with pytest.raises(UnavailableError):
        await events.send(client, job(), RESTARTED, NOW)
