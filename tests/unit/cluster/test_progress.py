from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.unit.cluster.api_server import ApiServer
from tests.unit.cluster.conftest import World
from tests.unit.cluster.pod_json import container
from tests.unit.runtime.fake_time import FakeTime
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.cluster.pods import PodAddress
from finetune_operator.cluster.progress import ScrapeLoop, Scraper
from finetune_operator.runtime.kinds import FINETUNE_JOBS, PODS, JobKey

BOT = JobKey("team", "bot")
PROXY = "/api/v1/namespaces/team/pods/p:9402/proxy/progress"
SAID = {"stage": "train", "updatedAt": "2026-01-01T00:00:00Z", "step": 7}
NOBODY = PodAddress("p", "127.0.0.1")
"""An address at which nothing listens on the progress port."""


@pytest.fixture
async def scraper(world: World) -> AsyncIterator[Scraper]:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 9402)) == 0:
            pytest.skip("something listens on the trainer's port")
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield Scraper(world.client, session, FakeTime().time)


async def test_a_pod_that_cannot_be_reached_is_asked_through_the_api_server(
    scraper: Scraper, server: ApiServer
) -> None:
    server.answer("GET", PROXY, SAID)
    progress = await scraper.progress("team", NOBODY)
    assert progress is not None
    assert progress.step == 7


async def test_a_pod_that_does_not_serve_yet_has_no_progress(scraper: Scraper) -> None:
    assert await scraper.progress("team", NOBODY) is None


async def test_an_answer_that_is_no_progress_is_none(scraper: Scraper, server: ApiServer) -> None:
    server.answer("GET", PROXY, {"hello": "world"})
    assert await scraper.progress("team", NOBODY) is None


async def test_a_running_job_is_queued_when_its_progress_has_moved(
    scraper: Scraper, server: ApiServer, world: World
) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    running = {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [container(running={})]}
    world.knows(PODS, child("Pod", "p", status=running))
    world.queue.clear()
    server.answer("GET", PROXY, SAID, SAID, {**SAID, "step": 8})
    loop = ScrapeLoop(world.store, scraper, world.board)
    await loop.once()
    assert world.queue.take() == BOT
    world.queue.done(BOT)
    await loop.once()
    assert world.queue.take() is None
    await loop.once()
    assert world.queue.take() == BOT
