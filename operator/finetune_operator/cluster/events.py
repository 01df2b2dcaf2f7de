"""Events on FineTuneJobs: what `kubectl describe` tells as the job's story. Best effort, and in nobody's way."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog

from finetune_operator.api.base import API_VERSION
from finetune_operator.api.resources import ObjectMeta
from finetune_operator.cluster.client import Client, ConflictError, NotFoundError, UnavailableError
from finetune_operator.plan.model.names import MANAGED_BY
from finetune_operator.plan.model.plan import JobEvent
from finetune_operator.runtime.kinds import EVENTS
from finetune_operator.runtime.lease import NotLeadingError

_log = structlog.get_logger(__name__)
_OCCASION: Final = "finetune-operator.io/occasion"
_LONGEST: Final = 1000
_ALIKE: Final = timedelta(minutes=10)
"""How long events that differ in numbers only are counted as one."""
_NUMBER: Final = re.compile(r"\d+")
_TRIES: Final = 4
_LANES: Final = 4


class _Entry(NamedTuple):
    job: ObjectMeta
    event: JobEvent
    moment: datetime


@dataclass
class EventSender:
    """Sends events in the background, those of one job in order; of more than it holds the oldest are dropped."""

    client: Client
    dropped: Callable[[], None] = lambda: None
    """Told of every event that was not sent."""
    most: int = 1000
    pause_seconds: float = 0.5
    """Before the second try of an event; doubles with each further one."""
    _lanes: list[asyncio.Queue[_Entry]] = field(init=False)

    def __post_init__(self) -> None:
        self._lanes = [asyncio.Queue(self.most // _LANES) for _ in range(_LANES)]

    def post(self, job: ObjectMeta, event: JobEvent, moment: datetime) -> None:
        """Takes an event; returns at once."""
        lane = self._lanes[hash(job.uid) % _LANES]
        if lane.full():
            lane.get_nowait()
            lane.task_done()
            self.dropped()
        lane.put_nowait(_Entry(job, event, moment))

    async def run(self) -> None:
        """Sends for ever."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._drain(lane), name="events")

    async def flush(self, seconds: float) -> None:
        """Waits until everything is sent, but no longer than so many seconds; drops the rest."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(lane.join() for lane in self._lanes))
        except TimeoutError:
            _log.warning("events_dropped", count=sum(lane.qsize() for lane in self._lanes))
        for lane in self._lanes:
            while not lane.empty():
                lane.get_nowait()
                lane.task_done()
                self.dropped()

    async def _drain(self, lane: asyncio.Queue[_Entry]) -> None:
        while True:
            entry = await lane.get()
            try:
                await self._send(entry)
            finally:
                lane.task_done()

    async def _send(self, entry: _Entry) -> None:
        words = {"job": entry.job.name, "namespace": entry.job.namespace, "reason": entry.event.reason.value}
        for tried in range(1, _TRIES + 1):
            try:
                return await send(self.client, *entry)
            except NotLeadingError:
                return self.dropped()
            except UnavailableError as error:
                if tried == _TRIES:
                    _log.warning("event_dropped", error=str(error), **words)
                    return self.dropped()
                await asyncio.sleep(self.pause_seconds * 2 ** (tried - 1))
            except Exception as error:  # noqa: BLE001 - an event must not stop those after it
                _log.warning("event_refused", error=str(error), **words)
                return self.dropped()
        return None


async def send(client: Client, job: ObjectMeta, event: JobEvent, now: datetime) -> None:
    """Sends an event; the same words again are counted on the first one, and so are soon after words that differ
    in numbers only.

    Name and occasion follow from what was observed, so that a reconcile that is repeated after a crash
    neither sends nor counts an event twice. Raises ApiError.
    """
    body = _event(job, event, now)
    for name in _names(job, event):
        body["metadata"]["name"] = name
        if await _is_told(client, body, now):
            return


async def _is_told(client: Client, body: dict[str, Any], now: datetime) -> bool:
    """Creates the event, or counts it on the one that has its name. False when that one is of long ago."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    try:
        await client.create(EVENTS.path(namespace), body)
    except ConflictError:
        return await _is_counted(client, EVENTS.path(namespace, name), body, now)
    return True


async def _is_counted(client: Client, path: str, body: dict[str, Any], now: datetime) -> bool:
    try:
        before = await client.get(path)
    except NotFoundError:  # its time was over just now
        return False
    occasion = _joined((before["metadata"].get("annotations") or {}).get(_OCCASION, ""), body)
    if occasion is None:
        return True
    if before.get("message") != body["message"] and not _is_recent(before, now):
        return False
    counted = {
        "metadata": {"annotations": {_OCCASION: occasion}},
        "message": body["message"],
        "count": (before.get("count") or 1) + 1,
        "lastTimestamp": body["lastTimestamp"],
    }
    await client.merge(path, counted)
    return True


def _joined(before: str, body: dict[str, Any]) -> str | None:
    """The occasion with this event added: a version of the job, and what was said at it. None if it was said."""
    version, said = body["metadata"]["annotations"][_OCCASION].split()
    then, *already = before.split() or [""]
    if then != version:
        return f"{version} {said}"
    return None if said in already else f"{before} {said}"


def _is_recent(before: dict[str, Any], now: datetime) -> bool:
    last = before.get("lastTimestamp")
    return last is not None and now - datetime.fromisoformat(last) < _ALIKE


def _names(job: ObjectMeta, event: JobEvent) -> tuple[str, str]:
    """The event's name by its words without their numbers, and that by all of its words."""
    about = f"{job.uid} {event.type} {event.reason}"
    alike, exact = _digest(f"{about} {_NUMBER.sub('#', event.message)}"), _digest(f"{about} {event.message}")
    return f"{job.name}.{alike}", f"{job.name}.{exact}"


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _event(metadata: ObjectMeta, event: JobEvent, now: datetime) -> dict[str, Any]:
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": metadata.namespace or "",
            "annotations": {_OCCASION: f"{metadata.resource_version or 0} {_digest(event.message)}"},
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "FineTuneJob",
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
        "type": event.type.value,
        "reason": event.reason.value,
        "message": event.message[:_LONGEST],
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
        "source": {"component": MANAGED_BY},
        "reportingComponent": MANAGED_BY,
        "reportingInstance": MANAGED_BY,
    }
