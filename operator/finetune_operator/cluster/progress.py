"""Asks running pods how far they are. What is in a pod is a tenant's: each answer is bounded in bytes and time."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import aiohttp
import structlog

from finetune_operator.cluster.client import (
    ApiError,
    BodyTooLargeError,
    Client,
    NotFoundError,
    RefusedError,
    TooLargeError,
    bounded_body,
)
from finetune_operator.cluster.pods import PodAddress, address
from finetune_operator.cluster.progress_report import LARGEST, ReportError, parse_report
from finetune_operator.runtime.kinds import PODS, JobKey
from finetune_operator.runtime.progress import ProgressBoard
from finetune_operator.runtime.queue import NoMetrics, WorkQueue
from finetune_operator.runtime.recent import Recent
from finetune_operator.runtime.store import Store
from finetune_operator.runtime.turns import Turns
from finetune_trainer.contract import PROGRESS_PORT, Progress

_log = structlog.get_logger(__name__)
_CONNECT_SECONDS: Final = 1.0
_POD_SECONDS: Final = 3.0
"""For both ways of asking a pod together."""
_AT_ONCE: Final = 16
_REMEMBERED: Final = 4096
_OK: Final = 200

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Outcome(StrEnum):
    """How asking a pod went."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    """Nobody answers, by either way: the pod has only just started, or a network policy is in between."""
    TIMEOUT = "timeout"
    """The pod takes connections and does not answer in time."""
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    """The pod answers with something else than 200."""
    INVALID = "invalid"
    """What it answers is no report, or its address is none that a pod can have."""
    FAULT = "fault"
    """An error of the operator's own."""


class NoProgressError(Exception):
    """A pod's progress could not be had."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


def pod_session() -> aiohttp.ClientSession:
    """A session for asking pods: it keeps no connection and no cookie of theirs, and unpacks nothing."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=2 * _AT_ONCE),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def may_be_a_pods(ip: IpAddress) -> bool:
    """Whether a pod can have this address: not the operator's own host, a cloud's metadata service or a group."""
    plain = ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip
    refused = plain.is_loopback or plain.is_link_local or plain.is_multicast or plain.is_unspecified
    return not refused and str(plain) != "255.255.255.255"


@dataclass
class Scraper:
    """Asks a pod by its address, else through the API server.

    Which of them works is remembered for the pods of one namespace on one network (a node's, as a rule), so that
    nobody's pods change how another namespace's are asked.
    """

    client: Client
    session: aiohttp.ClientSession
    clock: Callable[[], float]
    direct_again_after: float = 300.0
    """Seconds for which pods are not asked directly after that has failed."""
    port: int = PROGRESS_PORT
    may_ask: Callable[[IpAddress], bool] = may_be_a_pods
    _direct_from: Recent[tuple[str, str], float] = field(default_factory=lambda: Recent(_REMEMBERED), init=False)

    async def progress(self, namespace: str, pod: PodAddress) -> Progress:
        """The pod's Progress. Raises NoProgressError."""
        ip = self._plain(pod)
        try:
            async with asyncio.timeout(_POD_SECONDS):
                data = await self._answer(namespace, pod, ip)
        except TimeoutError as error:
            raise NoProgressError(Outcome.TIMEOUT, f"no answer in {_POD_SECONDS:g} s") from error
        try:
            return parse_report(data)
        except ReportError as error:
            raise NoProgressError(Outcome.INVALID, str(error)) from error

    def _plain(self, pod: PodAddress) -> IpAddress:
        try:
            ip = ipaddress.ip_address(pod.ip)
        except ValueError as error:
            raise NoProgressError(Outcome.INVALID, "its address is no IP address") from error
        if getattr(ip, "scope_id", None) or not self.may_ask(ip):
            raise NoProgressError(Outcome.INVALID, f"{ip} is no address of a pod")
        return ip

    async def _answer(self, namespace: str, pod: PodAddress, ip: IpAddress) -> bytes:
        network = (namespace, str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 64), strict=False)))  # noqa: PLR2004 - IPv4
        if self.clock() >= (self._direct_from.get(network) or 0.0):
            try:
                return await self._direct(ip)
            except _ElsewhereError as error:
                if error.lasting:
                    self._direct_from[network] = self.clock() + self.direct_again_after
        return await self._proxied(namespace, pod)

    async def _direct(self, ip: IpAddress) -> bytes:
        host = f"[{ip}]" if ip.version == 6 else str(ip)  # noqa: PLR2004 - IPv6
        try:
            async with self.session.get(
                f"http://{host}:{self.port}/progress",
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            ) as answer:
                if answer.status != _OK:
                    raise NoProgressError(Outcome.REFUSED, f"it answers {answer.status}")
                return await bounded_body(answer, LARGEST)
        except BodyTooLargeError as error:
            raise NoProgressError(Outcome.TOO_LARGE, str(error)) from error
        except aiohttp.ClientConnectorError as error:
            # A pod that refuses is up but not serving yet; one that cannot be reached is on a network of its own.
            raise _ElsewhereError(lasting=not isinstance(error.os_error, ConnectionRefusedError)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise _ElsewhereError(lasting=True) from error
        except TimeoutError as error:
            raise NoProgressError(Outcome.TIMEOUT, "its connection timed out") from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise _ElsewhereError(lasting=False) from error
        except aiohttp.ClientError as error:
            raise NoProgressError(Outcome.INVALID, f"it does not speak HTTP: {type(error).__name__}") from error

    async def _proxied(self, namespace: str, pod: PodAddress) -> bytes:
        path = f"{PODS.path(namespace, pod.name)}:{self.port}/proxy/progress"
        try:
            return await self.client.raw(path, (), _POD_SECONDS, LARGEST)
        except TooLargeError as error:
            raise NoProgressError(Outcome.TOO_LARGE, error.message) from error
        except (NotFoundError, RefusedError) as error:
            raise NoProgressError(Outcome.REFUSED, f"it answers {error.status} through the API server") from error
        except ApiError as error:
            raise NoProgressError(
                Outcome.UNREACHABLE, f"through the API server: {error.status} {error.reason}"
            ) from error


class _ElsewhereError(Exception):
    """A pod could not be asked directly."""

    def __init__(self, *, lasting: bool) -> None:
        super().__init__()
        self.lasting = lasting
        """Whether the next pod on this network cannot be, either."""


@dataclass
class ScrapeLoop:
    """Keeps the board of progress up to date for the jobs that run.

    Namespaces take turns, and one whose pods are silent leaves askers free for the others (see `Turns`).
    """

    store: Store
    scraper: Scraper
    board: ProgressBoard
    now: Callable[[], datetime]
    count: Callable[[str], None] = lambda _: None
    """Told how each asking of a pod went (an `Outcome`)."""
    _queue: WorkQueue[JobKey] = field(init=False)
    _named: Recent[tuple[str, str], None] = field(default_factory=lambda: Recent(_REMEMBERED), init=False)

    def __post_init__(self) -> None:
        turns: Turns[JobKey] = Turns(lambda key: key.namespace, _AT_ONCE)
        self._queue = WorkQueue(asyncio.get_running_loop(), NoMetrics(), turns=turns)

    async def run(self, every: float) -> None:
        """Asks every running job once in so many seconds, for ever. A job whose turn has not come waits for it."""
        async with asyncio.TaskGroup() as group:
            for number in range(_AT_ONCE):
                group.create_task(self._asker(), name=f"scrape-{number}")
            while True:
                self.look_again()
                await asyncio.sleep(every)

    def look_again(self) -> None:
        """Every running job is to be asked, if it is not waiting for that already."""
        for key in self.store.jobs_with_children():
            self._queue.add(key)

    async def _asker(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self.ask(key)
            finally:
                self._queue.done(key)
            await asyncio.sleep(0)

    async def ask(self, key: JobKey) -> None:
        """Asks the pod of a job that has its rank 0. Whatever comes of it, it raises nothing."""
        pod: PodAddress | None = None
        try:
            pod = self._pod(key)
            if pod is None:
                return
            progress = await self.scraper.progress(key.namespace, pod)
            if self._pod(key) == pod:
                self.board.report(key, pod.name, progress, self.now())
            self.count(Outcome.OK)
        except NoProgressError as error:
            self.count(error.outcome)
            if error.outcome is not Outcome.UNREACHABLE:
                self._name_once(key, pod, error.outcome, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a tenant's pod brings about concerns no other tenant
            self.count(Outcome.FAULT)
            self._name_once(key, pod, Outcome.FAULT, repr(error)[:256])

    def _pod(self, key: JobKey) -> PodAddress | None:
        job = self.store.job(key)
        if job is None or job.ended:
            return None
        return next((found for pod in reversed(self.store.children(key, PODS)) if (found := address(pod))), None)

    def _name_once(self, key: JobKey, pod: PodAddress | None, outcome: Outcome, error: str) -> None:
        named = (key.namespace, pod.name if pod else "")
        if named not in self._named:
            self._named[named] = None
            _log.warning(
                "no_progress", job=key.name, namespace=key.namespace, pod=named[1], outcome=outcome.value, error=error
            )
