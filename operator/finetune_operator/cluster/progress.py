"""Asks running pods how far they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from pydantic import ValidationError

from finetune_operator.cluster.client import ApiError, Client
from finetune_operator.cluster.pods import PodAddress, address
from finetune_operator.runtime.kinds import PODS, JobKey
from finetune_operator.runtime.progress import ProgressBoard
from finetune_operator.runtime.store import Store
from finetune_trainer.contract import PROGRESS_PORT, Progress

_CONNECT_SECONDS: Final = 1.0
_TOTAL_SECONDS: Final = 3.0
_LARGEST: Final = 64 * 1024
_AT_ONCE: Final = 16


@dataclass
class Scraper:
    """Asks a pod by its address, else through the API server; remembers for a while which one works."""

    client: Client
    session: aiohttp.ClientSession
    clock: Callable[[], float]
    direct_again_after: float = 300.0
    """Seconds for which pods are not asked directly after that has failed."""
    _direct_from: float = field(default=0.0, init=False)

    async def progress(self, namespace: str, pod: PodAddress) -> Progress | None:
        """The pod's Progress, if it could be had."""
        data = await self._direct(pod) if self.clock() >= self._direct_from else None
        if data is None:
            data = await self._proxied(namespace, pod)
        if data is None:
            return None
        try:
            return Progress.model_validate_json(data)
        except ValidationError:
            return None

    async def _direct(self, pod: PodAddress) -> bytes | None:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        try:
            async with self.session.get(
                f"http://{host}:{PROGRESS_PORT}/progress",
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS),
            ) as answer:
                return await answer.content.read(_LARGEST) if answer.status == 200 else None  # noqa: PLR2004 - HTTP
        except aiohttp.ClientConnectorError as error:
            # A pod that refuses is up but not serving yet; one that cannot be reached is on a network of its own.
            if not isinstance(error.os_error, ConnectionRefusedError):
                self._direct_from = self.clock() + self.direct_again_after
        except (aiohttp.ConnectionTimeoutError, aiohttp.ServerTimeoutError):
            self._direct_from = self.clock() + self.direct_again_after
        except aiohttp.ClientError:
            pass
        return None

    async def _proxied(self, namespace: str, pod: PodAddress) -> bytes | None:
        path = PODS.path(namespace, f"{pod.name}:{PROGRESS_PORT}/proxy/progress")
        with contextlib.suppress(ApiError):
            return await self.client.raw(path, _TOTAL_SECONDS)
        return None


@dataclass
class ScrapeLoop:
    """Keeps the board of progress up to date for the jobs that run."""

    store: Store
    scraper: Scraper
    board: ProgressBoard

    async def run(self, every: float) -> None:
        """Asks every running job once in so many seconds, for ever."""
        while True:
            began = self.scraper.clock()
            await self.once()
            await asyncio.sleep(max(every / 10, every - (self.scraper.clock() - began)))

    async def once(self) -> None:
        """Asks every running job once."""
        limit = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._ask(key, limit) for key in self.store.jobs_with_children()))

    async def _ask(self, key: JobKey, limit: asyncio.Semaphore) -> None:
        addresses = [found for pod in self.store.children(key, PODS) if (found := address(pod))]
        if not addresses:
            return
        async with limit:
            progress = await self.scraper.progress(key.namespace, addresses[-1])
        if progress is not None:
            self.board.report(key, addresses[-1].name, progress)
