from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import prometheus_client
import pytest
from tests.unit.cluster.api_server import ApiServer, Json, client_of, serving
from tests.unit.cluster.hostile import closed_port
from tests.unit.cluster.started_job import LIVE_PODS, RESOLVED, STARTED, listed
from tests.unit.runtime.fake_time import FakeTime
from tests.unit.runtime.objects import finetune_job

from finetune_operator.cluster import progress
from finetune_operator.cluster.apply import Applier
from finetune_operator.cluster.children import Children
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.latest_warning import LatestWarnings
from finetune_operator.cluster.observe import Observer
from finetune_operator.cluster.progress import Scraper, pod_session
from finetune_operator.cluster.resolved import ResolvedSpecs
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import FINETUNE_JOBS, JobKey, Kind
from finetune_operator.runtime.metrics import QueueGauges
from finetune_operator.runtime.progress import ProgressBoard
from finetune_operator.runtime.queue import WorkQueue
from finetune_operator.runtime.store import Store, record_of


@dataclass
class World:
    """An API server, and what the operator knows of it."""

    server: ApiServer
    client: Client
    store: Store
    queue: WorkQueue[JobKey]
    inbox: Inbox
    resolved: ResolvedSpecs
    board: ProgressBoard
    time: FakeTime
    observer: Observer
    applier: Applier

    def knows(self, kind: Kind, body: Json) -> None:
        self.inbox.seen(record_of(kind, body))

    @property
    def asked(self) -> list[str]:
        """What was asked for besides the resolved spec."""
        return [path for path in self.server.paths("GET") if path != RESOLVED]


@pytest.fixture(autouse=True)
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here speaks TLS, and to load the system's certificates takes longer than most of these tests."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving() as found:
        yield found


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    async with client_of(server) as found:
        yield found


@pytest.fixture
def world(server: ApiServer, client: Client) -> World:
    store, time = Store(), FakeTime()
    queue: WorkQueue[JobKey] = WorkQueue(time, QueueGauges(prometheus_client.CollectorRegistry()))
    inbox = Inbox(store, queue)
    inbox.open()
    resolved, board = ResolvedSpecs(client), ProgressBoard(queue.add)
    warnings = LatestWarnings(client, time.time)
    observer = Observer(store, client, Children(store, client), resolved, warnings, board)
    applier = Applier(client, store, inbox, resolved)
    return World(server, client, store, queue, inbox, resolved, board, time, observer, applier)


@pytest.fixture
def started(world: World) -> World:
    """A job that has started, of which nothing is known yet but itself and that it has no resolved spec."""
    world.knows(FINETUNE_JOBS, finetune_job(**STARTED))
    world.server.answer("GET", LIVE_PODS, listed())
    return world


@pytest.fixture
def time() -> FakeTime:
    """The clock by which pods are asked."""
    return FakeTime()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with pod_session() as found:
        yield found


@pytest.fixture
def scraper(world: World, session: aiohttp.ClientSession, time: FakeTime, monkeypatch: pytest.MonkeyPatch) -> Scraper:
    monkeypatch.setattr(progress, "_POD_SECONDS", 1.0)
    # On a busy machine a second goes by between connecting and being connected.
    monkeypatch.setattr(progress, "_CONNECT_SECONDS", 30.0)
    return Scraper(world.client, session, time.time, port=closed_port(), may_ask=lambda ip: ip.is_loopback)
