"""A quick client of the API server, for putting load on it and for timing it, and what it applies."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from benchmarks.control_plane import API, BENCHMARK, ControlPlane

Body = dict[str, Any]
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Api:
    """Requests as the benchmark's user over kept connections."""

    session: aiohttp.ClientSession

    async def send(self, method: str, path: str, body: Body | None = None, kind: str = "application/json") -> Body:
        """The answer's JSON; raises on an error status, with the server's words."""
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, API + path, data=data, headers={"Content-Type": kind}) as answer:
            if answer.status >= 400:
                raise ApiError(f"{method} {path}: {answer.status} {await answer.text()}", answer.status)
            document: Body = await answer.json(content_type=None)
            return document

    async def watch(self, path: str) -> AsyncIterator[tuple[float, str, Body]]:
        """(monotonic time of arrival, type, object) of every event from now on."""
        listed = await self.send("GET", f"{path}?limit=1")
        version = listed["metadata"]["resourceVersion"]
        url = f"{API}{path}?watch=1&resourceVersion={version}"
        async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            async for line in answer.content:
                event = json.loads(line)
                yield time.monotonic(), event["type"], event["object"]

    async def count(self, path: str) -> int:
        """How many objects there are at this path of a collection."""
        listed = await self.send("GET", f"{path}?limit=1")
        return len(listed["items"]) + int(listed["metadata"].get("remainingItemCount") or 0)


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@asynccontextmanager
async def connect(plane: ControlPlane) -> AsyncIterator[Api]:
    """A client of a running control plane."""
    tls = ssl.create_default_context(cafile=str(plane.certificate))
    connector = aiohttp.TCPConnector(ssl=tls, limit=64)
    headers = {"Authorization": f"Bearer {plane.token(BENCHMARK)}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**22) as session:
        yield Api(session)


async def in_parallel(tasks: Iterable[Awaitable[Any]], at_once: int = 16) -> None:
    """Wait for all of them, so many at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(task: Awaitable[Any]) -> None:
        async with gate:
            await task

    await asyncio.gather(*(one(task) for task in tasks))


async def new_namespace(api: Api, name: str) -> None:
    """Make a namespace, and wait for the service account without which no pod is admitted."""
    await api.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for _ in range(600):
        try:
            await api.send("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")
        except ApiError:
            await asyncio.sleep(0.1)
        else:
            return
    raise TimeoutError(f"the namespace {name} has no service account after 60 s")


def finetune_jobs(namespace: str = "default") -> str:
    """Path of the FineTuneJobs of a namespace."""
    return f"/apis/finetune-operator.io/v1alpha1/namespaces/{namespace}/finetunejobs"


def finetune_job(name: str, template: str = "not-there", pods: int = 1) -> Body:
    """A FineTuneJob; without a template it waits for ever."""
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "hf://owner/model"},
            "template": {"name": template},
            "datasets": [{"uri": "s3://bucket/rows.jsonl"}],
            "gpus": pods,
            "gpusPerNode": 1,
            "training": {"device": "cpu"},
            "output": {"uri": "s3://bucket/out"},
        },
    }


def batch_jobs(namespace: str = "default") -> str:
    """Path of the Jobs of a namespace."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def batch_job(name: str) -> Body:
    """A bare Job of one pod."""
    container = {"name": "trainer", "image": "localhost/trainer:test"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which this share of them lies."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
