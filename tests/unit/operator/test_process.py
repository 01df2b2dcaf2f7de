from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client import Configuration
from tests.unit.cluster.api_server import ApiServer, serving, status

from finetune_operator import process
from finetune_operator.cluster.progress import pod_session
from finetune_operator.process import Operator
from finetune_operator.runtime.kinds import CONFIG_MAPS, FINETUNE_JOBS, WATCHED, JobKey, Kind
from finetune_operator.runtime.queue import Backoff
from finetune_operator.runtime.supervise import Supervisor
from finetune_operator.settings import Settings

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
LEASE = {
    "metadata": {"name": "finetune-operator", "resourceVersion": "1"},
    "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
}
EMPTY = {"items": [], "metadata": {"resourceVersion": "1"}}


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving() as found:
        kinds = ("finetunejobs", "finetunetemplates", "clusterfinetunetemplates")
        found.answer("GET", FINETUNE_JOBS.root, {"resources": [{"name": name} for name in kinds]})
        for kind in (*WATCHED, CONFIG_MAPS):
            found.answer("GET", kind.path(None), EMPTY)
        yield found


@pytest.fixture
async def operator(server: ApiServer) -> AsyncIterator[Operator]:
    async with pod_session() as session:
        settings = Settings(metrics_port=0, health_port=0, lease_namespace="default", resync_seconds=5)
        operator = Operator(settings, Configuration(host=server.url), session)
        operator.supervisor = Supervisor(operator.supervisor.clock, operator.metrics.task_failed, Backoff(0.01, 0.02))
        yield operator
        await operator.close()


async def asked_again(server: ApiServer, path: str, times: int) -> None:
    while server.paths("GET").count(path) < times:  # noqa: ASYNC110 - it is another process's requests, as it were
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [status(403, "Forbidden", "no right"), status(500), status(401)])
@pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.plural)
async def test_a_kind_that_may_not_be_listed_is_named_by_readyz_and_does_not_end_the_process(
    server: ApiServer, operator: Operator, monkeypatch: pytest.MonkeyPatch, kind: Kind, answer: dict[str, object]
) -> None:
    monkeypatch.setattr(process, "_ANSWER_SECONDS", 0.01)
    server.answer("GET", kind.path(None), answer)
    server.answer("GET", f"{LEASES}/finetune-operator", status(500))
    running = asyncio.create_task(operator.run())
    async with asyncio.timeout(20):
        await asked_again(server, kind.path(None), 4)
    assert not running.done()
    assert f"{kind.plural} cannot be listed" in (operator.ready() or "")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_templates_that_cannot_be_installed_hold_no_job_up(server: ApiServer, operator: Operator) -> None:
    server.answer("GET", f"{LEASES}/finetune-operator", LEASE)
    server.answer("PUT", f"{LEASES}/finetune-operator", LEASE)
    server.answer("POST", "/apis/finetune-operator.io/v1alpha1/clusterfinetunetemplates", status(500, "", "a webhook"))
    assert await operator.election.attempt()
    leading = asyncio.create_task(operator._lead())  # noqa: SLF001 - leading without Kopf, which would need a whole API server
    async with asyncio.timeout(20):
        while len([path for path in server.paths("POST") if "templates" in path]) < 3:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert not leading.done()
    operator.queue.add(JobKey("team", "bot"))
    async with asyncio.timeout(20):
        while len(operator.queue):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
