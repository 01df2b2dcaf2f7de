"""What Kopf is told, and what it brings: nothing that could make it write."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import prometheus_client
import pytest
from kopf._cogs.clients import api as kopf_api
from structlog.testing import capture_logs
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.cluster.config import Credentials
from finetune_operator.handlers import Watcher, kopf_settings, read_deep_json
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey
from finetune_operator.runtime.metrics import QueueGauges
from finetune_operator.runtime.queue import WorkQueue
from finetune_operator.runtime.store import Store

BOT = JobKey("team", "bot")


class Watched:
    """A watcher whose Kopf never runs: tests hand it the events."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.store = Store()
        self.queue: WorkQueue[JobKey] = WorkQueue(loop, QueueGauges(prometheus_client.CollectorRegistry()))
        self.inbox = Inbox(self.store, self.queue)
        self.inbox.open()
        self.counted: list[tuple[str, str]] = []
        self.lost: list[str] = []
        self.watcher = Watcher(
            self.inbox,
            self._credentials,
            (),
            loop,
            lambda kind, change: self.counted.append((kind, change)),
            self.lost.append,
        )

    async def event(self, kind: Any, change: str | None, body: dict[str, Any]) -> None:
        is_handled = self.watcher.receiver(kind)(event={"type": change, "object": body})
        assert not is_handled, "a handler's call costs more than the event"
        await asyncio.sleep(0)

    async def _credentials(self) -> Credentials:
        raise NotImplementedError


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def test_an_event_updates_the_store_and_queues_the_job(watched: Watched) -> None:
    await watched.event(FINETUNE_JOBS, None, finetune_job())
    assert watched.queue.take() == BOT
    watched.queue.done(BOT)
    await watched.event(BATCH_JOBS, "ADDED", child("Job", "bot-train"))
    assert watched.queue.take() == BOT
    watched.queue.done(BOT)
    await watched.event(PODS, "ADDED", child("Pod", "p"))
    assert watched.queue.take() == BOT
    watched.queue.done(BOT)
    await watched.event(PODS, "DELETED", child("Pod", "p", version=2))
    assert watched.queue.take() == BOT
    assert watched.store.children(BOT, PODS) == []


async def test_what_is_known_already_is_passed_over(watched: Watched) -> None:
    await watched.event(FINETUNE_JOBS, "MODIFIED", finetune_job(version=2))
    assert watched.queue.take() == BOT
    watched.queue.done(BOT)
    await watched.event(FINETUNE_JOBS, None, finetune_job(version=2))
    assert watched.queue.take() is None
    assert watched.counted == [("finetunejobs", "modified"), ("finetunejobs", "listed")]


async def test_every_handler_is_of_raw_events(watched: Watched) -> None:
    registry = watched.watcher.registry()
    assert len(registry._watching.get_all_handlers()) == 5  # noqa: SLF001 - Kopf offers no other way to look
    assert not registry._changing.get_all_handlers()  # noqa: SLF001
    assert not registry._spawning.get_all_handlers()  # noqa: SLF001
    assert not registry._indexing.get_all_handlers()  # noqa: SLF001


def test_kopf_posts_and_stores_nothing_and_watches_only_what_is_ours() -> None:
    settings = kopf_settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert set(settings.watching.label_selectors.values()) == {"app.kubernetes.io/managed-by=finetune-operator"}
    assert len(settings.watching.label_selectors) == 2


def job_without(*path: str) -> dict[str, Any]:
    body = finetune_job()
    inner = body
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return body


@pytest.mark.parametrize("change", ["ADDED", "MODIFIED", "DELETED", None])
@pytest.mark.parametrize(
    "body",
    [job_without("metadata", "uid"), job_without("metadata", "name"), job_without("metadata"), {}, {"metadata": None}],
)
async def test_an_event_that_cannot_be_taken_in_is_told_and_raises_nothing(
    watched: Watched, change: str | None, body: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            await watched.event(FINETUNE_JOBS, change, body)
    assert watched.lost == ["finetunejobs"] * 3
    assert [line["event"] for line in logs] == ["watch_event_lost"]


async def test_an_object_that_cannot_be_read_is_told(watched: Watched) -> None:
    await watched.event(FINETUNE_JOBS, "ADDED", job_without("spec", "template"))
    assert watched.lost == ["finetunejobs"]


@pytest.mark.parametrize("change", ["ADDED", "DELETED"])
async def test_an_event_that_the_operators_own_loop_cannot_take_in_is_told(
    watched: Watched, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise LookupError("a fault of ours")

    monkeypatch.setattr(watched.inbox, "seen", fails)
    monkeypatch.setattr(watched.inbox, "gone", fails)
    await watched.event(FINETUNE_JOBS, change, finetune_job())
    await asyncio.sleep(0)
    assert watched.lost == ["finetunejobs"]


def test_kopf_reads_objects_that_were_nested_to_break_it() -> None:
    read_deep_json()
    deep = '{"a":' * 9_000 + "1" + "}" * 9_000
    assert "a" in vars(kopf_api)["json"].loads(deep)
    defaults = aiohttp.ClientResponse.json.__kwdefaults__ or {}
    assert "a" in defaults["loads"](deep)
