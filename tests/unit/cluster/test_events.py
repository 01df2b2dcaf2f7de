from __future__ import annotations

from datetime import UTC, datetime

from tests.unit.cluster.api_server import ApiServer, status
from tests.unit.runtime.objects import finetune_job

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Reason
from finetune_operator.cluster import events
from finetune_operator.cluster.client import Client
from finetune_operator.plan.model.plan import EventType, JobEvent

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = "/api/v1/namespaces/team/events"
RESTARTED = JobEvent(EventType.WARNING, Reason.RESTARTING, "rank 1 was lost")


def job(version: int = 1) -> FineTuneJob:
    return FineTuneJob.model_validate(finetune_job(version=version))


async def test_an_event_is_named_after_what_it_says(server: ApiServer, client: Client) -> None:
    server.answer("POST", ROOT, {})
    await events.send(client, job().metadata, RESTARTED, NOW)
    await events.send(client, job(version=2).metadata, RESTARTED, NOW)
    await events.send(client, job().metadata, JobEvent(EventType.WARNING, Reason.RESTARTING, "rank 2 was lost"), NOW)
    first, again, other = (asked.body for asked in server.asked)
    assert first["metadata"]["name"] == again["metadata"]["name"] != other["metadata"]["name"]
    assert first["involvedObject"]["uid"] == "uid-bot"
    assert (first["type"], first["reason"], first["count"]) == ("Warning", "Restarting", 1)


async def existing(server: ApiServer, client: Client, occasion: str) -> str:
    server.answer("POST", ROOT, {})
    await events.send(client, job().metadata, RESTARTED, NOW)
    body = server.asked[0].body
    body["metadata"]["annotations"] = {"finetune-operator.io/occasion": occasion}
    path = f"{ROOT}/{body['metadata']['name']}"
    server.answer("POST", ROOT, status(409, "AlreadyExists"))
    server.answer("GET", path, body)
    server.answer("PATCH", path, body)
    return path


async def test_a_reconcile_that_is_repeated_after_a_crash_counts_nothing(server: ApiServer, client: Client) -> None:
    await existing(server, client, occasion="5")
    await events.send(client, job(version=5).metadata, RESTARTED, NOW)
    assert server.paths("PATCH") == []


async def test_what_happens_again_is_counted_on_the_first_event(server: ApiServer, client: Client) -> None:
    path = await existing(server, client, occasion="5")
    await events.send(client, job(version=8).metadata, RESTARTED, NOW)
    assert server.paths("PATCH") == [path]
    patch = server.asked[-1].body
    assert patch["count"] == 2
    assert patch["lastTimestamp"] == "2026-01-01T00:00:00Z"


async def test_an_event_that_is_refused_holds_nothing_up(server: ApiServer, client: Client) -> None:
    server.answer("POST", ROOT, status(403, "Forbidden"))
    await events.send(client, job().metadata, RESTARTED, NOW)
