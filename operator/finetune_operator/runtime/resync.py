"""The periodic resync: lists every watched kind, because a watch can lose what happened while it was down."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import WATCHED, Body, Kind
from finetune_operator.runtime.queue import Backoff
from finetune_operator.runtime.recent import Recent
from finetune_operator.runtime.store import Ref, Store, record_of
from finetune_operator.runtime.workers import TransientError

_log = structlog.get_logger(__name__)
_SOONEST: Final = 10.0
"""Seconds between complete lists, however often one is asked for."""
_BACKOFF: Final = Backoff(first=1.0, most=60.0)
_REMEMBERED: Final = 1024


class ResyncError(TransientError):
    """Some kind could not be listed. What could be is in the store."""


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: tuple[Body, ...]
    version: int
    """resourceVersion of the whole list."""


class Lister(Protocol):
    """Lists all objects of a kind (of one namespace, if there is one) in pages."""

    def __call__(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]: ...


@dataclass
class Resync:
    """Brings the store up to date with complete lists. Unchanged objects cost a look at their version."""

    store: Store
    inbox: Inbox
    pages: Lister
    namespaces: tuple[str, ...]
    """Namespaces that are watched; all when empty."""
    clock: Callable[[], float]
    observe_seconds: Callable[[float], None]
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the store has been complete."""
    problem: str = ""
    """What could not be listed the last time."""
    backoff: Backoff = _BACKOFF
    _wanted: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _unreadable: Recent[tuple[str, str], None] = field(default_factory=lambda: Recent(_REMEMBERED), init=False)
    _fresh_from: float = field(default=float("-inf"), init=False)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def fresher_than(self, moment: float) -> None:
        """Returns when a complete list that began after this moment is in the store. Raises ResyncError."""
        async with self._one_at_a_time:
            if self._fresh_from < moment:
                await self._once()

    def soon(self) -> None:
        """Asks for a complete list before it is due: something may have been lost."""
        self._wanted.set()

    async def run(self, every: float) -> None:
        """Lists everything every so many seconds, for ever; after a failure sooner."""
        failures = 0
        while True:
            await self._until_due(self.backoff.delay(failures, random.random()) if failures else every)  # noqa: S311
            try:
                await self.fresher_than(self.clock())
            except ResyncError:
                failures += 1
            else:
                failures = 0

    async def _until_due(self, seconds: float) -> None:
        soonest = min(_SOONEST, seconds)
        await asyncio.sleep(soonest)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - soonest):
                await self._wanted.wait()
        self._wanted.clear()

    async def _once(self) -> None:
        began = self.clock()
        lists = [
            (kind, namespace)
            for kind in WATCHED
            for namespace in (self.namespaces if kind.namespaced and self.namespaces else (None,))
        ]
        failed = [problem for kind, namespace in lists if (problem := await self._try(kind, namespace))]
        self.problem = "; ".join(failed)
        if failed:
            raise ResyncError(self.problem)
        self.store.shed_strangers()
        seconds, self._fresh_from = self.clock() - began, began
        self.observe_seconds(seconds)
        self.synced.set()
        _log.info("resynced", seconds=round(seconds, 3), **{kind.plural: self.store.count(kind) for kind in WATCHED})

    async def _try(self, kind: Kind, namespace: str | None) -> str | None:
        """Lists a kind; says what went wrong. A kind that may not be listed must not keep the others from it."""
        try:
            await self._list(kind, namespace)
        except Exception as error:  # noqa: BLE001 - told in the log and by /readyz, and tried again
            where = f" in namespace {namespace}" if namespace else ""
            _log.warning("list_failed", kind=kind.plural, namespace=namespace, error=f"{type(error).__name__}: {error}")
            return f"{kind.plural} cannot be listed{where}: {error}"
        return None

    async def _list(self, kind: Kind, namespace: str | None) -> None:
        found: dict[Ref, str] = {}
        version = 0
        async for page in self.pages(kind, namespace):
            version = page.version
            for body in page.items:
                self._see(kind, body, found)
            await asyncio.sleep(0)
        for record in self.store.missing_from(kind, namespace, found, version):
            self.inbox.gone(kind, record.ref, record.uid, version)

    def _see(self, kind: Kind, body: Body, found: dict[Ref, str]) -> None:
        metadata = body["metadata"]
        ref = Ref(metadata.get("namespace") or "", metadata["name"])
        found[ref] = metadata["uid"]
        try:
            if self.store.is_newer(kind, ref, metadata["uid"], int(metadata["resourceVersion"])):
                self.inbox.seen(record_of(kind, body))
        except Exception:  # noqa: BLE001 - one object that nobody can read must not hide the others
            version = (metadata["uid"], metadata["resourceVersion"])
            if version not in self._unreadable:
                self._unreadable[version] = None
                _log.exception("object_unreadable", kind=kind.plural, namespace=ref.namespace, name=ref.name)
