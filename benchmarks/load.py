"""A quick client of the test cluster's API server, for putting load on it and for timing it."""

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
from tests.cluster.harness.credentials import credentials
from tests.cluster.harness.layout import ADMIN_TOKEN, Instance

Body = dict[str, Any]
JOBS = "/apis/finetune-operator.io/v1alpha1/namespaces/default/finetunejobs"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Api:
    """Requests as the cluster's admin over kept connections."""

    session: aiohttp.ClientSession
    address: str

    async def send(self, method: str, path: str, body: Body | None = None, kind: str = "application/json") -> Body:
        """The answer's JSON; raises on an error status."""
        data = None if body is None else json.dumps(body)
        async with self.session.request(
            method, self.address + path, data=data, headers={"Content-Type": kind}
        ) as answer:
            answer.raise_for_status()
            document: Body = await answer.json(content_type=None)
            return document

    async def watch(self, path: str) -> AsyncIterator[tuple[float, str, Body]]:
        """(monotonic time of arrival, type, object) of every event from now on."""
        listed = await self.send("GET", f"{path}?limit=1")
        version = listed["metadata"]["resourceVersion"]
        url = f"{self.address}{path}?watch=1&resourceVersion={version}"
        async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            async for line in answer.content:
                event = json.loads(line)
                yield time.monotonic(), event["type"], event["object"]


@asynccontextmanager
async def connect(instance: Instance) -> AsyncIterator[Api]:
    """A client of a running test cluster."""
    tls = ssl.create_default_context(cafile=str(credentials(instance).certificate))
    connector = aiohttp.TCPConnector(ssl=tls, limit=32)
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**22) as session:
        yield Api(session, f"https://{instance.node_ip}:6443")


async def in_parallel(tasks: Iterable[Awaitable[Any]], at_once: int = 16) -> None:
    """Wait for all of them, so many at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(task: Awaitable[Any]) -> None:
        async with gate:
            await task

    await asyncio.gather(*(one(task) for task in tasks))


def job(name: str, template: str = "not-there") -> Body:
    """A FineTuneJob; it waits for ever for a template that is not there."""
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "hf://owner/model"},
            "template": {"name": template},
            "datasets": [{"uri": "s3://bucket/rows.jsonl"}],
            "gpus": 1,
            "training": {"device": "cpu"},
            "output": {"uri": "s3://bucket/out"},
        },
    }


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
