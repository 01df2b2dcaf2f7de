"""Every running job is asked for its progress, however other jobs' pods behave."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs
from tests.unit.cluster import hostile
from tests.unit.cluster.api_server import ApiServer, status
from tests.unit.cluster.asked_pods import GOOD, SAID, proxy
from tests.unit.cluster.conftest import World
from tests.unit.cluster.pod_json import container
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.cluster.pods import PodAddress
from finetune_operator.cluster.progress import (
    ScrapeLoop,
    Scraper,
)
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey
from finetune_operator.runtime.progress import ProgressBoard
from finetune_trainer.contract import Progress

BOT = JobKey("team", "bot")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def running(name: str, job: str = "bot", namespace: str = "team") -> dict[str, object]:
    pod = child("Pod", name, job=job)
    pod["metadata"] |= {"namespace": namespace, "uid": f"{namespace}-{name}"}
    pod["status"] = {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [container(running={})]}
    return pod


def job_for_training(name: str, namespace: str) -> dict[str, object]:
    job = child("Job", f"{name}-train", job=name, owner=f"{namespace}-{name}")
    job["metadata"] |= {"namespace": namespace}
    return job


def job_in(namespace: str, name: str) -> dict[str, object]:
    job = finetune_job(name)
    job["metadata"] |= {"namespace": namespace, "uid": f"{namespace}-{name}"}
    return job


@pytest.fixture
async def counted() -> list[str]:
    return []


@pytest.fixture
async def loop(world: World, scraper: Scraper, counted: list[str]) -> ScrapeLoop:
    return ScrapeLoop(world.store, scraper, world.board, lambda: NOON, counted.append)


def knows_a_running_job(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    world.knows(PODS, running("p"))


async def test_a_running_job_is_queued_when_its_progress_has_moved(
    loop: ScrapeLoop, scraper: Scraper, server: ApiServer, world: World
) -> None:
    knows_a_running_job(world)
    world.queue.clear()
    server.answer("GET", proxy(scraper), SAID, SAID, {**SAID, "step": 8})
    await loop.ask(BOT)
    assert world.queue.take() == BOT
    world.queue.done(BOT)
    await loop.ask(BOT)
    assert world.queue.take() is None
    await loop.ask(BOT)
    assert world.queue.take() == BOT


async def test_each_asking_is_counted_and_what_goes_wrong_is_told_once_but_for_a_pod_that_only_just_starts(
    loop: ScrapeLoop, scraper: Scraper, server: ApiServer, world: World, counted: list[str]
) -> None:
    knows_a_running_job(world)
    server.answer("GET", proxy(scraper), SAID, status(503, "ServiceUnavailable"), status(404, "NotFound"))
    with capture_logs() as logs:
        for _ in range(4):
            await loop.ask(BOT)
    assert counted == ["ok", "unreachable", "refused", "refused"]
    (told,) = logs
    assert told == {
        "event": "no_progress",
        "log_level": "warning",
        "job": "bot",
        "namespace": "team",
        "pod": "p",
        "outcome": "refused",
        "error": "it answers 404 through the API server",
    }


async def test_a_report_says_when_it_arrived_here(
    loop: ScrapeLoop, scraper: Scraper, server: ApiServer, world: World
) -> None:
    knows_a_running_job(world)
    server.answer("GET", proxy(scraper), {**SAID, "updatedAt": "9999-12-31T23:59:59Z"})
    await loop.ask(BOT)
    newest = world.board.newest(BOT)
    assert newest is not None
    assert (newest.pod, newest.progress.updated_at) == ("p", NOON)


async def test_a_report_that_comes_when_its_job_has_gone_is_not_kept(
    loop: ScrapeLoop, scraper: Scraper, world: World
) -> None:
    knows_a_running_job(world)

    async def gone_meanwhile(writer: asyncio.StreamWriter) -> None:
        world.knows(FINETUNE_JOBS, finetune_job(version=2, phase="Failed"))
        await GOOD(writer)

    async with hostile.pod(gone_meanwhile) as pod:
        scraper.port = pod.port
        await loop.ask(BOT)
    assert world.board.newest(BOT) is None


@pytest.mark.parametrize("error", [TimeoutError(), RuntimeError("a fault of ours"), ExceptionGroup("x", [OSError()])])
async def test_no_error_of_one_scrape_gets_out_and_it_is_named_once(
    loop: ScrapeLoop, world: World, counted: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fails(*_: object) -> Progress:
        raise error

    monkeypatch.setattr(Scraper, "progress", fails)
    knows_a_running_job(world)
    with capture_logs() as logs:
        for _ in range(3):
            await loop.ask(BOT)
    assert counted == ["fault"] * 3
    assert [line["event"] for line in logs] == ["no_progress"]


async def test_a_namespace_of_silent_pods_does_not_hold_up_another_namespaces(
    loop: ScrapeLoop, scraper: Scraper, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent_for_ever, answered = asyncio.Event(), asyncio.Event()
    at_once = most = 0

    async def progress(self: Scraper, namespace: str, pod: PodAddress) -> Progress:
        nonlocal at_once, most
        if namespace == "noisy":
            at_once += 1
            most = max(most, at_once)
            await silent_for_ever.wait()
        return Progress.model_validate(SAID)

    monkeypatch.setattr(Scraper, "progress", progress)
    for number in range(200):
        world.knows(FINETUNE_JOBS, job_in("noisy", f"n{number}"))
        world.knows(BATCH_JOBS, job_for_training(f"n{number}", "noisy"))
        world.knows(PODS, running(f"n{number}", f"n{number}", "noisy"))
    knows_a_running_job(world)
    loop.board = ProgressBoard(lambda key: answered.set() if key == BOT else None)
    task = asyncio.create_task(loop.run(0.01))
    async with asyncio.timeout(10):
        await answered.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert 1 <= most < 16
